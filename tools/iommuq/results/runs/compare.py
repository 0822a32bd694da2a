# SPDX-License-Identifier: GPL-2.0-only
"""What one run has that another has not: failures, passes, slowness, warnings.

A time is slow only beyond what it varied by in earlier runs: their median, and from it
four times their usual deviation.  With too few of them nothing is said.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from iommuq.results.known import Verdict
from iommuq.results.runs.archive import Archive
from iommuq.results.runs.model import Cell, Record, Test

#: Earlier runs that are looked at, and that there must be to say anything.
HISTORY, LEAST = 20, 5
#: Times their usual deviation, which is 1.4826 times the median one of a normal spread.
_DEVIATIONS = 4 * 1.4826
#: What is slower by less than this is not worth a word: seconds, and the part of it.
_SECONDS, _PART = 0.25, 0.25

#: What passes, and what does not.
_PASSING = (Verdict.OK, Verdict.UNEXPECTED_PASS)
_FAILING = (Verdict.FAILED, Verdict.FLAKY, Verdict.EXPIRED, Verdict.KNOWN)


@dataclass(frozen=True)
class Change:
    """A test that is another than it was.

    :ivar step: of the second run.
    :ivar before: None if the first run does not have it.
    :ivar after: None if the second one does not.
    """

    step: str
    test: str
    before: Verdict | None
    after: Verdict | None


@dataclass(frozen=True)
class Slow:
    """Something that took longer than it should.

    :ivar what: a test, a suite as a whole, or a step of the work.
    :ivar usual: the median of earlier times, in seconds.
    """

    step: str
    what: str
    seconds: float
    usual: float


@dataclass(frozen=True)
class Comparison:
    """All that changed from one run to another.

    :ivar failing: newly failing.
    :ivar passing: newly passing.
    :ivar lost: no verdict any more, though both runs ran it.
    :ivar gone: in the first run only.
    :ivar gained: new warnings, each with its step.
    :ivar vanished: warnings that are gone, each with its step.
    :ivar unjudged: times that there are too few earlier runs to judge.
    :ivar alone: steps that only one of the runs has.
    """

    failing: tuple[Change, ...]
    passing: tuple[Change, ...]
    lost: tuple[Change, ...]
    gone: tuple[Change, ...]
    slow: tuple[Slow, ...]
    gained: tuple[tuple[str, str], ...]
    vanished: tuple[tuple[str, str], ...]
    unjudged: int
    alone: tuple[str, ...] = ()

    @property
    def is_worse(self) -> bool:
        """Whether the second run fails what the first did not, or warns where it did not."""
        return bool(self.failing or self.gained)


def compare(old: Record, new: Record, archive: Archive | None = None) -> Comparison:
    """Compare two runs, step by step; two runs of one step each whatever it is called.

    :param archive: has the earlier runs; by default the store.
    """
    before, after = _tests(old), _tests(new)
    if len(old.steps) == len(new.steps) == 1:
        before = {(new.steps[0].label, name): verdict for (_, name), verdict in before.items()}
    shared = {step for step, _ in before} & {step for step, _ in after}
    changes = [
        Change(step, name, before.get((step, name)), after.get((step, name)))
        for step, name in dict.fromkeys([*after, *before])
        if step in shared
    ]
    gained, vanished = _warnings(old, new)
    slow, unjudged = _slow(new, archive or Archive())
    return Comparison(
        tuple(c for c in changes if _bad(c.after) and not _bad(c.before)),
        tuple(c for c in changes if c.after in _PASSING and c.before in _FAILING),
        tuple(
            c for c in changes if c.after is Verdict.ERROR and c.before not in (None, Verdict.ERROR)
        ),
        tuple(c for c in changes if c.after is None),
        slow,
        gained,
        vanished,
        unjudged,
        tuple(dict.fromkeys(step for step, _ in [*before, *after] if step not in shared)),
    )


def _bad(verdict: Verdict | None) -> bool:
    return verdict in _FAILING


def _tests(record: Record) -> dict[tuple[str, str], Verdict]:
    # Always with the lane: one of two may have run fewer lanes.
    return {(cell.step, f"{cell.lane}.{test.name}"): test.verdict for cell, test in record.tests()}


def _warnings(old: Record, new: Record) -> tuple[tuple[tuple[str, str], ...], ...]:
    before, after = _warned(old), _warned(new)
    if len(old.steps) == len(new.steps) == 1:
        before = {(new.steps[0].label, lane): lines for (_, lane), lines in before.items()}
    gained, vanished = [], []
    for place in after.keys() & before.keys():
        gained += [(place[0], line) for line in sorted(after[place] - before[place])]
        vanished += [(place[0], line) for line in sorted(before[place] - after[place])]
    return tuple(sorted(gained)), tuple(sorted(vanished))


def _warned(record: Record) -> dict[tuple[str, str], frozenset[str]]:
    return {
        (cell.step, cell.lane): frozenset(cell.warnings)
        for cell in record.cells
        if cell.warnings is not None
    }


def _slow(new: Record, archive: Archive) -> tuple[tuple[Slow, ...], int]:
    found: list[Slow] = []
    unjudged = 0
    for cell in new.cells:
        # What was in the store already took its time in another run.
        if cell.reused or not cell.run:
            continue
        history = archive.durations(cell, new.base, HISTORY)
        for name, seconds in _times(cell):
            usual = history.get(name, ())
            if len(usual) < LEAST:
                unjudged += 1
            elif is_slow(seconds, usual):
                what = f"{cell.lane}.{name}" if name else f"all of {cell.lane}"
                found.append(Slow(cell.step, what, seconds, statistics.median(usual)))
    steps = archive.step_durations(new.started, HISTORY)
    for one in new.timings:
        earlier = steps.get(one.title, ())
        if one.outcome or len(earlier) < LEAST:
            unjudged += not one.outcome
        elif is_slow(one.seconds, earlier):
            found.append(Slow("", one.title, one.seconds, statistics.median(earlier)))
    return tuple(found), unjudged


def _times(cell: Cell) -> list[tuple[str, float]]:
    def measured(test: Test) -> bool:
        return test.duration > 0 and test.verdict in (*_PASSING, *_FAILING)

    times = [(test.name, test.duration) for test in cell.tests if measured(test)]
    if cell.finished is not None:
        times.append(("", cell.finished - cell.started))
    return times


def is_slow(seconds: float, usual: Sequence[float]) -> bool:
    """Tell whether a time is longer than earlier ones explain.

    :param usual: those, in seconds; at least one.
    """
    median = statistics.median(usual)
    deviation = statistics.median(abs(one - median) for one in usual)
    return seconds > median + max(_DEVIATIONS * deviation, _PART * median, _SECONDS)
