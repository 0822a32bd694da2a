# SPDX-License-Identifier: GPL-2.0-only
"""Say what a scenario's steps, as the guest's program did them, mean for its checks.

A check fails if its step ended with another word than it should, or never ended; those
after that, or after a splat that ended it all, are skipped.  What could not be found
out, because the machine is not what it should be or a step that only sets up did not
work, is an error: it says nothing about the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from iommuq.firmware.scenario import NO_SPLAT, Action, Scenario
from iommuq.results.store import Status

#: Words of the program that tell of the oracle or the script, never of the kernel.
UNTOLD = ("NOEDU", "NOMEMORY", "STUCK", "MALFORMED", "MISSING")
#: The word for what this kernel lets nobody look at.
UNSEEN = "UNSEEN"
#: Words of a step that never came back.
LOST = ("HANG", "DIED")

_STEP = re.compile(r"step (\d+) (\S+)(?: (.*))?")
_BYTES = re.compile(r"bytes (\d+) ((?:[0-9a-f]{2})*)")


@dataclass(frozen=True)
class Ended:
    """How one step ended: with a word, and perhaps more for people."""

    word: str
    more: str = ""

    def __str__(self) -> str:
        return f"{self.word} ({self.more})" if self.more else self.word


@dataclass(frozen=True)
class Said:
    """All that the program wrote.

    :ivar steps: by number; those that were never come to are missing.
    :ivar data: what a step dumped, by its number.
    :ivar whole: it came to its end.
    """

    steps: dict[int, Ended]
    data: dict[int, bytes]
    whole: bool


def read(lines: Iterable[str]) -> Said:
    """Read the program's output; a line that makes no sense is left out."""
    steps: dict[int, Ended] = {}
    data: dict[int, bytes] = {}
    whole = False
    for line in lines:
        if match := _STEP.fullmatch(line):
            steps.setdefault(int(match[1]), Ended(match[2], (match[3] or "").strip()))
        elif match := _BYTES.fullmatch(line):
            number = int(match[1])
            data[number] = data.get(number, b"") + bytes.fromhex(match[2])
        elif line == "end":
            whole = True
    return Said(steps, data, whole)


def has_hung(lines: Sequence[str]) -> bool:
    """Tell whether the last of the program's lines says that a step hangs."""
    match = _STEP.fullmatch(lines[-1]) if lines else None
    return match is not None and match[2] == "HANG"


@dataclass(frozen=True)
class Finding:
    """What became of one check.

    :ivar answer: what its step answered, also if that is as it should be.
    """

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
) -> list[Finding]:
    """Return what became of each check of a scenario.

    :param first: number of the script's line that the first step is.
    :param trouble: why the program did not end well, as the guest's init says it.
    :param splats: the kernel's complaints while it ran.
    """
    lost = _before(said, first)
    # A kernel that has broken is to blame for what is not come to; the splat says so.
    status = Status.SKIP if splats and not lost else Status.ERROR
    found = []
    for number, step in enumerate(scenario.steps(machine), first):
        ended = said.steps.get(number)
        if not lost and ended is None:
            lost = trouble or "the guest's program ended before it"
        if step.check:
            if lost or ended is None:
                found.append(Finding(step.check, status, lost))
            else:
                found.append(_judge_step(step, ended))
        if not lost and ended is not None:
            lost = _end_of_all(step, ended)
            if lost and ended.word in LOST and step.check:
                status = Status.SKIP
    if splats:
        found.append(Finding(NO_SPLAT, Status.FAIL, "\n".join(splats)))
    elif said.whole and not _before(said, first):
        found.append(Finding(NO_SPLAT, Status.PASS))
    else:
        message = lost or trouble or "the guest's program did not end"
        found.append(Finding(NO_SPLAT, status, message))
    return found


def _before(said: Said, first: int) -> str:
    """Return why the machine is not as it should be; empty if it is."""
    for number in range(first):
        ended = said.steps.get(number)
        if ended is not None and ended.word != "ok":
            return f"the machine cannot be prepared: {ended}"
    return ""


def _judge_step(step: Action, ended: Ended) -> Finding:
    answer = f"`{step.do}`: {ended}"
    if ended.word in UNTOLD:
        return Finding(step.check, Status.ERROR, answer, answer)
    if ended.word == UNSEEN:
        return Finding(step.check, Status.SKIP, f"`{step.do}`: {ended.more}", answer)
    if ended.word in step.expected:
        return Finding(step.check, Status.PASS, answer=answer)
    wanted = " or ".join(step.expected)
    return Finding(step.check, Status.FAIL, f"{answer}, and not {wanted}", answer)


def _end_of_all(step: Action, ended: Ended) -> str:
    """Return why nothing after a step says anything; empty if it does."""
    if ended.word in LOST:
        return f"`{step.do}` before it: {ended}"
    if not step.check and ended.word not in step.expected:
        return f"`{step.do}` before it: {ended}, and not {' or '.join(step.expected)}"
    return ""
