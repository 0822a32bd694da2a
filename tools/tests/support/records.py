# SPDX-License-Identifier: GPL-2.0-only
"""Records of runs for the tests of reports to share."""

from __future__ import annotations

from typing import Any

from iommuq.results.known import Verdict
from iommuq.results.runs.archive import plain_verdict
from iommuq.results.runs.model import (
    CellRecord,
    CommandRun,
    Head,
    Known,
    Splat,
    State,
    StepRecord,
    Test,
    Timing,
)
from iommuq.results.store import Status

#: A name with all that could break out of a form, or look like another.
NASTY = "s.\"q' <b>&amp;\n#1\x1b[31m\x00\u202e]]>\\"

KNOWN = Known("why it\nfails", "https://example.org/1", "2099-06-30")
STEPS = (
    StepRecord("baseline"),
    StepRecord("0001", "toy: refuse to block", "toy/0001-a.patch", "a" * 64),
    StepRecord(
        "0002", "toy: <script>alert(1)</script>", "toy/0002-b.patch", "b" * 64, proof="tidies"
    ),
)
SPLAT = Splat("toy.a", "WARNING", "WARNING: at toy_step+0x2", "WARNING: at toy_step+0x2\n x", "/l")


def case(name: str, status: Status | str, verdict: Verdict | None = None, **more: Any) -> Test:
    """Make a test; its verdict is the plain one of its status unless said."""
    status = Status(status)
    return Test(name, status, verdict or plain_verdict(status), **more)


def cell(step: str, *tests: Test, lane: str = "kunit", **more: Any) -> CellRecord:
    """Make a cell that ran under UML."""
    fields: dict[str, Any] = {
        "run": f"{step}-{lane}", "kernel": "6.12.117", "guest": "um", "accelerator": "native",
        "started": 1000.0, "finished": 1002.5,
    }  # fmt: skip
    return CellRecord(step, lane, tests=tests, **{**fields, **more})


def record(*cells: CellRecord, **more: Any) -> CommandRun:
    """Make a run of some cells that has come to its end."""
    head = Head(
        "Linux 6.12.117",
        "6.12.117",
        "6.12.117-1",
        "0.1",
        (("gcc", "gcc 12"),),
        **more.pop("head", {}),
    )
    fields: dict[str, Any] = {
        "id": "20260101T000000-00000001", "command": "run 6.12", "base": "6.12",
        "state": State.FINISHED, "started": 1000.0, "finished": 1010.0, "exit_code": 0,
    }  # fmt: skip
    return CommandRun(**{**fields, **more}, head=head, cells=cells)


def queue(**more: Any) -> CommandRun:
    """Make a walk through a queue in which all is as it should be."""
    return record(
        cell("baseline", case("toy.a", "fail", message="Expected 1"), case("toy.b", "pass")),
        cell("0001", case("toy.a", "pass", duration=0.5), case("toy.b", "pass")),
        cell("0002", case("toy.a", "pass"), case("toy.b", "fail", Verdict.KNOWN, known=KNOWN)),
        head={"steps": (*STEPS[:2], StepRecord(**{**vars(STEPS[2]), "accepted": ("toy.b",)}))},
        timings=(Timing("Building 6.12 0001 for um", 0, 0.0, 8.0), Timing("Running", 0, 8.0, 2.0)),
        **more,
    )


def broken(**more: Any) -> CommandRun:
    """Make a run of one step in which a bit of everything happened."""
    return record(
        cell(
            "0001",
            case("toy.a", "fail", message="# a: EXPECTATION FAILED\nExpected 1", log="/no/log"),
            case("toy.b", "pass"),
            case("toy.c", "skip", message="no PCI"),
            case("toy.d", "error", message="guest lost"),
            case("toy.e", "fail", Verdict.KNOWN, known=KNOWN),
            case(NASTY, "fail", message=NASTY),
            splats=(SPLAT,),
        ),
        **{"exit_code": 1, **more},
    )
