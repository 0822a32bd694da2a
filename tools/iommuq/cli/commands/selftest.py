# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq selftest``."""

from __future__ import annotations

from pathlib import Path

import click

from iommuq.build.workspace import Workspace
from iommuq.cli import options
from iommuq.defaults import GUESTS
from iommuq.proof import recording
from iommuq.proof.lanes import Lane, SelftestLane, VfioLane
from iommuq.report import live
from iommuq.report.live import report_run
from iommuq.results.runs.recorder import recording as recorded
from iommuq.suites.vfio import programs
from iommuq.system.errors import InfraError, UserError


@click.command()
@options.base
@click.argument("suites", nargs=-1, metavar="[SUITE]...")
@options.at_patch
@click.option(
    "--on", type=click.Choice(tuple(GUESTS)), default="qemu", show_default=True, help="The guest."
)
@click.option(
    "--suite",
    "tree",
    type=click.Choice(("iommu", "vfio", "foreign")),
    default="iommu",
    show_default=True,
    help="Those of selftests/suites.toml, the tree's selftests/vfio, or suites of others.",
)
@click.option(
    "--machine", "machines", metavar="NAME", multiple=True, help="Of the vfio and foreign suites."
)
@click.option(
    "--from",
    "given",
    metavar="DIR",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The sources of --suite foreign, each in a directory with its name. By default the cache.",
)
@options.again
@options.no_known
@options.json_lines
def selftest(
    base: str,
    suites: tuple[str, ...],
    at: str | None,
    on: str,
    tree: str,
    machines: tuple[str, ...],
    given: Path | None,
    again: bool,
    no_known: bool,
    as_json: bool,
) -> int:
    """Run the userspace suites on BASE with its queue applied.

    SUITE is one of selftests/suites.toml.
    """
    with live.json_lines(as_json):
        if tree != "iommu" and suites:
            raise UserError(f"--suite {tree} runs all its programs, it takes no {suites[0]!r}")
        if tree == "iommu" and machines:
            raise UserError(
                "--machine is for --suite vfio and foreign; --on names the guest of the others"
            )
        if tree != "foreign" and given is not None:
            raise UserError("--from is for --suite foreign")
        workspace = Workspace.open(base)
        lane: Lane
        if tree == "vfio":
            lane = VfioLane.open(workspace, machines, all_fail=no_known)
            step = workspace.step(at)
            if not lane.has_programs(step):
                # Without them the kernel is not needed either.
                raise UserError(
                    f"{base} {step.label}: nothing to test: this tree has no {programs.FOLDER}"
                )
        elif tree == "foreign":
            lane = _foreign(workspace, machines, given, all_fail=no_known)
        else:
            lane = SelftestLane.open(workspace, on, suites, all_fail=no_known)
        return run_lane(workspace, lane, at, again=again)


def _foreign(
    workspace: Workspace, machines: tuple[str, ...], given: Path | None, *, all_fail: bool
) -> Lane:
    """Return the lane of suites of others, if there is any: the kernel takes long to build.

    :raises UserError: none has its sources and tools.
    :raises InfraError: one does not build, and there is no other.
    """
    from iommuq.proof.foreign import ForeignLane

    lane = ForeignLane.open(workspace, machines, given, all_fail=all_fail)
    if any(one.paths for one in lane.built):
        return lane
    for one in lane.built:
        word, why = ("ERROR", one.failed) if one.failed else ("SKIPPED", one.skipped)
        print(f"{word:<15} {one.suite.name}: {why}")
    if any(one.failed for one in lane.built):
        raise InfraError("no suite of others can be run: none was built")
    raise UserError("no suite of others can be run: the sources are not here", hint="see above")


def run_lane(workspace: Workspace, lane: Lane, at: str | None, *, again: bool) -> int:
    """Run one lane on one step, print the failures, and return the exit code.

    :param at: the step; None for the whole queue.
    :param again: run even if the store has the results.
    """
    step = workspace.step(at)
    with recorded(workspace.base.spec.name) as recorder:
        recording.workspace(recorder, workspace, [step], [lane])
        with live.shown_lanes(workspace, [step], [lane]):
            image = lane.image(step)
            run = lane.run(image, step, again=again)
        recording.run(recorder, lane, run, image.warnings)
        recorder.exit_code = report_run(workspace.title, lane, run)
        return recorder.exit_code
