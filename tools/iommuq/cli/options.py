# SPDX-License-Identifier: GPL-2.0-only
"""Options that several commands have."""

from __future__ import annotations

import click

from iommuq.cli.completion import patches

#: ``--at``: a step of the queue.
at_patch = click.option(
    "--at",
    metavar="PATCH",
    shell_complete=patches,
    help="Stop at this patch; by default all are applied.",
)
#: ``--json``: what `iommuq.report.live.events.json_lines` is for.
json_lines = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print what happens as JSON, one object a line, and nothing else.",
)
