# SPDX-License-Identifier: GPL-2.0-only
"""Print the results of one run: failures with their messages, and the verdict."""

from __future__ import annotations

import sys

from iommuq.proof.lanes import Lane
from iommuq.report import live
from iommuq.results.known import Verdict, sum_up
from iommuq.results.store import Result, SuiteRun
from iommuq.system import progress

#: Printed lines of a failing test's message; the log has all.
_MESSAGE_LINES = 12


def report_run(title: str, lane: Lane, run: SuiteRun) -> int:
    """Print the results of a run, and return the exit code.

    :param title: name and version of what was tested.
    """
    verdicts = lane.judge(run)
    for result in run.results:
        _print_result(result, verdicts[result.test])
    ran = "" if f"({run.accelerator})" in lane.title else f" ({run.accelerator})"
    print(f"{title}, {lane.title}{ran}")
    code, verdict = sum_up(f"{run.base} {run.patch}", verdicts.values())
    print(verdict)
    live.emit("end", exit_code=code, findings=[], errors=[])
    return code


def _print_result(result: Result, verdict: Verdict) -> None:
    if verdict is Verdict.OK and sys.stdout.isatty():
        return
    print(f"{verdict.word:<15} {progress.one_line(result.test)}")
    if verdict in (Verdict.FAILED, Verdict.ERROR):
        lines = result.message.splitlines()
        for line in lines[:_MESSAGE_LINES]:
            print(f"    {progress.one_line(line)}")
        if len(lines) > _MESSAGE_LINES:
            print(f"    … {len(lines) - _MESSAGE_LINES} more lines")
        print(f"    full log: {result.log}")
