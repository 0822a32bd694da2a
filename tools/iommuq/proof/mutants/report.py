# SPDX-License-Identifier: GPL-2.0-only
"""Report the results of mutants: a table, the survivors with their lines, and JSON.

``patches/<base>/mutants.toml`` explains the survivors that no test can notice.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iommuq.proof.mutants import hunks
from iommuq.proof.mutants.faults import OPERATORS, Mutant
from iommuq.proof.mutants.trial import NOTICED, Fate, Plan, Trial
from iommuq.proof.promises import ProofFile
from iommuq.system import tables
from iommuq.system.errors import EXIT_OK, EXIT_VERDICT
from iommuq.system.progress import one_line
from iommuq.system.tables import Table, require

#: The file, in the folder of the base.
NAME = "mutants.toml"
#: Version of the JSON form.
JSON_FORMAT = 2
#: The most columns of a line of a mutant.  JSON has the whole line.
_WIDTH = 160
#: The fate of an explained survivor.
EXPLAINED = "explained"
#: The fates of mutants that were tried, in the order of the columns.
FATES = (*(fate.value for fate in Fate if fate is not Fate.ABSENT), EXPLAINED)
#: The most tests to name.
_NAMED = 3


@dataclass(frozen=True)
class Explanation(Table):
    """One entry, a ``[[mutant]]``.  It has no line number, which would drift.

    :ivar function: empty for a mutant outside of functions.
    :ivar before: the lines without the fault; for a hunk, the code with the patch.
    :ivar after: the same lines with the fault; for a hunk, the code before the patch.
    :ivar number: selects one of several equal mutants; None if there is only one.
    """

    file: str
    function: str
    operator: str
    before: str
    after: str
    reason: str
    number: int | None = None

    def __post_init__(self) -> None:
        operators = (*OPERATORS, *hunks.OPERATORS)
        require(self.operator in operators, f"operator is none of {', '.join(operators)}")
        require(self.reason.strip(), "reason is empty")
        require(self.number is None or self.number > 0, "number counts from 1")

    def covers(self, mutant: Mutant) -> bool:
        """Return whether the entry is for *mutant*; blanks do not count."""
        return (
            (self.file, self.function, self.operator)
            == (mutant.path, mutant.function, mutant.operator)
            and self.before.split() == mutant.before.split()
            and self.after.split() == mutant.after.split()
            and self.number in (None, mutant.number)
        )


@dataclass(frozen=True)
class _Document(Table):
    mutant: tuple[Explanation, ...] = ()


def load_explanations(folder: Path) -> tuple[Explanation, ...]:
    """Read the list of a base; a missing file is empty.

    :param folder: ``patches/<base>``.
    :raises UserError: it is malformed.
    """
    path = folder / NAME
    return tables.load_toml(_Document, path).mutant if os.path.lexists(path) else ()


def match(
    entries: Sequence[Explanation],
    mutants: Sequence[Mutant],
    operators: Collection[str] = tuple(OPERATORS),
) -> tuple[Mapping[Mutant, Explanation], tuple[str, ...]]:
    """Find the mutant of each entry.

    :param mutants: all mutants of these operators in the files of the queue.
    :param operators: entries for others are ignored.
    :return: the explained mutants, and the errors of the list, one line each.
    """
    found: dict[Mutant, Explanation] = {}
    wrong = []
    for number, entry in enumerate(entries, 1):
        if entry.operator not in operators:
            continue
        where = f"{NAME}: mutant {number} ({entry.function}, {entry.operator})"
        covered = [mutant for mutant in mutants if entry.covers(mutant)]
        if len(covered) > 1:
            wrong.append(f"{where}: matches {len(covered)} mutants: select one with number = 1, …")
        elif not covered:
            wrong.append(f"{where}: matches no mutant")
        elif covered[0] in found:
            wrong.append(f"{where}: listed twice")
        else:
            found[covered[0]] = entry
    return found, tuple(wrong)


@dataclass(frozen=True)
class Outcome:
    """The results of all mutants.

    :ivar trials: empty if the mutants were only listed.
    :ivar explained: mutants that are listed as equivalent.
    :ivar wrong: errors of that list, one line each.
    """

    plan: Plan
    trials: tuple[Trial, ...]
    explained: Mapping[Mutant, Explanation]
    wrong: tuple[str, ...]

    @property
    def survivors(self) -> tuple[Trial, ...]:
        """The mutants that no test noticed, without the explained ones."""
        survived = Fate.SURVIVED.value
        return tuple(trial for trial in self.trials if self.fate(trial) == survived)

    @property
    def findings(self) -> tuple[str, ...]:
        """The errors of the list of explained mutants, one line each."""
        killed = (
            f"{NAME}: {title(trial.mutant)}: listed as equivalent, but {trial.fate}"
            + (f" ({trial.why})" if trial.why else "")
            for trial in self.trials
            if trial.mutant in self.explained and trial.fate in NOTICED
        )
        return (*self.wrong, *killed)

    @property
    def counts(self) -> Counter[str]:
        """The number of mutants of each fate."""
        return Counter(self.fate(trial) for trial in self.trials)

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        return EXIT_VERDICT if self.survivors or self.findings else EXIT_OK

    def fate(self, trial: Trial) -> str:
        """Return the fate of a mutant in words."""
        if trial.fate is Fate.SURVIVED and trial.mutant in self.explained:
            return EXPLAINED
        return trial.fate.value


def title(mutant: Mutant) -> str:
    """Return place, operator and patch of a mutant in one line."""
    words = (f"{mutant.path}:{mutant.line}", mutant.function, mutant.operator, mutant.patch)
    return " ".join(filter(None, words))


def mutant_lines(mutant: Mutant) -> Iterator[str]:
    """Yield the lines that show a mutant."""
    yield title(mutant)
    for line in mutant.diff:
        # Blank lines replace a removed statement of several lines.
        if line[1:].strip():
            text = line[1:].expandtabs()
            shown = line[0] + " " * (len(text) - len(text.lstrip())) + one_line(text)
            yield "    " + (shown if len(shown) <= _WIDTH else shown[: _WIDTH - 1] + "…")


def list_lines(plan: Plan) -> Iterator[str]:
    """Yield the lines that list all mutants of a plan."""
    for mutant in plan.mutants:
        yield from mutant_lines(mutant)
    yield from notes(plan)
    if plan.by_patch:
        patches = len({mutant.patch for mutant in plan.mutants})
        yield f"{len(plan.mutants)} hunks and lines of {patches} patches"
        return
    functions = len({(mutant.path, mutant.function) for mutant in plan.mutants})
    yield f"{len(plan.mutants)} mutants of {functions} functions"


def notes(plan: Plan) -> Iterator[str]:
    """Yield what was skipped, and why, one line each."""
    for place in plan.unparsed:
        yield f"{place.path}:{place.line} {place.function}: skipped, cannot be parsed"
    for function in plan.gone:
        yield f"{function.path} {function.name}: skipped, removed by a later patch"
    for hunk in plan.superseded:
        yield f"{hunk.path}:{hunk.line} {hunk.patch}: superseded by a later patch"
    if plan.silent:
        yield f"{plan.silent} hunks change no code"


def report_lines(outcome: Outcome) -> Iterator[str]:
    """Yield the lines of the report: a table by function, the survivors, the findings."""
    absent = Counter(trial.mutant.path for trial in outcome.trials if trial.fate is Fate.ABSENT)
    rows: dict[tuple[str, str], Counter[str]] = {}
    for trial in outcome.trials:
        if trial.fate is not Fate.ABSENT:
            key = trial.mutant.path, trial.mutant.function
            rows.setdefault(key, Counter())[outcome.fate(trial)] += 1
    width = max([len(name) for _, name in rows] + [8]) + 2
    path = ""
    for (file, name), row in rows.items():
        if file != path:
            path = file
            yield f"{file:<{width + 2}}" + "".join(f"{fate:>18}" for fate in FATES)
        yield f"  {name:<{width}}" + "".join(f"{row[fate] or '·':>18}" for fate in FATES)
    for file, count in absent.items():
        yield f"{file}: {count} mutants not tried, not in this kernel"
    yield from notes(outcome.plan)
    yield from closing_lines(outcome)


def closing_lines(outcome: Outcome) -> Iterator[str]:
    """Yield the survivors, the findings and the sum."""
    for trial in outcome.survivors:
        yield ""
        for number, line in enumerate(mutant_lines(trial.mutant)):
            yield line if number else f"survived {line}"
    yield ""
    yield from outcome.findings
    tried = sum(outcome.counts.values()) - outcome.counts[Fate.ABSENT.value]
    parts = [f"{outcome.counts[fate]} {fate}" for fate in FATES if outcome.counts[fate]]
    left = len(outcome.plan.mutants) - len(outcome.trials)
    what = "hunks and lines" if outcome.plan.by_patch else "mutants"
    word = "FAIL" if outcome.exit_code else "PASS"
    counts = f"{tried} {what}: {', '.join(parts) or 'none'}"
    yield f"{word}: {counts}" + (f"; {left} not tried" if left else "")


def to_json(outcome: Outcome, base: str, suites: Sequence[str]) -> dict[str, Any]:
    """Return the report as JSON; *suites* are the names of its suites."""
    trials = {trial.mutant: trial for trial in outcome.trials}
    mutants = []
    for mutant in outcome.plan.mutants:
        trial = trials.get(mutant)
        entry = outcome.explained.get(mutant)
        mutants.append(
            {
                "file": mutant.path,
                "function": mutant.function,
                "patch": mutant.patch,
                "operator": mutant.operator,
                "number": mutant.number,
                "line": mutant.line,
                "before": mutant.before,
                "after": mutant.after,
                "fate": None if trial is None else outcome.fate(trial),
                "why": "" if trial is None else trial.why,
                "tests": [] if trial is None else list(trial.tests),
                "reason": None if entry is None else entry.reason.strip(),
            }
        )
    return {
        "format": JSON_FORMAT,
        "base": base,
        "patch": outcome.plan.step.label,
        "suites": list(suites),
        "functions": [
            {"file": each.path, "function": each.name, "patches": list(each.patches)}
            for each in outcome.plan.touched
        ],
        "unparsed": [
            {"file": each.path, "function": each.function, "line": each.line}
            for each in outcome.plan.unparsed
        ],
        "superseded": [
            {"patch": each.patch, "file": each.path, "line": each.line}
            for each in outcome.plan.superseded
        ],
        "counts": dict(outcome.counts),
        "mutants": mutants,
        "findings": list(outcome.findings),
    }


def patch_lines(outcome: Outcome, promises: ProofFile, queue: Sequence[str]) -> Iterator[str]:
    """Yield the lines of the report: a table by patch, the tests that failed, the survivors.

    `iommuq prove` should fail without a hunk, and name its patch: by a promised test of the
    patch, or by one that passes before it.

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
    names = [f"{test} ({count})" for test, count in counts.most_common(_NAMED)]
    more = len(counts) - _NAMED
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")
