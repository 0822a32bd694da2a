# SPDX-License-Identifier: GPL-2.0-only
"""Walk a queue from the baseline to its last patch: what does each patch do?

Every step is built and runs the suite; a step that fails to build does not keep
the later ones from being tried.  The outcome is a table of verdicts, and whether
the queue is as it should be.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from iommuq.arches import Arch
from iommuq.errors import EXIT_INFRA, EXIT_OK, EXIT_VERDICT, VerdictError
from iommuq.fragments import Fragments
from iommuq.known import KnownFailures, Verdict, judge
from iommuq.known import Step as KnownStep
from iommuq.patchqueue import BASELINE, Queue
from iommuq.report.matrix import Column, Matrix, build
from iommuq.results import Run
from iommuq.suites.kunit import Subject, run_kunit
from iommuq.tree import Step
from iommuq.workspace import Workspace


@dataclass(frozen=True)
class Outcome:
    """What became of one step.

    :ivar run: the results, None if there is no kernel to run.
    :ivar failure: why there is none.
    :ivar verdicts: by test, with known failures taken into account.
    :ivar warnings: compiler warnings that the step before did not have.
    """

    step: Step
    run: Run | None = None
    failure: VerdictError | None = None
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Proof:
    """All steps of a queue."""

    outcomes: tuple[Outcome, ...]
    matrix: Matrix

    @property
    def findings(self) -> list[str]:
        """What is not as it should be, one line each; empty if all is well."""
        found = []
        for outcome in self.outcomes:
            label = outcome.step.label
            if outcome.failure is not None:
                found.append(f"{label}: {outcome.failure}")
            found += [f"{label} adds a warning: {text}" for text in outcome.warnings]
            listed = (Verdict.UNEXPECTED_PASS, Verdict.EXPIRED)
            found += [
                f"{label}: {test}: {verdict.value}"
                for test, verdict in outcome.verdicts.items()
                if verdict in listed
            ]
        for change in self.matrix.changes:
            found += [f"{change.column.label} breaks {test}" for test in change.broke]
        # A test that a patch breaks is named with that patch, and not once more.
        blamed = {test for change in self.matrix.changes for test in change.broke}
        found += [
            f"{test} fails with the whole queue applied"
            for test, verdict in self.outcomes[-1].verdicts.items()
            if verdict is Verdict.FAILED and test not in blamed
        ]
        return found

    @property
    def errors(self) -> list[str]:
        """What the infrastructure failed to tell, one line each."""
        return [
            f"{outcome.step.label}: {test}: no verdict"
            for outcome in self.outcomes
            for test, verdict in outcome.verdicts.items()
            if verdict is Verdict.ERROR
        ]

    @property
    def exit_code(self) -> int:
        """The exit code that the proof stands for."""
        if self.findings:
            return EXIT_VERDICT
        return EXIT_INFRA if self.errors else EXIT_OK


def judge_run(
    run: Run, known: KnownFailures, steps: Sequence[KnownStep], arch: str
) -> dict[str, Verdict]:
    """Judge the results of a run against the list of known failures.

    :param steps: all steps of the base's queue, in order.
    """
    at = next((number for number, step in enumerate(steps) if step.label == run.patch), -1)
    today = datetime.date.today()
    verdicts = {}
    for result in run.results:
        entry = known.match(result.test, base=run.base, arch=arch, steps=steps, at=at)
        verdicts[result.test] = judge(result, entry, today)
    return verdicts


def known_steps(queue: Queue) -> list[KnownStep]:
    """Return the steps of a queue as the list of known failures names them."""
    return [KnownStep(BASELINE), *(KnownStep(patch.label, patch.name) for patch in queue.sent)]


def prove(
    workspace: Workspace,
    arch: Arch,
    fragments: Fragments,
    *,
    filters: Sequence[str] = (),
    limit: float,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> Proof:
    """Build and test every step of a queue.

    :param filters: as `run_kunit` takes them.
    :param limit: seconds for one boot.
    :param on_outcome: called as each step is done.
    """
    steps = workspace.steps()
    names = known_steps(workspace.queue)
    outcomes: list[Outcome] = []
    before: frozenset[str] | None = None
    for step in steps:
        try:
            image = workspace.image(step, arch, fragments)
        except VerdictError as error:
            outcome = Outcome(step, failure=error)
        else:
            subject = Subject(workspace.base.spec.name, step.label, workspace.base.kernel)
            run = run_kunit(image, subject, filters=filters, limit=limit)
            new = () if before is None else tuple(sorted(image.warnings - before))
            before = image.warnings
            verdicts = judge_run(run, workspace.known, names, arch.name)
            outcome = Outcome(step, run, verdicts=verdicts, warnings=new)
        outcomes.append(outcome)
        if on_outcome is not None:
            on_outcome(outcome)
    columns = [
        Column(
            outcome.step.label,
            outcome.step.patch.subject if outcome.step.patch else "",
            outcome.verdicts,
            "" if outcome.failure is None else "does not build",
        )
        for outcome in outcomes
    ]
    return Proof(tuple(outcomes), build(columns))
