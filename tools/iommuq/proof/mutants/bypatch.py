# SPDX-License-Identifier: GPL-2.0-only
"""Report the results of removed hunks and lines by patch.

`iommuq prove` should fail without a hunk, and name its patch: by a promised test of the
patch, or by one that passes before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from iommuq.proof.mutants.report import FATES, Outcome, closing_lines, notes
from iommuq.proof.mutants.trial import Fate, Trial
from iommuq.proof.promises import ProofFile

#: The most tests to name.
_NAMES = 3


def report_lines(outcome: Outcome, promises: ProofFile, queue: Sequence[str]) -> Iterator[str]:
    """Yield the lines of the report: a table by patch, the tests that failed, the survivors.

    :param queue: the labels of all patches, in order.
    """
    labels = list(dict.fromkeys(mutant.patch for mutant in outcome.plan.mutants))
    trials = {
        label: [trial for trial in outcome.trials if trial.mutant.patch == label]
        for label in labels
    }
    width = max([len(label) for label in labels] + [8]) + 2
    yield f"{'patch':<{width}}" + "".join(f"{fate:>18}" for fate in FATES)
    for label, own in trials.items():
        row = Counter(outcome.fate(trial) for trial in own)
        cells = "".join(f"{row[fate] or '·':>18}" for fate in FATES)
        absent = row[Fate.ABSENT.value]
        yield f"{label:<{width}}{cells}" + (f"  {absent} {Fate.ABSENT.value}" if absent else "")
    for label, own in trials.items():
        killed = [trial for trial in own if trial.fate is Fate.KILLED]
        if killed:
            later = queue[queue.index(label) + 1 :]
            yield ""
            yield from _killers(
                label, killed, _promised(promises, [label]), _promised(promises, later)
            )
    yield ""
    yield from notes(outcome.plan)
    yield from closing_lines(outcome)


def _promised(promises: ProofFile, labels: Sequence[str]) -> frozenset[str]:
    """Return the tests that patches promise to fix, or are needed by."""
    proofs = promises.proofs
    return frozenset(test for label in labels for test in proofs.get(label, ()))


def _killers(
    label: str, killed: Sequence[Trial], own: frozenset[str], later: frozenset[str]
) -> Iterator[str]:
    """Yield the tests that killed mutants of a patch: its *own* promised ones, and others."""
    counts = Counter(test for trial in killed for test in trial.tests)
    mine = Counter({test: count for test, count in counts.items() if test in own})
    yield f"{label}: {len(killed)} killed"
    for who, tests in (("its own tests", mine), ("other tests", counts - mine)):
        if tests:
            yield f"  by {who}: {_named(tests)}"
    lost = sum(not trial.tests for trial in killed)
    if lost:
        yield f"  {lost} by a lost guest"
    for trial in killed:
        if trial.tests and later.issuperset(trial.tests):
            mutant = trial.mutant
            yield (
                f"  {mutant.path}:{mutant.line} {mutant.operator}: killed only by promises of later"
                f" patches, so iommuq prove names those: {_named(Counter(trial.tests))}"
            )


def _named(counts: Counter[str]) -> str:
    names = [f"{test} ({count})" for test, count in counts.most_common(_NAMES)]
    more = len(counts) - _NAMES
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")
