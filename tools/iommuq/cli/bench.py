# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq bench``."""

from __future__ import annotations

import click

from iommuq.cli.completion import bases
from iommuq.defaults import DEFAULT_BASE


@click.command()
@click.argument("base", default=DEFAULT_BASE, shell_complete=bases)
def bench(base: str) -> None:
    """Measure this tool against kunit.py on BASE, in one run; takes fifteen minutes."""
    from iommuq.cli.commands.bench import run_bench

    run_bench(base)
