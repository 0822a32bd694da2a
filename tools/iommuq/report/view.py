# SPDX-License-Identifier: GPL-2.0-only
"""The table, the failures and the verdict of a run, for all forms of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from iommuq.proof.matrix import Column, Matrix, build
from iommuq.results.known import Verdict
from iommuq.results.runs.model import CellRecord, CommandRun, State, Test
from iommuq.results.store import Status
from iommuq.system.errors import EXIT_INFRA, EXIT_INTERRUPTED, EXIT_OK
from iommuq.system.logtext import clean_line
from iommuq.system.progress import count

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATES = Path(__file__).parent / "templates"
# Largest number of names of tests in a sentence, and of their characters.
_NAMES, _LENGTH = 3, 90


class Tone(StrEnum):
    """The verdict on a run."""

    GOOD = "good"
    BAD = "bad"
    #: No verdict: the infrastructure failed, or the user interrupted it.
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Judged:
    """What a test at a step counts as; ``skip`` does not count.

    :ivar note: the reason, if the test's own status is different.
    """

    status: Status
    note: str = ""


def visible(text: str) -> str:
    """Return *text* in one line, with control and direction characters escaped."""
    return clean_line(text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t"))


def middle(text: str, limit: int) -> str:
    """Return *text* without its middle if it has more than *limit* characters."""
    if len(text) <= limit:
        return text
    half = limit // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]}\n… {left_out} characters left out …\n{text[-half:]}"


def template(path: Path, *, escape: bool = False, **filters: Callable[..., object]) -> Template:
    """Return a template, in which undefined names are errors.

    :param escape: escape values for HTML.
    :param filters: its own filters, by name.
    """
    # Imported here: it takes long.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(path.parent),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(path.name)


@dataclass(frozen=True)
class View:
    """A run, for its reports."""

    record: CommandRun

    @cached_property
    def matrix(self) -> Matrix:
        """The table: tests down, steps across."""
        verdicts: dict[str, dict[str, Verdict]] = {}
        notes: dict[str, str] = {}
        for cell in self.record.cells:
            if cell.failure:
                notes[cell.step] = "does not build"
            column = verdicts.setdefault(cell.step, {})
            for test in cell.tests:
                column[self.record.name(cell, test)] = test.verdict
        columns = []
        for step in self.record.steps:
            label = step.label
            found = (verdicts.get(label, {}), notes.get(label, ""))
            columns.append(Column(label, step.subject, *found))
        return build(columns)

    @cached_property
    def broken(self) -> frozenset[tuple[str, str]]:
        """Steps and the tests that they break without being allowed to."""
        accepted = {(step.label, test) for step in self.record.steps for test in step.accepted}
        return frozenset(
            (change.column.label, test)
            for change in self.matrix.changes
            for test in change.broke
            if (change.column.label, test) not in accepted
        )

    @cached_property
    def _fixed_by(self) -> dict[str, list[tuple[int, str]]]:
        fixed: dict[str, list[tuple[int, str]]] = {}
        for number, change in enumerate(self.matrix.changes, 1):
            for test in change.fixed:
                fixed.setdefault(test, []).append((number, change.column.label))
        return fixed

    @cached_property
    def _position(self) -> dict[str, int]:
        return {step.label: number for number, step in enumerate(self.record.steps)}

    def judged(self, cell: CellRecord, test: Test) -> Judged:
        """Return what a test at a step counts as.

        A failure that a later patch of the queue fixes does not count.
        """
        name = self.record.name(cell, test)
        known = test.known
        match test.verdict:
            case Verdict.OK:
                return Judged(Status.PASS)
            case Verdict.SKIPPED:
                return Judged(Status.SKIP)
            case Verdict.ERROR:
                return Judged(Status.ERROR)
            case Verdict.KNOWN:
                reason = " ".join(known.reason.split()) if known else ""
                why = f"known failure until {known.expires}: {reason}" if known else "known"
                return Judged(Status.SKIP, why)
            case Verdict.UNEXPECTED_PASS:
                return Judged(Status.FAIL, "passes, but is listed as a known failure")
            case Verdict.EXPIRED:
                day = f" since {known.expires}" if known else ""
                return Judged(Status.FAIL, f"known failure, but expired{day}")
            case Verdict.FLAKY:
                return Judged(Status.FAIL, "flaky: passed and failed on the same kernel")
            case Verdict.FAILED:
                return self._judge_failure(cell.step, name)

    def _judge_failure(self, step: str, name: str) -> Judged:
        at = self._position[step]
        if (step, name) in self.broken:
            return Judged(Status.FAIL, f"{step} breaks it")
        if at == len(self._position) - 1:
            several = len(self._position) > 1
            return Judged(Status.FAIL, "fails with every patch applied" if several else "")
        later = next((label for number, label in self._fixed_by.get(name, ()) if number > at), "")
        if later:
            return Judged(Status.SKIP, f"fails here, {later} fixes it")
        return Judged(Status.SKIP, "fails at this step; the last step has the verdict")

    @cached_property
    def counts(self) -> Counter[Status]:
        """Number of tests at all steps, by what they count as."""
        return Counter(self.judged(cell, test).status for cell, test in self.record.tests())

    @cached_property
    def last_verdicts(self) -> Counter[Verdict]:
        """The verdicts at the last step."""
        columns = self.matrix.columns
        return Counter(columns[-1].verdicts.values() if columns else ())

    def failures(self) -> Iterator[tuple[CellRecord, Test, Judged]]:
        """Yield the tests that failed or have no verdict."""
        for cell, test in self.record.tests():
            judged = self.judged(cell, test)
            if judged.status in (Status.FAIL, Status.ERROR):
                yield cell, test, judged

    @property
    def tone(self) -> Tone:
        """The verdict; never good for a run that was killed or has a failure."""
        record = self.record
        if record.state is not State.FINISHED or record.exit_code is None:
            return Tone.UNKNOWN
        if self.counts[Status.FAIL] or any(cell.failure for cell in record.cells):
            return Tone.BAD
        if record.exit_code in (EXIT_INFRA, EXIT_INTERRUPTED) or record.head.error:
            return Tone.UNKNOWN
        if record.exit_code != EXIT_OK or record.head.findings:
            return Tone.BAD
        return Tone.UNKNOWN if self.counts[Status.ERROR] else Tone.GOOD

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        record = self.record
        if record.state is State.RUNNING:
            return "RUNNING: no verdict yet: results are incomplete."
        if record.state is State.INCOMPLETE:
            return "ERROR: no verdict: the run was killed, results are incomplete."
        if record.exit_code == EXIT_INTERRUPTED:
            return "ERROR: no verdict: the run was interrupted, results are incomplete."
        if self.tone is Tone.GOOD:
            return self._good()
        if self.tone is Tone.BAD:
            return self._bad()
        if record.head.error:
            return f"ERROR: no verdict: {visible(record.head.error)}"
        lost = count(self.counts[Status.ERROR], "test")
        return f"ERROR: no verdict: {lost} failed for a fault of the infrastructure."

    def _good(self) -> str:
        last, total = self.last_verdicts, sum(self.last_verdicts.values())
        rest = [
            f"{last[verdict]} {word}"
            for verdict, word in ((Verdict.KNOWN, "known to fail"), (Verdict.SKIPPED, "skipped"))
            if last[verdict]
        ]
        ending = f" ({', '.join(rest)})" if rest else ""
        if total == 0 and self.record.head.mutants is not None:
            return "PASS: no mutant survived: the tests detect each of them."
        tests = count(total, "test")
        if len(self.record.steps) > 1:
            patches = count(sum(bool(s.subject) for s in self.record.steps), "patch", "patches")
            passing = (
                f"all {tests}" if last[Verdict.OK] == total else f"{last[Verdict.OK]} of {tests}"
            )
            return f"PASS: {passing} pass with {patches} applied{ending}."
        if last[Verdict.OK] == total:
            return f"PASS: {'the one test passes' if total == 1 else f'all {tests} pass'}."
        return f"PASS: {last[Verdict.OK]} of {tests} pass{ending}."

    def _bad(self) -> str:
        unbuilt = [cell.step for cell in self.record.cells if cell.failure]
        failing = list(
            dict.fromkeys(
                self.record.name(cell, test)
                for cell, test, judged in self.failures()
                if judged.status is Status.FAIL
            )
        )
        queue = len(self.record.steps) > 1
        if unbuilt:
            head = f"{visible(unbuilt[0])} does not build"
        elif failing:
            shown = [visible(name) for name in failing[:_NAMES]]
            while len(shown) > 1 and sum(map(len, shown)) > _LENGTH:
                shown.pop()
            names = ", ".join(shown)
            more = f" and {len(failing) - len(shown)} more" if len(failing) > len(shown) else ""
            verb = "fails" if len(failing) == 1 else "fail"
            head = f"{names}{more} {verb}"
            if not queue:
                return (
                    f"FAIL: {count(len(failing), 'test')} of {sum(self.last_verdicts.values())}"
                    f" {verb}: {names}{more}."
                )
        elif self.record.head.findings:
            head = visible(self.record.head.findings[0])
        else:
            head = visible(self.record.head.error) or "the command failed without a failed test"
        return f"FAIL: {head}."
