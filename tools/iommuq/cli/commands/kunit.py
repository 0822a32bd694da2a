# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq kunit``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click

from iommuq.build.workspace import Workspace
from iommuq.cli import options
from iommuq.cli.commands.selftest import run_lane
from iommuq.defaults import KUNIT_LIMIT, TREE_LIMIT
from iommuq.proof import coverage, recording
from iommuq.proof.lanes import KunitLane, KunitTreeLane
from iommuq.report import live
from iommuq.report.live import report_run
from iommuq.results.runs.recorder import recording as recorded
from iommuq.system import arches, progress
from iommuq.system.errors import EXIT_OK, InfraError, UserError, os_errors_as


@click.command()
@options.base
@click.argument("filters", nargs=-1, metavar="[FILTER]...")
@options.at_patch
@options.again
@click.option(
    "--tree", is_flag=True, help="Run the tree's own suites of drivers/iommu, and none of ours."
)
@click.option("--coverage", "counted", is_flag=True, help="Show the coverage of the queue.")
@click.option(
    "--coverage-json", type=options.file, metavar="FILE", help="Also write the coverage to FILE."
)
@options.arch
@options.config
@options.limit
@options.json_lines
def kunit(
    base: str,
    filters: tuple[str, ...],
    at: str | None,
    again: bool,
    tree: bool,
    counted: bool,
    coverage_json: Path | None,
    arch: str,
    configs: tuple[str, ...],
    timeout: float,
    as_json: bool,
) -> int:
    """Run the KUnit suites on BASE with its queue applied.

    FILTER is a suite or suite.case, with * and ?.
    """
    with live.json_lines(as_json):
        counted = counted or coverage_json is not None
        if counted:
            coverage.check_arch(arch)
        workspace = Workspace.open(base)
        if tree:
            if counted or filters:
                raise UserError("--tree runs all suites of the tree, and counts no coverage")
            limit = TREE_LIMIT if timeout == KUNIT_LIMIT else timeout
            of_tree = KunitTreeLane.open(workspace, arches.get(arch), configs, limit=limit)
            return run_lane(workspace, replace(of_tree, slow=True), at, again=again)
        lane = KunitLane.open(workspace, arches.get(arch), configs, filters, timeout)
        if counted:
            return _run_covered(lane, at, coverage_json)
        return run_lane(workspace, lane, at, again=again)


def _run_covered(lane: KunitLane, at: str | None, figures: Path | None) -> int:
    """Run the suites on one step, print the coverage, and write it to *figures*."""
    workspace = lane.workspace
    plain = workspace.step(at)
    with recorded(workspace.base.spec.name) as recorder:
        recording.workspace(recorder, workspace, [plain], [lane])
        with coverage.measuring(lane, plain) as measured:
            with live.shown_lanes(workspace, [plain], [lane]):
                image = measured.lane.image(measured.step)
                run = measured.lane.run(image, measured.step, again=True)
            recording.run(recorder, lane, run, None)
            recorder.exit_code = report_run(workspace.title, lane, run)
            try:
                covers, touched = measured.covers(image), measured.touched()
            except InfraError as error:
                if recorder.exit_code == EXIT_OK:
                    raise
                # A lost guest wrote no counters; its tests were reported above.
                progress.note(str(error))
                return recorder.exit_code
        print()
        for line in coverage.report_lines(covers, touched):
            print(line)
        found = coverage.to_json(covers, touched, workspace.base.spec.name, plain.label)
        recorder.describe(coverage=found)
        if figures is not None:
            with os_errors_as(UserError, figures):
                figures.write_text(f"{json.dumps(found, indent=1)}\n", encoding="utf-8")
        return recorder.exit_code
