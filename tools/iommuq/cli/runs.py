# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq runs``."""

from __future__ import annotations

import click


@click.group()
def runs() -> None:
    """List the runs that are kept, show one, compare two.

    A RUN is an id or the begin of one; last and last~1 are the newest one and the one
    before; a FILE.json is what `iommuq report --json` wrote.
    """


@runs.command("list")
@click.option(
    "-n", "number", type=click.IntRange(min=1), default=20, show_default=True, help="Runs."
)
@click.option("--all", "everything", is_flag=True, help="Every run that is kept.")
def list_(number: int, everything: bool) -> None:
    """Print the runs, the newest first."""
    from iommuq.cli.commands.runs import list_runs

    list_runs(None if everything else number)


@runs.command()
@click.argument("run", default="last")
def show(run: str) -> int:
    """Print what a run found; its own exit code is this command's."""
    from iommuq.cli.commands.runs import show_run

    return show_run(run)


@runs.command()
@click.argument("a")
@click.argument("b", default="last")
def compare(a: str, b: str) -> int:
    """Print what B has that A has not: failures, passes, slowness, warnings."""
    from iommuq.cli.commands.runs import compare_runs

    return compare_runs(a, b)
