# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq prove``."""

from __future__ import annotations

import click

from iommuq.cli.completion import bases
from iommuq.cli.options import json_lines
from iommuq.defaults import DEFAULT_BASE


@click.command()
@click.argument("base", default=DEFAULT_BASE, shell_complete=bases)
@click.option(
    "--suite",
    "suites",
    metavar="NAME",
    multiple=True,
    help="Only this suite: kunit, selftest, firmware.",
)
@click.option("--from", "first", metavar="PATCH", help="Begin with this patch.")
@click.option("--to", "last", metavar="PATCH", help="End with this patch.")
@click.option("--all", "unfolded", is_flag=True, help="A row for every test.")
@click.option("--bisect", metavar="TEST", help="Say which patch breaks TEST.")
@json_lines
def prove(
    base: str,
    suites: tuple[str, ...],
    first: str | None,
    last: str | None,
    unfolded: bool,
    bisect: str | None,
    as_json: bool,
) -> int:
    """Test every step of the queue of BASE with every suite.

    The table is held against patches/BASE/proof.toml, in which each patch names the
    tests that it turns from failing to passing, or says why there are none.
    """
    # Here and not above: --help and a bad argument need none of it.
    from iommuq.cli.commands.suites import run_proof
    from iommuq.report.live import events

    with events.json_lines(as_json):
        return run_proof(base, suites, first=first, last=last, folded=not unfolded, bisect=bisect)
