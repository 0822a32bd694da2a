# SPDX-License-Identifier: GPL-2.0-only
"""Judge the checks of a scenario by the output of the guest's program.

A wrong word fails, later checks of a broken kernel are skipped, a failed setup is an error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from iommuq.firmware.scenario import NO_SPLAT, Action, Scenario
from iommuq.results.store import Status

#: Words about the test device or the script, not about the kernel.
UNTOLD = ("NOEDU", "NOMEMORY", "OFF", "STUCK", "MALFORMED", "MISSING")
#: The word for something that this kernel does not show.
UNSEEN = "UNSEEN"
#: Words of a step that did not end.
LOST = ("HANG", "DIED")

_STEP = re.compile(r"step (\d{1,9}) (\S+)(?: (.*))?")
_BYTES = re.compile(r"bytes (\d{1,9}) ((?:[0-9a-f]{2})*)")


@dataclass(frozen=True)
class Ended:
    """How one step ended: a word, and optional details."""

    word: str
    more: str = ""

    def __str__(self) -> str:
        return f"{self.word} ({self.more})" if self.more else self.word


@dataclass(frozen=True)
class Said:
    """The output of the program.

    :ivar steps: by number, without those that did not start.
    :ivar data: dumped bytes, by number of the step.
    :ivar whole: the program ended by itself.
    """

    steps: dict[int, Ended]
    data: dict[int, bytes]
    whole: bool


def read(lines: Iterable[str]) -> Said:
    """Parse the program's output, without unknown lines."""
    steps: dict[int, Ended] = {}
    data: dict[int, bytearray] = {}
    whole = False
    for line in lines:
        if match := _STEP.fullmatch(line):
            steps.setdefault(int(match[1]), Ended(match[2], (match[3] or "").strip()))
        elif match := _BYTES.fullmatch(line):
            data.setdefault(int(match[1]), bytearray()).extend(bytes.fromhex(match[2]))
        elif line == "end":
            whole = True
    return Said(steps, {number: bytes(dump) for number, dump in data.items()}, whole)


def has_hung(lines: Sequence[str]) -> bool:
    """Return whether the last line of the program's output reports a hanging step."""
    match = _STEP.fullmatch(lines[-1]) if lines else None
    return match is not None and match[2] == "HANG"


@dataclass(frozen=True)
class CheckResult:
    """The result of one check; *answer* is the answer of its step, also if it passed."""

    check: str
    status: Status
    message: str = ""
    answer: str = ""


def judge(
    scenario: Scenario,
    machine: str,
    said: Said,
    first: int,
    *,
    trouble: str = "",
    splats: Sequence[str] = (),
) -> list[CheckResult]:
    """Return the result of each check of a scenario.

    :param first: number of the script's line with the first step.
    :param trouble: why the program did not end well, from the guest's init.
    :param splats: texts of the splats while it ran.
    """
    lost = _before(said, first)
    # After a splat, steps that did not run are the kernel's fault: the splat is the failure.
    status = Status.SKIP if splats and not lost else Status.ERROR
    found = []
    for number, step in enumerate(scenario.steps(machine), first):
        ended = said.steps.get(number)
        if not lost and ended is None:
            lost = trouble or "the guest's program ended before this step"
        if step.check:
            if lost or ended is None:
                found.append(CheckResult(step.check, status, lost))
            else:
                found.append(_judge_step(step, ended))
        if not lost and ended is not None:
            lost = _end_of_all(step, ended)
            if lost and ended.word in LOST and step.check:
                status = Status.SKIP
    if splats:
        found.append(CheckResult(NO_SPLAT, Status.FAIL, "\n".join(splats)))
    elif said.whole and not _before(said, first):
        found.append(CheckResult(NO_SPLAT, Status.PASS))
    else:
        message = lost or trouble or "the guest's program did not end"
        found.append(CheckResult(NO_SPLAT, status, message))
    return found


def _before(said: Said, first: int) -> str:
    """Return why the machine cannot be prepared, or an empty string."""
    for number in range(first):
        ended = said.steps.get(number)
        if ended is not None and ended.word != "ok":
            return f"the machine cannot be prepared: {ended}"
    return ""


def _judge_step(step: Action, ended: Ended) -> CheckResult:
    answer = f"`{step.do}`: {ended}"
    if ended.word in UNTOLD:
        return CheckResult(step.check, Status.ERROR, answer, answer)
    if ended.word == UNSEEN:
        return CheckResult(step.check, Status.SKIP, f"`{step.do}`: {ended.more}", answer)
    if ended.word in step.expected:
        return CheckResult(step.check, Status.PASS, answer=answer)
    wanted = " or ".join(step.expected)
    return CheckResult(step.check, Status.FAIL, f"{answer}, and not {wanted}", answer)


def _end_of_all(step: Action, ended: Ended) -> str:
    """Return why the steps after this one have no verdict, or an empty string."""
    if ended.word in LOST:
        return f"`{step.do}` before it: {ended}"
    if not step.check and ended.word not in step.expected:
        return f"`{step.do}` before it: {ended}, and not {' or '.join(step.expected)}"
    return ""
