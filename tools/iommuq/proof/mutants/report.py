# SPDX-License-Identifier: GPL-2.0-only
"""Report the results of mutants: a table, the survivors with their lines, and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iommuq.proof.mutants.explained import NAME, Explanation
from iommuq.proof.mutants.faults import Mutant
from iommuq.proof.mutants.plan import Plan
from iommuq.proof.mutants.trial import NOTICED, Fate, Trial
from iommuq.system.errors import EXIT_OK, EXIT_VERDICT
from iommuq.system.progress import one_line

#: Version of the JSON form.
JSON_FORMAT = 2
#: The most columns of a line of a mutant.  JSON has the whole line.
_WIDTH = 160
#: The fate of an explained survivor.
EXPLAINED = "explained"
#: The fates of mutants that were tried, in the order of the columns.
FATES = (*(fate.value for fate in Fate if fate is not Fate.ABSENT), EXPLAINED)


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
