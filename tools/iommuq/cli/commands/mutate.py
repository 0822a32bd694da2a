# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq mutate``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from iommuq.build.workspace import Workspace
from iommuq.cli import options
from iommuq.proof import promises as prooffile
from iommuq.proof import recording as feed
from iommuq.proof.lanes import FirmwareLane, KunitLane, Lane, open_lanes
from iommuq.proof.mutants import hunks, report
from iommuq.proof.mutants.diffs import make_diff_plan
from iommuq.proof.mutants.faults import OPERATORS
from iommuq.proof.mutants.report import Outcome
from iommuq.proof.mutants.trial import Bench, Fate, Plan, Trial, make_hunk_plan, make_plan
from iommuq.queue.model import BASELINE, PLAIN, find_step
from iommuq.results.runs.recorder import Recorder, recording
from iommuq.system import arches, progress
from iommuq.system.arches import Arch
from iommuq.system.errors import EXIT_OK, EXIT_VERDICT, UserError
from iommuq.system.git.objects import Objects
from iommuq.system.temporary import temporary_folder


@click.command()
@options.base
@click.option("--hunks", is_flag=True, help="Remove hunks and lines of the patches instead.")
@click.option(
    "--faults",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Read the faults from DIR instead: one diff in each *.patch.",
)
@click.option("--patch", "patches", metavar="PATCH", multiple=True, help="Only mutants of PATCH.")
@click.option(
    "--function", "functions", metavar="NAME", multiple=True, help="Only mutants in NAME()."
)
@click.option(
    "--suite",
    "suites",
    metavar="NAME",
    multiple=True,
    default=("kunit",),
    show_default=True,
    help="Suites of `prove` to run, or explore; after the first that fails no more.",
)
@click.option("--list", "only_list", is_flag=True, help="List the mutants, and build nothing.")
@click.option(
    "--limit", "count", type=click.IntRange(min=1), metavar="N", help="Try at most N mutants."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option(
    "--arch",
    type=click.Choice(arches.names()),
    default="um",
    show_default=True,
    help="Architecture of the KUnit kernel.",
)
@options.config
@click.option(
    "--timeout",
    type=click.IntRange(1, 10**6),
    default=30,
    show_default=True,
    help="Time limit of one boot for KUnit in seconds.",
)
def mutate(
    base: str,
    hunks: bool,
    faults: Path | None,
    patches: tuple[str, ...],
    functions: tuple[str, ...],
    suites: tuple[str, ...],
    only_list: bool,
    count: int | None,
    as_json: bool,
    arch: str,
    configs: tuple[str, ...],
    timeout: float,
) -> int:
    """Put small faults into the functions that the queue of BASE touches.

    For each single fault a test must fail.  The others are listed,
    unless patches/BASE/mutants.toml explains why no test can fail.

    With --hunks a fault reverts one hunk of a patch, or removes one line that
    a patch adds.

    With --faults each diff in DIR is a fault, against the tree with all patches.
    The mutants are built and booted: read the diffs first.
    """
    if faults is not None and (hunks or patches):
        raise UserError("--faults excludes --hunks and --patch")
    workspace = Workspace.open(base)
    wanted = _Wanted(hunks, functions, patches, count, faults)
    # A list is no run.
    with contextlib.nullcontext() if only_list else recording(base) as recorder:
        lanes = make_lanes(workspace, suites, arches.get(arch), configs, timeout)
        code = _mutate(recorder, workspace, wanted, lanes, only_list, as_json)
        if recorder is not None:
            recorder.exit_code = code
        return code


#: Seconds for the boot of an emulated guest: shorter than the limit of the machine, as each
#: mutant that hangs takes this long.
_BOOT_LIMIT = 60.0


@dataclass(frozen=True)
class _Wanted:
    hunks: bool
    functions: tuple[str, ...]
    patches: tuple[str, ...]
    count: int | None
    faults: Path | None


def make_lanes(
    workspace: Workspace, suites: Sequence[str], arch: Arch, configs: tuple[str, ...], limit: float
) -> list[Lane]:
    """Return the lanes of suites; *arch*, *configs* and *limit* (in seconds) are for KUnit.

    :raises UserError: there is no such suite or fragment.
    """
    found: dict[str, Lane] = {}
    for name in suites:
        if name == "explore":
            # Hypothesis takes half a second to import.
            from iommuq.explore.lane import ExploreLane

            found[name] = ExploreLane.open(workspace)
            continue
        (lane,) = open_lanes(workspace, [name])
        if isinstance(lane, KunitLane):
            # Report a missing fragment before the first build.
            workspace.fragments(arch, configs)
            lane = replace(lane, arch=arch, configs=configs, limit=limit)
        if isinstance(lane, FirmwareLane):
            lane = lane.hurried(_BOOT_LIMIT)
        found[name] = lane
    return list(found.values())


def _mutate(
    recorder: Recorder | None,
    workspace: Workspace,
    wanted: _Wanted,
    lanes: Sequence[Lane],
    only_list: bool,
    as_json: bool,
) -> int:
    base = workspace.base.spec.name
    promises = prooffile.load_promises(workspace.queue)
    patches = [find_step(workspace.queue, name) for name in wanted.patches]
    for label in {PLAIN, BASELINE}.intersection(patches):
        raise UserError(f"{label} is no patch of the queue", hint="name a patch to mutate")
    entries = report.load_explanations(workspace.base.spec.folder)
    with temporary_folder("mutants") as folder:
        objects = Objects(workspace.base.git_dir, folder)
        steps = workspace.steps()
        operators: tuple[str, ...] = tuple(OPERATORS)
        if wanted.faults is not None:
            operators = ()
            plan = make_diff_plan(objects, steps, wanted.faults, wanted.functions)
        elif wanted.hunks:
            operators = hunks.OPERATORS
            plan = make_hunk_plan(objects, steps, wanted.functions, patches)
        else:
            also = {entry.function for entry in entries}
            plan = make_plan(objects, steps, wanted.functions, also, patches)
        matched, wrong = report.match(entries, plan.known, operators)
        trials: tuple[Trial, ...] = ()
        if not only_list:
            bench = Bench(workspace, plan, objects, lanes, promises.proofs)
            trials = bench.run(plan.mutants, wanted.count, _say)
    outcome = Outcome(plan, trials, matched, wrong)
    found = report.to_json(outcome, base, [lane.name for lane in lanes])
    if recorder is not None:
        feed.workspace(recorder, workspace, steps, ())
        recorder.describe(mutants=found, findings=(*feed.survivors(outcome), *outcome.findings))
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        print(_title(workspace, plan, [] if only_list else lanes))
        lines = report.list_lines(plan) if only_list else report.report_lines(outcome)
        if plan.by_patch and not only_list:
            queue = [patch.label for patch in workspace.queue.sent]
            lines = report.patch_lines(outcome, promises, queue)
        for line in lines:
            print(line)
    if only_list:
        if not as_json:
            for line in wrong:
                print(line)
        return EXIT_VERDICT if wrong else EXIT_OK
    return outcome.exit_code


def _title(workspace: Workspace, plan: Plan, lanes: Sequence[Lane]) -> str:
    kernel = workspace.base
    what = "hunks" if plan.by_patch else "mutants"
    ran = "".join(f"; {lane.title}" for lane in lanes)
    return f"Linux {kernel.kernel} ({kernel.version}) {plan.step.label}, {what}{ran}"


def _say(trial: Trial) -> None:
    if trial.fate is Fate.SURVIVED:
        progress.note(f"survived: {report.title(trial.mutant)}")
