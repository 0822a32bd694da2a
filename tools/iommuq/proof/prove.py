# SPDX-License-Identifier: GPL-2.0-only
"""Test every step of a queue, from the baseline to the last patch.

Every step is built and runs every suite.  The result is a table of verdicts, and findings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from iommuq.proof import promises as prooffile
from iommuq.proof.matrix import Column, Matrix, build, names
from iommuq.queue.model import Queue
from iommuq.queue.steps import Step
from iommuq.results.known import Verdict
from iommuq.results.store import SuiteRun
from iommuq.system.errors import EXIT_INFRA, EXIT_OK, EXIT_VERDICT, UserError, VerdictError
from iommuq.system.progress import count

if TYPE_CHECKING:
    from iommuq.build.workspace import Workspace
    from iommuq.proof.lanes import Lane


@dataclass(frozen=True)
class Outcome:
    """The result of one step in one lane.

    :ivar run: the results; None if the step does not build.
    :ivar failure: why it does not build.
    :ivar verdicts: by test, which consider known failures.
    :ivar warnings: compiler warnings that the step before does not have.
    :ivar all_warnings: all compiler warnings; None if it does not build.
    :ivar settled_by: the key of the runs that settled doubtful tests; empty if there are none.
    """

    step: Step
    lane: str = ""
    run: SuiteRun | None = None
    failure: VerdictError | None = None
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    all_warnings: frozenset[str] | None = None
    settled_by: str = ""


@dataclass(frozen=True)
class Proof:
    """The results of all steps of a queue.

    :ivar unproven: broken promises of patches, one line each.
    :ivar accepted: steps and the tests that they may break.
    """

    outcomes: tuple[Outcome, ...]
    matrix: Matrix
    unproven: tuple[str, ...] = ()
    accepted: frozenset[tuple[str, str]] = frozenset()

    @property
    def findings(self) -> list[str]:
        """What is wrong, one line each."""
        found: dict[str, None] = {}
        for outcome in self.outcomes:
            label = outcome.step.label
            if outcome.failure is not None:
                found[f"{label}: {outcome.failure}"] = None
            for text in outcome.warnings:
                found[f"{label} adds a warning: {text}"] = None
        for column in self.matrix.columns:
            for test, verdict in column.verdicts.items():
                if verdict in (Verdict.UNEXPECTED_PASS, Verdict.EXPIRED, Verdict.FLAKY):
                    found[f"{column.label}: {test}: {verdict.value}"] = None
        for change in self.matrix.changes:
            label = change.column.label
            against = f", compared with {change.since}" if change.since else ""
            for test in change.broke:
                if (label, test) not in self.accepted:
                    found[f"{label} breaks {test}{against}"] = None
            gone = [test for test in change.gone if (label, test) not in self.accepted]
            # The tests of a lost guest are errors, not findings.
            if gone and Verdict.ERROR not in change.column.verdicts.values():
                found[f"{label}: passed before, not run now: {names(gone)}{against}"] = None
        # A test that a patch breaks is named only with that patch.
        blamed = {test for change in self.matrix.changes for test in change.broke}
        last = self.matrix.columns[-1].verdicts
        for test, verdict in last.items():
            if verdict is Verdict.FAILED and test not in blamed:
                found[f"{test} fails with the whole queue applied"] = None
        return [*found, *self.unproven]

    @property
    def errors(self) -> list[str]:
        """The tests without a verdict, because of the infrastructure, one line each."""
        return [
            f"{column.label}: {test}: no verdict"
            for column in self.matrix.columns
            for test, verdict in column.verdicts.items()
            if verdict is Verdict.ERROR
        ]

    def verdict(self, base: str) -> str:
        """Return the verdict in one line, with numbers; *base* is the name of the base."""
        rows, columns = self.matrix.rows, self.matrix.columns
        if self.exit_code == EXIT_OK:
            return f"PASS: {base}: {count(len(rows), 'test')} at {count(len(columns), 'step')}"
        if self.exit_code == EXIT_INFRA:
            return f"ERROR: {base}: no verdict on {count(len(self.errors), 'test')}"
        for column in columns:
            if column.note:
                return f"FAIL: {base}: {column.label} {column.note}"
        for change in self.matrix.changes:
            label = change.column.label
            broke = sum((label, test) not in self.accepted for test in change.broke)
            if broke:
                return f"FAIL: {base}: {label} breaks {count(broke, 'test')}"
        return f"FAIL: {base}: {count(len(self.findings), 'finding')}"

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        if self.findings:
            return EXIT_VERDICT
        return EXIT_INFRA if self.errors else EXIT_OK


def steps_between(workspace: Workspace, first: str | None, last: str | None) -> list[Step]:
    """Return the steps from *first* to *last*, and the one before *first*.

    :param first: the first patch; None for the baseline.
    :param last: the last patch; None for that of the queue.
    :raises UserError: there is no such step, or *last* comes before *first*.
    """
    steps = workspace.steps(last)
    if first is None:
        return steps
    labels = [step.label for step in steps]
    wanted = workspace.step(first).label
    if wanted not in labels and last is None:
        raise UserError(f"{first} is no step of the queue", hint="the first step is the baseline")
    if wanted not in labels:
        raise UserError(f"{first} does not come before {last}")
    return steps[max(0, labels.index(wanted) - 1) :]


def prove(
    steps: Sequence[Step],
    lanes: Sequence[Lane],
    executor: Executor,
    *,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Build every step for every lane, and run it.

    Builds follow each other; a suite runs while the next step is built.

    :param executor: runs the suites; any of `concurrent.futures`.
    :param on_outcome: called for each outcome, in order.
    :return: the outcomes of the first step, those of the second, and so on.
    """
    outcomes: list[Outcome] = []
    futures: list[Future[SuiteRun] | None] = []
    told = 0

    def tell(*, wait: bool) -> None:
        nonlocal told
        while told < len(outcomes):
            future = futures[told]
            if future is not None:
                if not (wait or future.done()):
                    return
                run = future.result()
                verdicts = lanes[told % len(lanes)].judge(run)
                outcomes[told] = replace(outcomes[told], run=run, verdicts=verdicts)
            told += 1
            if on_outcome is not None:
                on_outcome(outcomes[told - 1])

    before: dict[str, frozenset[str]] = {}
    for step in steps:
        for lane in lanes:
            try:
                image = lane.image(step)
            except VerdictError as error:
                outcomes.append(Outcome(step, lane.name, failure=error))
                futures.append(None)
            else:
                new = tuple(sorted(image.warnings - before.get(lane.name, image.warnings)))
                before[lane.name] = image.warnings
                outcomes.append(Outcome(step, lane.name, warnings=new, all_warnings=image.warnings))
                futures.append(executor.submit(lane.run, image, step))
            tell(wait=False)
    tell(wait=True)
    return outcomes


def conclude(
    outcomes: Sequence[Outcome], lanes: Sequence[Lane], queue: Queue, *, strict: bool
) -> Proof:
    """Make the table of all outcomes, and compare it with the promises of the patches.

    :param lanes: with several of them the table has tests as ``<lane>.<test>``.
    :param strict: a queue without ``proof.toml`` is unproven.
    :raises UserError: the file is malformed.
    """
    promises = prooffile.load_promises(queue)
    full = build(columns_of(outcomes))
    unproven: list[str] = []
    if strict or promises.exists:
        names = [lane.name for lane in lanes]
        lacks = [f"{lane.name}.{name}" for lane in lanes for name in lane.lacks]
        unproven = prooffile.broken_promises(promises, full, queue, names, lacks)
    several = len(lanes) > 1
    matrix = full if several else build(columns_of(outcomes, qualified=False))
    accepted = frozenset(
        (label, test if several else test.partition(".")[2])
        for label in promises.promises
        for test in promises.may_break(label)
    )
    return Proof(tuple(outcomes), matrix, tuple(unproven), accepted)


def columns_of(outcomes: Sequence[Outcome], *, qualified: bool = True) -> list[Column]:
    """Return a column for each step, with tests as ``<lane>.<test>`` if *qualified*."""
    columns: dict[str, Column] = {}
    for outcome in outcomes:
        step = outcome.step
        verdicts = {
            f"{outcome.lane}.{test}" if qualified else test: verdict
            for test, verdict in outcome.verdicts.items()
        }
        old = columns.get(step.label, Column(step.label, step.patch.subject if step.patch else ""))
        columns[step.label] = replace(
            old,
            verdicts={**old.verdicts, **verdicts},
            note=old.note if outcome.failure is None else "does not build",
        )
    return list(columns.values())
