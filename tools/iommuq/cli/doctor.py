# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq doctor``."""

from __future__ import annotations

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def doctor(as_json: bool) -> int:
    """Say what this machine has, what it lacks, and what mends that."""
    from iommuq.cli.commands.base import show_doctor

    return show_doctor(as_json=as_json)
