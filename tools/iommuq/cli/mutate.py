# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq mutate``."""

from __future__ import annotations

import click

from iommuq import arches
from iommuq.cli.completion import bases
from iommuq.workspace import DEFAULT_BASE


@click.command()
@click.argument("base", default=DEFAULT_BASE, shell_complete=bases)
@click.option(
    "--function", "functions", metavar="NAME", multiple=True, help="Try the mutants of NAME only."
)
@click.option("--list", "only_list", is_flag=True, help="List the mutants, and build nothing.")
@click.option("--limit", "count", type=click.IntRange(min=1), metavar="N", help="Try N at most.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option(
    "--arch",
    type=click.Choice(arches.names()),
    default="um",
    show_default=True,
    help="What to build for.",
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
    type=click.FloatRange(min=1),
    default=30.0,
    show_default=True,
    help="Seconds that one boot may take.",
)
def mutate(
    base: str,
    functions: tuple[str, ...],
    only_list: bool,
    count: int | None,
    as_json: bool,
    arch: str,
    configs: tuple[str, ...],
    timeout: float,
) -> int:
    """Put small faults into the functions that the queue of BASE touches.

    One at a time, and each is to be noticed by a KUnit case.  Those that are not are
    listed, unless patches/BASE/mutants.toml says why no test can notice.
    """
    from iommuq.mutants.command import run_mutate

    return run_mutate(
        base,
        functions,
        arch=arch,
        configs=configs,
        only_list=only_list,
        count=count,
        limit=timeout,
        as_json=as_json,
    )
