# SPDX-License-Identifier: GPL-2.0-only
"""What ``iommuq mutate`` does: find the mutants, try them, and print what came of it."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from iommuq import arches, progress
from iommuq.errors import EXIT_OK, EXIT_VERDICT
from iommuq.mutants import explained, report
from iommuq.mutants.plan import make_plan
from iommuq.mutants.report import Outcome
from iommuq.mutants.trial import Bench, Fate, Trial
from iommuq.objects import Store
from iommuq.runs import feed
from iommuq.runs.recorder import Recorder, recording
from iommuq.workspace import Workspace


def run_mutate(
    base: str,
    functions: Sequence[str],
    *,
    arch: str,
    configs: Sequence[str],
    only_list: bool,
    count: int | None,
    limit: float,
    as_json: bool,
) -> int:
    """Try the mutants of a queue, and print the survivors.

    :param functions: names of functions to try; none for all that the queue touches.
    :param configs: names of further Kconfig fragments.
    :param only_list: build nothing.
    :param count: try no more than so many.
    :param limit: seconds for one boot.
    :param as_json: print JSON and nothing else.
    :return: the exit code.
    """
    workspace = Workspace.open(base)
    # A list is no run.
    with contextlib.nullcontext() if only_list else recording(base) as recorder:
        code = _mutate(
            recorder, workspace, functions, arch, configs, only_list, count, limit, as_json
        )
        if recorder is not None:
            recorder.exit_code = code
        return code


def _mutate(
    recorder: Recorder | None,
    workspace: Workspace,
    functions: Sequence[str],
    arch: str,
    configs: Sequence[str],
    only_list: bool,
    count: int | None,
    limit: float,
    as_json: bool,
) -> int:
    """Do what `run_mutate` says, in a workspace."""
    base = workspace.base.spec.name
    target = arches.get(arch)
    fragments = workspace.fragments(target, configs)
    entries = explained.load(workspace.base.spec.folder)
    with tempfile.TemporaryDirectory(prefix="iommuq-mutants-") as folder:
        objects = Store(workspace.base.git_dir, Path(folder))
        also = {entry.function for entry in entries}
        plan = make_plan(objects, workspace.steps(), functions, also)
        matched, wrong = explained.match(entries, plan.known)
        trials: tuple[Trial, ...] = ()
        if not only_list:
            bench = Bench(workspace, plan, objects, target, fragments, limit)
            trials = bench.run(plan.mutants, count, _say)
    outcome = Outcome(plan, trials, matched, wrong)
    if recorder is not None:
        steps = workspace.steps()
        feed.workspace(recorder, workspace, steps, ())
        recorder.describe(
            mutants=report.to_json(outcome, base, arch),
            findings=(*feed.survivors(outcome), *outcome.findings),
        )
    if as_json:
        print(json.dumps(report.to_json(outcome, base, arch), indent=1))
    else:
        kernel = workspace.base
        print(f"Linux {kernel.kernel} ({kernel.version}) {plan.step.label}, mutants")
        for line in report.list_lines(plan) if only_list else report.report_lines(outcome):
            print(line)
    if only_list:
        if not as_json:
            for line in wrong:
                print(line)
        return EXIT_VERDICT if wrong else EXIT_OK
    return outcome.exit_code


def _say(trial: Trial) -> None:
    if trial.fate is Fate.SURVIVED:
        mutant = trial.mutant
        progress.note(f"survived: {mutant.path}:{mutant.line} {mutant.function} {mutant.operator}")
