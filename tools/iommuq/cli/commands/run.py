# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq run``."""

from __future__ import annotations

import click

from iommuq.build.workspace import Workspace
from iommuq.cli import options
from iommuq.cli.commands.prove import prove_queue
from iommuq.proof.lanes import KunitLane
from iommuq.report import live
from iommuq.system import arches


@click.command()
@options.base
@options.arch
@options.config
@options.limit
@options.json_lines
def run(base: str, arch: str, configs: tuple[str, ...], timeout: float, as_json: bool) -> int:
    """Test every step of the queue of BASE and print the table of verdicts."""
    with live.json_lines(as_json):
        workspace = Workspace.open(base)
        lane = KunitLane.open(workspace, arches.get(arch), configs, limit=timeout)
        return prove_queue(workspace, [lane], workspace.steps(), folded=False, strict=False)
