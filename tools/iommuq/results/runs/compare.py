# SPDX-License-Identifier: GPL-2.0-only
"""Compare two runs: failures, passes, durations, warnings."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from iommuq.results.known import Verdict
from iommuq.results.runs.archive import Archive
from iommuq.results.runs.model import CellRecord, CommandRun, Test

#: Number of earlier runs that are read, and that are needed for a verdict.
HISTORY, LEAST = 20, 5
#: Four standard deviations, each 1.4826 times the median deviation of a normal distribution.
_DEVIATIONS = 4 * 1.4826
#: A smaller difference is not reported: in seconds, and as a part of the median.
_SECONDS, _PART = 0.25, 0.25

_PASSING = (Verdict.OK, Verdict.UNEXPECTED_PASS)
_FAILING = (Verdict.FAILED, Verdict.FLAKY, Verdict.EXPIRED, Verdict.KNOWN)


@dataclass(frozen=True)
class VerdictChange:
    """A test whose verdict changed, at a step of the second run.

    :ivar before: None: not in the first run.
    :ivar after: None: not in the second run.
    """

    step: str
    test: str
    before: Verdict | None
    after: Verdict | None


@dataclass(frozen=True)
class Slow:
    """A test, a suite as a whole or a step of the work that took longer than usual.

    :ivar usual: median of the earlier durations, in seconds.
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
    :ivar lost: verdict in the first run, error in the second.
    :ivar gone: in the first run only.
    :ivar gained: new warnings, each with its step.
    :ivar vanished: warnings of the first run only, each with its step.
    :ivar unjudged: number of durations with too few earlier runs.
    :ivar alone: steps that only one of the runs has.
    """

    failing: tuple[VerdictChange, ...]
    passing: tuple[VerdictChange, ...]
    lost: tuple[VerdictChange, ...]
    gone: tuple[VerdictChange, ...]
    slow: tuple[Slow, ...]
    gained: tuple[tuple[str, str], ...]
    vanished: tuple[tuple[str, str], ...]
    unjudged: int
    alone: tuple[str, ...] = ()

    @property
    def is_worse(self) -> bool:
        """Whether the second run has new failures or warnings."""
        return bool(self.failing or self.gained)


def compare(old: CommandRun, new: CommandRun, archive: Archive | None = None) -> Comparison:
    """Compare two runs step by step; two runs of a single step whatever its label.

    :param archive: with the earlier runs; by default the store.
    """
    if len(old.steps) == len(new.steps) == 1:
        label = new.steps[0].label
        old = replace(old, cells=tuple(replace(cell, step=label) for cell in old.cells))
    before, after = _tests(old), _tests(new)
    shared = {step for step, _ in before} & {step for step, _ in after}
    changes = [
        VerdictChange(step, name, before.get((step, name)), after.get((step, name)))
        for step, name in dict.fromkeys([*after, *before])
        if step in shared
    ]
    gained, vanished = _warnings(old, new)
    slow, unjudged = _slow(new, archive or Archive())
    errors = (c for c in changes if c.after is Verdict.ERROR)
    return Comparison(
        tuple(c for c in changes if c.after in _FAILING and c.before not in _FAILING),
        tuple(c for c in changes if c.after in _PASSING and c.before in _FAILING),
        tuple(c for c in errors if c.before not in (None, Verdict.ERROR)),
        tuple(c for c in changes if c.after is None),
        slow,
        gained,
        vanished,
        unjudged,
        tuple(dict.fromkeys(step for step, _ in [*before, *after] if step not in shared)),
    )


def _tests(record: CommandRun) -> dict[tuple[str, str], Verdict]:
    # Always with the lane: the runs may have different lanes.
    return {(cell.step, f"{cell.lane}.{test.name}"): test.verdict for cell, test in record.tests()}


def _warnings(old: CommandRun, new: CommandRun) -> tuple[tuple[tuple[str, str], ...], ...]:
    before, after = _warned(old), _warned(new)
    gained, vanished = [], []
    for place in after.keys() & before.keys():
        gained += [(place[0], line) for line in sorted(after[place] - before[place])]
        vanished += [(place[0], line) for line in sorted(before[place] - after[place])]
    return tuple(sorted(gained)), tuple(sorted(vanished))


def _warned(record: CommandRun) -> dict[tuple[str, str], frozenset[str]]:
    return {
        (cell.step, cell.lane): frozenset(cell.warnings)
        for cell in record.cells
        if cell.warnings is not None
    }


def _slow(new: CommandRun, archive: Archive) -> tuple[tuple[Slow, ...], int]:
    found: list[Slow] = []
    unjudged = 0
    for cell in new.cells:
        # Reused results were measured in another run.
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


def _times(cell: CellRecord) -> list[tuple[str, float]]:
    def measured(test: Test) -> bool:
        return test.duration > 0 and test.verdict in (*_PASSING, *_FAILING)

    times = [(test.name, test.duration) for test in cell.tests if measured(test)]
    if cell.finished is not None:
        times.append(("", cell.finished - cell.started))
    return times


def is_slow(seconds: float, usual: Sequence[float]) -> bool:
    """Return whether a duration is longer than usual.

    :param usual: earlier durations, in seconds; at least one.
    """
    median = statistics.median(usual)
    deviation = statistics.median(abs(one - median) for one in usual)
    return seconds > median + max(_DEVIATIONS * deviation, _PART * median, _SECONDS)
