# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq mutate``."""

from __future__ import annotations

import click

from iommuq.cli.completion import bases
from iommuq.defaults import DEFAULT_BASE
from iommuq.system import arches


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
    from iommuq.cli.commands.mutate import Guests, Wanted, run_mutate

    return run_mutate(
        base,
        Wanted(hunks, functions, patches, count),
        Guests(suites, arch, configs, timeout),
        only_list=only_list,
        as_json=as_json,
    )
