# SPDX-License-Identifier: GPL-2.0-only
"""What came of the mutants: a table, the survivors with their lines, and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from iommuq.errors import EXIT_OK, EXIT_VERDICT
from iommuq.mutants.explained import NAME, Explanation
from iommuq.mutants.faults import Mutant
from iommuq.mutants.plan import Plan
from iommuq.mutants.trial import Fate, Trial
from iommuq.progress import one_line

#: Version of the JSON form.
JSON_FORMAT = 1
#: Columns that a line of a mutant is cut to; JSON has all of it.
_WIDTH = 160
_EXPLAINED = "explained"


@dataclass(frozen=True)
class Outcome:
    """All that was tried.

    :ivar trials: none if the mutants were only listed.
    :ivar explained: mutants that are listed as equivalent.
    :ivar wrong: what is wrong with that list, one line each.
    """

    plan: Plan
    trials: tuple[Trial, ...]
    explained: Mapping[Mutant, Explanation]
    wrong: tuple[str, ...]

    @property
    def survivors(self) -> tuple[Trial, ...]:
        """Those that no test noticed and nobody has explained."""
        return tuple(
            trial
            for trial in self.trials
            if trial.fate is Fate.SURVIVED and trial.mutant not in self.explained
        )

    @property
    def findings(self) -> tuple[str, ...]:
        """What is not as it should be, one line each, but for the survivors."""
        killed = (
            f"{NAME}: {_title(trial.mutant)}: is explained as equivalent, but is {trial.fate}"
            + (f" ({trial.why})" if trial.why else "")
            for trial in self.trials
            if trial.mutant in self.explained and trial.fate in (Fate.KILLED, Fate.BROKEN)
        )
        return (*self.wrong, *killed)

    @property
    def counts(self) -> Counter[str]:
        """How many mutants there are of each fate."""
        return Counter(self.fate(trial) for trial in self.trials)

    @property
    def exit_code(self) -> int:
        """The exit code that the outcome stands for."""
        return EXIT_VERDICT if self.survivors or self.findings else EXIT_OK

    def fate(self, trial: Trial) -> str:
        """Return the fate of a mutant, in a word or two."""
        if trial.fate is Fate.SURVIVED and trial.mutant in self.explained:
            return _EXPLAINED
        return trial.fate.value


def _title(mutant: Mutant) -> str:
    return f"{mutant.path}:{mutant.line} {mutant.function} {mutant.operator}"


def _mutant_lines(mutant: Mutant) -> Iterator[str]:
    yield _title(mutant)
    for line in mutant.diff:
        # A blank line that comes is what is left of a statement over several lines.
        if line.strip() != "+":
            text = line[1:].expandtabs()
            shown = line[0] + " " * (len(text) - len(text.lstrip())) + one_line(text)
            yield "    " + (shown if len(shown) <= _WIDTH else shown[: _WIDTH - 1] + "…")


def list_lines(plan: Plan) -> Iterator[str]:
    """Yield the lines that list what there is to try."""
    for mutant in plan.mutants:
        yield from _mutant_lines(mutant)
    yield from _notes(plan)
    functions = len({(mutant.path, mutant.function) for mutant in plan.mutants})
    yield f"{len(plan.mutants)} mutants of {functions} functions"


def _notes(plan: Plan) -> Iterator[str]:
    for place in plan.unparsed:
        where = f"{place.path}:{place.line} {place.function}"
        yield f"{where}: cannot be parsed, and is left alone"
    for function in plan.gone:
        yield f"{function.path} {function.name}: touched, but gone in the end"


def report_lines(outcome: Outcome) -> Iterator[str]:
    """Yield the lines of the report: a table by function, the survivors, the findings."""
    fates = [*(fate.value for fate in Fate if fate is not Fate.ABSENT), _EXPLAINED]
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
            yield f"{file:<{width + 2}}" + "".join(f"{fate:>18}" for fate in fates)
        yield f"  {name:<{width}}" + "".join(f"{row[fate] or '·':>18}" for fate in fates)
    for file, count in absent.items():
        yield f"{file}: {count} mutants not tried, this kernel does not have the file"
    yield from _notes(outcome.plan)
    for trial in outcome.survivors:
        yield ""
        yield from _with_prefix("survived ", _mutant_lines(trial.mutant))
    yield ""
    yield from outcome.findings
    tried = sum(outcome.counts.values()) - outcome.counts[Fate.ABSENT.value]
    parts = [f"{outcome.counts[fate]} {fate}" for fate in fates if outcome.counts[fate]]
    left = len(outcome.plan.mutants) - len(outcome.trials)
    yield f"{tried} mutants: {', '.join(parts) or 'none'}" + (f"; {left} left out" if left else "")


def _with_prefix(prefix: str, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield (prefix if number == 0 else "") + line


def to_json(outcome: Outcome, base: str, arch: str) -> dict[str, Any]:
    """Return the report, or the list if nothing was tried, for other programs.

    :param arch: the name of the architecture.
    """
    trials = {trial.mutant: trial for trial in outcome.trials}
    mutants = []
    for mutant in outcome.plan.mutants:
        trial = trials.get(mutant)
        entry = outcome.explained.get(mutant)
        mutants.append(
            {
                "file": mutant.path,
                "function": mutant.function,
                "operator": mutant.operator,
                "number": mutant.number,
                "line": mutant.line,
                "before": mutant.before,
                "after": mutant.after,
                "fate": None if trial is None else outcome.fate(trial),
                "why": "" if trial is None else trial.why,
                "reason": None if entry is None else entry.reason.strip(),
            }
        )
    return {
        "format": JSON_FORMAT,
        "base": base,
        "patch": outcome.plan.step.label,
        "arch": arch,
        "functions": [
            {"file": each.path, "function": each.name, "patches": list(each.patches)}
            for each in outcome.plan.touched
        ],
        "unparsed": [
            {"file": each.path, "function": each.function, "line": each.line}
            for each in outcome.plan.unparsed
        ],
        "counts": dict(outcome.counts),
        "mutants": mutants,
        "findings": list(outcome.findings),
    }
