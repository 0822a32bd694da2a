# SPDX-License-Identifier: GPL-2.0-only
"""Pass the results of suites to the recorder, for all commands."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from iommuq.proof import promises as prooffile
from iommuq.results.known import KnownFailures, excused, judge_run
from iommuq.results.runs.model import StepRecord
from iommuq.results.runs.recorder import Recorder, steps_of
from iommuq.results.store import SuiteRun
from iommuq.system.errors import UserError

if TYPE_CHECKING:
    from iommuq.build.workspace import Workspace
    from iommuq.proof.lanes import Lane
    from iommuq.proof.mutants.report import Outcome as Mutation
    from iommuq.proof.prove import Outcome
    from iommuq.queue.steps import Step
    from iommuq.suites.firmware.subjects import Tested


def workspace(
    recorder: Recorder, of: Workspace, steps: Sequence[Step], lanes: Sequence[Lane]
) -> None:
    """Record the base and the steps of a run.

    :param steps: the tested steps.
    :param lanes: with several of them tests are named ``<lane>.<test>``.
    """
    base = of.base
    promises: dict[str, prooffile.Promise] = {}
    # A malformed file is reported by other code.
    with contextlib.suppress(UserError):
        promises = prooffile.load_promises(of.queue).promises
    found: list[StepRecord] = []
    for step in steps_of([(step.label, step.patch) for step in steps]):
        promise = promises.get(step.label)
        if promise is not None:
            names = promise.breaks
            if len(lanes) == 1:
                names = tuple(name.partition(".")[2] for name in names)
            step = replace(step, proof=promise.reason.strip(), accepted=names)
        found.append(step)
    titles = "; ".join(lane.title for lane in lanes)
    recorder.describe(
        title=f"{of.title}, {titles}" if lanes else of.title,
        kernel=base.kernel,
        version=base.version,
        steps=tuple(found),
    )


def outcome(recorder: Recorder, found: Outcome, lanes: Sequence[Lane]) -> None:
    """Record a cell of a proof; a later one of the same step and lane replaces it."""
    lane = next(lane for lane in lanes if lane.name == found.lane)
    recorder.cell(
        found.step.label,
        found.lane,
        found.run,
        failure="" if found.failure is None else str(found.failure),
        verdicts=found.verdicts,
        known=lane.excuses(found.run) if found.run is not None else {},
        warnings=None if found.all_warnings is None else sorted(found.all_warnings),
        added=found.warnings,
    )


def run(recorder: Recorder, lane: Lane, found: SuiteRun, warnings: Collection[str] | None) -> None:
    """Record a run of one lane; *warnings* are those of its kernel, None if unknown."""
    recorder.cell(
        found.patch,
        lane.name,
        found,
        verdicts=lane.judge(found),
        known=lane.excuses(found),
        warnings=None if warnings is None else sorted(warnings),
    )


def firmware(
    recorder: Recorder, tested: Tested, runs: Iterable[SuiteRun], known: KnownFailures, arch: str
) -> None:
    """Record the runs of firmware scenarios."""
    recorder.describe(title=f"{tested.title}, firmware scenarios", kernel=tested.subject.kernel)
    for found in runs:
        recorder.cell(
            tested.subject.patch,
            "firmware",
            found,
            verdicts=judge_run(found, known, arch),
            known=excused(found, known, arch),
        )


def survivors(found: Mutation) -> Iterator[str]:
    """Yield a line for each mutant that survived."""
    for trial in found.survivors:
        mutant = trial.mutant
        yield f"{mutant.path}:{mutant.line} {mutant.function}: mutant {mutant.operator} survived"
