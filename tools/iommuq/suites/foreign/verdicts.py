# SPDX-License-Identifier: GPL-2.0-only
"""Judge a run of a program of others.

It must pass with the control device, and must not be able to open the marked one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from iommuq.guests.boot import SuiteReport
from iommuq.results.console import ktap, splats
from iommuq.results.store import Status
from iommuq.suites.foreign.table import PLACE, Program
from iommuq.suites.vfio.suite import MARKED

# Of busybox's timeout: 128 + SIGTERM.
_ENDED = 143
_HEADS = ("TAP version ", "KTAP version ")
#: Lines of its output that a message quotes.
_QUOTED = 12


def judge(
    program: Program,
    device: str,
    report: SuiteReport,
    placed: Sequence[str],
    refused: Sequence[str],
) -> tuple[Status, str]:
    """Return the verdict on one run, and its reason.

    :param device: `CONTROL` or `MARKED`.
    :param placed: its lines and those of the kernel, in order.
    :param refused: regular expressions that say that the kernel refuses a device.
    """
    broken = [splat.text for splat in splats.find(placed)]
    if broken:
        return Status.FAIL, "\n".join(broken)
    if report.trouble:
        return Status.ERROR, report.trouble
    quoted = "\n".join(report.output[-_QUOTED:]) or "it printed nothing"
    text = "\n".join(report.output)
    why = _wrong(program, report, text)
    skipped = bool(program.skips) and re.search(program.skips, text) is not None
    if device == MARKED:
        ended = program.endless and report.status == _ENDED
        said = any(re.search(one, text, re.MULTILINE) for one in refused)
        if said and why and not ended:
            return Status.PASS, ""
        if not why or skipped:
            return Status.FAIL, f"opened it, although nothing may open this device:\n{quoted}"
        return Status.FAIL, f"failed, but not because the kernel refuses the device:\n{quoted}"
    if skipped:
        return Status.SKIP, f"{PLACE} expects that it tests nothing here: {quoted}"
    return (Status.FAIL, f"{why}:\n{quoted}") if why else (Status.PASS, "")


def _wrong(program: Program, report: SuiteReport, text: str) -> str:
    """Return why a run is no pass; empty: it is one."""
    wanted = _ENDED if program.endless else 0
    if report.status != wanted:
        return f"exit status {report.status}"
    if program.fails and (match := re.search(program.fails, text)):
        return f"it says {match[0]!r}"
    if program.pattern and not re.search(program.pattern, text):
        return f"nothing in its output is like {program.pattern!r}"
    return _wrong_tap(report) if program.read == "tap" else ""


def _wrong_tap(report: SuiteReport) -> str:
    output = report.output
    if not any(line.startswith(_HEADS) for line in output):
        # TAP 12 has no first line.
        output = ("TAP version 13", *output)
    said = ktap.parse(output)
    bad = [case.name for case in said.tests if case.status not in (Status.PASS, Status.SKIP)]
    if bad:
        return f"not ok: {', '.join(bad)}"
    if said.problems:
        return "; ".join(said.problems)
    if not any(case.status is Status.PASS for case in said.tests):
        return "no test was run"
    return ""
