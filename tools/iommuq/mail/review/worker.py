# SPDX-License-Identifier: GPL-2.0-only
"""The process in the sandbox: checks, builds and runs a series.

Prints its progress, then its untrusted answer in lines of JSON that begin with `MARK`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iommuq.bases.basefile import load_spec
from iommuq.bases.sources import Base
from iommuq.build.workspace import Workspace
from iommuq.checks.model import Status as CheckStatus
from iommuq.checks.runner import check_queue, choose
from iommuq.proof import flakes, lanes
from iommuq.proof.prove import Outcome, prove
from iommuq.queue.model import load_queue
from iommuq.queue.overlay import load_overlay
from iommuq.results.known import Verdict
from iommuq.results.store import Status
from iommuq.system import progress, tables
from iommuq.system.errors import EXIT_OK, IommuqError
from iommuq.system.files import project_root
from iommuq.system.groups import pool
from iommuq.system.run import run

#: The prefix of lines with the answer.
MARK = "@iommuq-review "
#: The file with the request, in the given directory.
REQUEST = "request.json"
#: Checks that the caller makes.
_OURS = ("signed-off",)
#: Characters of the answer in one line.
_PIECE = 60_000
_MESSAGE_LINES = 20


@dataclass(frozen=True)
class Request:
    """The series to test, and how.

    :ivar git_dir: the repository with the series applied.
    :ivar queue: directory of a queue made of the series.
    :ivar suites: names of lanes.
    :ivar checks: ``quick``, ``all`` or ``none``.
    """

    base: str
    version: str
    kernel: str
    commit: str
    git_dir: Path
    queue: Path
    suites: tuple[str, ...]
    checks: str


def work(request: Request) -> dict[str, Any]:
    """Test a series, and return the answer, as `iommuq.mail.review.review` reads it."""
    root = project_root()
    spec = load_spec(request.base)
    base = Base(spec, request.version, "", request.kernel, request.commit, request.git_dir)
    # Without known failures: those are of our queue.
    queue = load_queue(request.queue, request.base)
    workspace = Workspace(root, base, queue, load_overlay(root / "kunit"))
    reports = list(_checks(workspace, request.checks))
    chosen = lanes.open_lanes(workspace, request.suites)
    with pool() as executor:
        outcomes = prove(workspace.steps(), chosen, executor)
        outcomes = flakes.settle(outcomes, chosen, executor)
    return {
        "lanes": {lane.name: lane.title for lane in chosen},
        "compiler": run(["gcc", "--version"], cwd=Path("/"), timeout=30).output.split("\n")[0],
        "outcomes": [_outcome(each) for each in outcomes],
        "reports": reports,
    }


def _checks(workspace: Workspace, which: str) -> Iterator[dict[str, Any]]:
    if which == "none":
        return
    slow = which == "all"
    names = [check.name for check in choose((), slow=slow) if check.name not in _OURS]
    for report in check_queue(workspace, None, names, slow=slow):
        progress.note(f"{report.subject}: {report.check}: {report.status.value}")
        yield {
            "check": report.check,
            "label": report.subject,
            "findings": [
                {"status": each.status.value, "text": each.text, "where": each.where}
                for each in report.findings
                if each.status is not CheckStatus.PASS
            ],
        }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    done = outcome.run
    messages = {}
    for result in done.results if done else ():
        if result.status in (Status.FAIL, Status.ERROR):
            messages[result.test] = "\n".join(result.message.splitlines()[:_MESSAGE_LINES])
    return {
        "label": outcome.step.label,
        "lane": outcome.lane,
        "failure": None if outcome.failure is None else outcome.failure.what,
        "warnings": list(outcome.warnings),
        "passed": _named(outcome, Verdict.OK),
        "failed": _named(outcome, Verdict.FAILED),
        "skipped": _named(outcome, Verdict.SKIPPED),
        "flaky": _named(outcome, Verdict.FLAKY),
        "unknown": _named(outcome, Verdict.ERROR),
        "messages": messages,
        "accelerator": done.accelerator if done else "",
    }


def _named(outcome: Outcome, wanted: Verdict) -> list[str]:
    return [test for test, verdict in outcome.verdicts.items() if verdict is wanted]


def _say(answer: dict[str, Any]) -> None:
    text = json.dumps(answer)
    for start in range(0, len(text), _PIECE):
        print(f"{MARK}{text[start : start + _PIECE]}", flush=True)


def main() -> int:
    """Handle the request in the given directory; return 0 if there is an answer."""
    folder = Path(sys.argv[1])
    # One stream, so that progress and answer stay in order.
    sys.stderr = sys.stdout
    progress.configure(plain=True)
    try:
        data = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
        _say(work(tables.validate(Request, data, folder / REQUEST)))
    except IommuqError as error:
        _say({"error": {"code": error.exit_code, "what": error.what, "hint": error.hint}})
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
