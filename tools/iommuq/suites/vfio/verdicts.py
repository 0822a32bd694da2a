# SPDX-License-Identifier: GPL-2.0-only
"""Judge what a program of selftests/vfio reported.

With the control device a case must pass, with the marked one it must fail to open the device.  A
skip counts as a failure unless it is expected."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from iommuq.guests.boot import SuiteReport
from iommuq.results.console import ktap, splats
from iommuq.results.console.ktap import Case
from iommuq.results.store import Status
from iommuq.suites.selftest import ENDS
from iommuq.suites.vfio.suite import MARKED, PLACE, Program, VfioSuite

#: The case of a program that ends before its first one.
WHOLE = "all"
#: KSFT_SKIP (tools/testing/selftests/kselftest.h).
_SKIPPED = 4
_ERRNO = re.compile(r"\[errno: (\d{1,4}) - ")
#: Lines of its output that a message quotes.
_QUOTED = 12
# Of the harness, about every case.
_CHATTER = re.compile(r"# +(?:RUN|OK|FAIL) +\S|TAP version|1\.\.\d|(?:not )?ok \d|# Starting")


@dataclass(frozen=True)
class Judged:
    """The result of one case, named ``<program>.<device>.<case>``."""

    test: str
    status: Status
    message: str = ""
    seconds: float = 0.0


def judge(
    suite: VfioSuite, program: Program, device: str, report: SuiteReport, placed: Sequence[str]
) -> list[Judged]:
    """Return the results of one run of a program.

    :param device: `CONTROL` or `MARKED`.
    :param placed: its lines and those of the kernel, in order.
    """
    name = f"{program.name}.{device}"
    said = ktap.parse(report.output)
    splat, loose = splats.blamed_on(
        ktap.parse(placed), splats.find(placed), splats.expected(placed)
    )
    shown = {case.name for case in said.tests if case.status is Status.FAIL}
    found = []
    early = not said.tests and not report.trouble and report.status is not None
    cases = (_early(report, said.problems),) if early else said.tests
    for case in cases:
        text = _lines(report.output, case)
        status, message = _status(suite, program, device, case, text)
        # Also where it must fail, or may be skipped.
        if case.name in splat:
            status, message = Status.FAIL, splat[case.name]
        found.append(Judged(f"{name}.{case.name}", status, message, case.duration or 0.0))
    # What the cases do not tell.
    status, message = Status.PASS, ""
    if report.trouble:
        status, message = Status.ERROR, report.trouble
    elif said.problems and not early:
        status, message = Status.ERROR, "\n".join(said.problems)
    elif loose:
        status, message = Status.FAIL, "\n".join(one.text for one in loose)
    elif not early and report.status not in (0, _SKIPPED) and not shown:
        status, message = Status.FAIL, f"exit status {report.status}"
    found.append(Judged(f"{name}.{ENDS}", status, message, report.seconds))
    return found


def _early(report: SuiteReport, problems: Sequence[str]) -> Case:
    """Return a program that ended before its first case as one case.

    One that was content without any has tested nothing.
    """
    statuses = {0: Status.ERROR, _SKIPPED: Status.SKIP}
    status = statuses.get(report.status or 0, Status.FAIL)
    first = report.output[0] if report.output else ""
    message = "\n".join(["no test was run", *problems]) if status is Status.ERROR else first
    return Case(WHOLE, status, message, 0.0, first=1)


def _lines(output: Sequence[str], case: Case) -> list[str]:
    """Return the words of a program about one case."""
    lines = output[max(0, case.first - 1) : case.last or len(output)]
    return [line for line in lines if line.strip() and not _CHATTER.match(line)]


def _status(
    suite: VfioSuite, program: Program, device: str, case: Case, text: Sequence[str]
) -> tuple[Status, str]:
    """Return the verdict on a case, and its reason."""
    quoted = "\n".join(text[-_QUOTED:]) or case.message
    if case.status is Status.ERROR:
        return case.status, case.message
    if case.status is Status.SKIP:
        test = f"{program.name}.{device}.{case.name}"
        reason = "\n".join([case.message, *text])
        told = case.message.partition("\n")[0]
        if suite.may_skip(test, reason):
            return Status.SKIP, told
        return Status.FAIL, f"skipped, which {PLACE} does not expect: {told}"
    if device != MARKED or case.name in program.unopened:
        return case.status, "" if case.status is Status.PASS else quoted
    if case.status is Status.PASS:
        return Status.FAIL, "passed, although nothing may open this device"
    if not any(word in line for line in text for word in (*suite.refused, *suite.silent)):
        return Status.FAIL, f"failed, but not to open the device:\n{quoted}"
    numbers = {int(match[1]) for line in text for match in _ERRNO.finditer(line)}
    silent = any(word in line for line in text for word in suite.silent)
    if not numbers <= suite.numbers or not (numbers or silent):
        return Status.FAIL, f"refused, but not with {' or '.join(suite.errnos)}:\n{quoted}"
    return Status.PASS, ""
