# SPDX-License-Identifier: GPL-2.0-only
"""A run as KCIDB data, for KernelCI; each step of the queue is a checkout."""

from __future__ import annotations

import datetime
import re
from typing import Any

import kcidb_io  # type: ignore[import-untyped]

from iommuq.report.view import middle, visible
from iommuq.results.runs.model import CellRecord, CommandRun, State, Test
from iommuq.results.store import Status
from iommuq.system.files import hash_of

#: The name of the submitting system; KernelCI assigns it.
ORIGIN = "iommuq"
SCHEMA = kcidb_io.schema.V5_3
#: Characters of a message; KCIDB takes up to 16 KiB.
_EXCERPT = 8000
_STATUS = {
    Status.PASS: "PASS",
    Status.FAIL: "FAIL",
    Status.SKIP: "SKIP",
    # KCIDB's ERROR is a fault of the test, MISS one of the harness.
    Status.ERROR: "MISS",
}
# KernelCI's architectures by guest.
_ARCHITECTURES = {"um": "um", "qemu": "x86_64"}


def to_kcidb(record: CommandRun) -> dict[str, Any]:
    """Return a run as KCIDB data, valid by `SCHEMA`."""
    data: dict[str, Any] = {
        "version": {"major": SCHEMA.major, "minor": SCHEMA.minor},
        "checkouts": _checkouts(record),
        "builds": [],
        "tests": [],
    }
    for number, cell in enumerate(record.cells):
        data["builds"].append(_build(record, cell, number))
        data["tests"] += _tests(record, cell, number)
    SCHEMA.validate(data)
    return data


def _checkouts(record: CommandRun) -> list[dict[str, Any]]:
    found = []
    patches: list[str] = []
    for step in record.steps:
        if step.sha256:
            patches.append(step.sha256)
        found.append(
            {
                "id": _checkout_id(record, step.label),
                "origin": ORIGIN,
                "tree_name": "stable",
                "git_repository_branch": visible(record.base),
                "git_commit_name": f"v{visible(record.head.kernel)}" if record.head.kernel else "",
                # Of the hashes of all patches; empty without patches.
                "patchset_hash": hash_of(*patches, "") if patches else "",
                "comment": visible(step.subject or step.label),
                "start_time": _time(record.started),
                "valid": True,
                "misc": {
                    "iommuq": {
                        "run": record.id,
                        "command": visible(record.command),
                        "state": record.state.value,
                        "version": visible(record.head.version),
                        "patch": visible(step.name),
                    }
                },
            }
        )
    return found


def _build(record: CommandRun, cell: CellRecord, number: int) -> dict[str, Any]:
    build: dict[str, Any] = {
        "id": _build_id(record, number),
        "checkout_id": _checkout_id(record, cell.step),
        "origin": ORIGIN,
        "comment": visible(f"{record.base} {cell.step} for {cell.lane}"),
        "start_time": _time(cell.started or record.started),
        "compiler": visible(dict(record.head.versions).get("gcc", "")),
        "config_name": visible(cell.lane),
        "status": "FAIL" if cell.failure else "PASS",
        "misc": {"warnings": [visible(line) for line in cell.warnings or ()]},
    }
    if cell.guest:
        build["architecture"] = _ARCHITECTURES.get(
            cell.guest, re.sub(r"[^a-z0-9_]", "_", cell.guest.lower())
        )
    if cell.failure:
        build["log_excerpt"] = _lines(cell.failure)
    return build


def _tests(record: CommandRun, cell: CellRecord, number: int) -> list[dict[str, Any]]:
    found = []
    for place, test in enumerate(cell.tests):
        entry: dict[str, Any] = {
            "id": f"{_build_id(record, number)}:{place}",
            "build_id": _build_id(record, number),
            "origin": ORIGIN,
            "path": _path(cell, test),
            "comment": _comment(cell, test),
            "status": _STATUS[test.status],
            "start_time": _time(cell.started or record.started),
            "environment": {"comment": visible(f"{cell.guest} ({cell.accelerator})")},
        }
        if test.duration > 0:
            entry["duration"] = test.duration
        if test.message:
            entry["log_excerpt"] = _lines(test.message)
        if test.answer:
            entry["misc"] = {"answer": visible(test.answer)}
        found.append(entry)
    if not cell.tests and not cell.failure and record.state is not State.FINISHED:
        found.append(
            {
                "id": f"{_build_id(record, number)}:lost",
                "build_id": _build_id(record, number),
                "origin": ORIGIN,
                "path": re.sub(r"[^A-Za-z0-9_-]", "_", cell.lane) or "suite",
                "comment": "no results: the run was killed",
                "status": "MISS",
            }
        )
    return found


def _comment(cell: CellRecord, test: Test) -> str:
    words = f"{cell.lane} at {cell.step}"
    if test.known is not None:
        words += f"; known failure until {test.known.expires}: {test.known.link}"
    return visible(words)


def _path(cell: CellRecord, test: Test) -> str:
    """Return a test's path: words of letters, digits, ``_`` and ``-``, joined with dots."""
    words = f"{cell.lane}.{test.name}".split(".")
    return ".".join(re.sub(r"[^A-Za-z0-9_-]", "_", word) or "_" for word in words)


def _checkout_id(record: CommandRun, label: str) -> str:
    return f"{ORIGIN}:{visible(record.id)}:{visible(label)}"


def _build_id(record: CommandRun, number: int) -> str:
    return f"{ORIGIN}:{visible(record.id)}:{number}"


def _time(when: float) -> str:
    return datetime.datetime.fromtimestamp(when, datetime.UTC).isoformat(timespec="seconds")


def _lines(text: str) -> str:
    return "\n".join(visible(line) for line in middle(text, _EXCERPT).split("\n"))
