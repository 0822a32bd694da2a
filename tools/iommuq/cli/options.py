# SPDX-License-Identifier: GPL-2.0-only
"""Options that several commands have."""

from __future__ import annotations

import click

#: ``--json``: what `iommuq.live.json_lines` is for.
json_lines = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print what happens as JSON, one object a line, and nothing else.",
)
