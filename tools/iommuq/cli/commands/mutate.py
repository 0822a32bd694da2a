# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq mutate``."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from iommuq.build.workspace import Workspace
from iommuq.cli.completion import bases
from iommuq.defaults import DEFAULT_BASE
from iommuq.proof import promises as prooffile
from iommuq.proof import recording as feed
from iommuq.proof.lanes import FirmwareLane, KunitLane, Lane, open_lanes
from iommuq.proof.mutants import bypatch, explained, hunks, report
from iommuq.proof.mutants.faults import OPERATORS
from iommuq.proof.mutants.plan import Plan, make_hunk_plan, make_plan
from iommuq.proof.mutants.report import Outcome
from iommuq.proof.mutants.trial import Bench, Fate, Trial
from iommuq.queue.model import BASELINE, PLAIN, find_step
from iommuq.results.runs.recorder import Recorder, recording
from iommuq.system import arches, progress
from iommuq.system.errors import EXIT_OK, EXIT_VERDICT, UserError
from iommuq.system.git.objects import Store


@click.command()
@click.argument("base", default=DEFAULT_BASE, shell_complete=bases)
@click.option("--hunks", is_flag=True, help="Take out hunks and lines of the patches instead.")
@click.option(
    "--patch", "patches", metavar="PATCH", multiple=True, help="Try what is of PATCH only."
)
@click.option(
    "--function", "functions", metavar="NAME", multiple=True, help="Try what is in NAME only."
)
@click.option(
    "--suite",
    "suites",
    metavar="NAME",
    multiple=True,
    default=("kunit",),
    show_default=True,
    help="Who is to notice: kunit, selftest, firmware; the first that does is the last asked.",
)
@click.option("--list", "only_list", is_flag=True, help="List the mutants, and build nothing.")
@click.option("--limit", "count", type=click.IntRange(min=1), metavar="N", help="Try N at most.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option(
    "--arch",
    type=click.Choice(arches.names()),
    default="um",
    show_default=True,
    help="What to build the KUnit kernel for.",
)
@click.option(
    "--config",
    "configs",
    metavar="NAME",
    multiple=True,
    help="Add kunit/configs/NAME.config, such as debug for KASAN and lockdep.",
)
@click.option(
    "--timeout",
    type=click.IntRange(1, 10**6),
    default=30,
    show_default=True,
    help="Seconds that one boot for KUnit may take.",
)
def mutate(
    base: str,
    hunks: bool,
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

    One at a time, and each is to be noticed by a test.  Those that are not are listed,
    unless patches/BASE/mutants.toml says why no test can notice.

    With --hunks the faults are the patches' own: one hunk is taken back, or one line that
    a patch adds is taken out.
    """

    return run_mutate(
        base,
        Wanted(hunks, functions, patches, count),
        Guests(suites, arch, configs, timeout),
        only_list=only_list,
        as_json=as_json,
    )


#: Seconds that an emulated guest has to boot. The machines' own limits are for a host that
#: does other things; a mutant that hangs is waited for every time.
_BOOT_LIMIT = 60.0


@dataclass(frozen=True)
class Wanted:
    """What is to be tried.

    :ivar hunks: take hunks and lines of patches out, in place of other faults.
    :ivar functions: names of functions; none for all that the queue touches.
    :ivar patches: names of patches; none for all.
    :ivar count: no more than so many.
    """

    hunks: bool = False
    functions: tuple[str, ...] = ()
    patches: tuple[str, ...] = ()
    count: int | None = None


@dataclass(frozen=True)
class Guests:
    """What it is to be tried on.

    :ivar suites: names of lanes, in the order in which they are asked.
    :ivar arch: what the kernel for KUnit is built for.
    :ivar configs: names of further Kconfig fragments for it.
    :ivar limit: seconds for one boot of it.
    """

    suites: tuple[str, ...]
    arch: str
    configs: tuple[str, ...]
    limit: float

    def lanes(self, workspace: Workspace) -> list[Lane]:
        """Return the lanes.

        :raises UserError: there is no lane, or no fragment, of one of the names.
        """
        found: dict[str, Lane] = {}
        for name in self.suites:
            (lane,) = open_lanes(workspace, [name])
            if isinstance(lane, KunitLane):
                # A missing fragment is told before anything is built.
                arch = arches.get(self.arch)
                workspace.fragments(arch, self.configs)
                lane = replace(lane, arch=arch, configs=self.configs, limit=self.limit)
            if isinstance(lane, FirmwareLane):
                lane = lane.hurried(_BOOT_LIMIT)
            found[name] = lane
        return list(found.values())


def run_mutate(base: str, wanted: Wanted, guests: Guests, *, only_list: bool, as_json: bool) -> int:
    """Try the mutants of a queue, and print the survivors.

    :param only_list: build nothing.
    :param as_json: print JSON and nothing else.
    :return: the exit code.
    """
    workspace = Workspace.open(base)
    # A list is no run.
    with contextlib.nullcontext() if only_list else recording(base) as recorder:
        code = _mutate(recorder, workspace, wanted, guests, only_list, as_json)
        if recorder is not None:
            recorder.exit_code = code
        return code


def _mutate(
    recorder: Recorder | None,
    workspace: Workspace,
    wanted: Wanted,
    guests: Guests,
    only_list: bool,
    as_json: bool,
) -> int:
    """Do what `run_mutate` says, in a workspace."""
    base = workspace.base.spec.name
    lanes = guests.lanes(workspace)
    promises = prooffile.load(workspace.queue)
    patches = [find_step(workspace.queue, name) for name in wanted.patches]
    for label in {PLAIN, BASELINE}.intersection(patches):
        raise UserError(f"{label} is no patch of the queue", hint="there is nothing to try of it")
    entries = explained.load(workspace.base.spec.folder)
    with tempfile.TemporaryDirectory(prefix="iommuq-mutants-") as folder:
        objects = Store(workspace.base.git_dir, Path(folder))
        steps = workspace.steps()
        if wanted.hunks:
            plan = make_hunk_plan(objects, steps, wanted.functions, patches)
        else:
            also = {entry.function for entry in entries}
            plan = make_plan(objects, steps, wanted.functions, also, patches)
        operators = hunks.OPERATORS if wanted.hunks else tuple(OPERATORS)
        matched, wrong = explained.match(entries, plan.known, operators)
        trials: tuple[Trial, ...] = ()
        if not only_list:
            bench = Bench(workspace, plan, objects, lanes, promises.proofs)
            trials = bench.run(plan.mutants, wanted.count, _say)
    outcome = Outcome(plan, trials, matched, wrong)
    if recorder is not None:
        feed.workspace(recorder, workspace, steps, ())
        recorder.describe(
            mutants=report.to_json(outcome, base, [lane.name for lane in lanes]),
            findings=(*feed.survivors(outcome), *outcome.findings),
        )
    if as_json:
        print(json.dumps(report.to_json(outcome, base, [lane.name for lane in lanes]), indent=1))
    else:
        print(_title(workspace, plan, [] if only_list else lanes))
        lines = report.list_lines(plan) if only_list else report.report_lines(outcome)
        if plan.by_patch and not only_list:
            queue = [patch.label for patch in workspace.queue.sent]
            lines = bypatch.report_lines(outcome, promises, queue)
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
