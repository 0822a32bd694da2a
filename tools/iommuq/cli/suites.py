# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq run`` and ``iommuq kunit``."""

from __future__ import annotations

from pathlib import Path

import click

from iommuq.cli.completion import bases
from iommuq.cli.options import at_patch, json_lines
from iommuq.defaults import DEFAULT_BASE, KUNIT_LIMIT
from iommuq.system import arches

_arch = click.option(
    "--arch",
    type=click.Choice(arches.names()),
    default="um",
    show_default=True,
    help="What to build for: um is fastest, x86_64 runs under QEMU.",
)
_config = click.option(
    "--config",
    "configs",
    metavar="NAME",
    multiple=True,
    help="Add kunit/configs/NAME.config, such as debug for KASAN and lockdep.",
)
_limit = click.option(
    "--timeout",
    type=click.IntRange(1, 10**6),
    default=KUNIT_LIMIT,
    show_default=True,
    help="Seconds that one boot may take.",
)


@click.command()
@click.argument("base", default=DEFAULT_BASE, shell_complete=bases)
@_arch
@_config
@_limit
@json_lines
def run(base: str, arch: str, configs: tuple[str, ...], timeout: float, as_json: bool) -> int:
    """Test every step of the queue of BASE and print the table of verdicts."""
    # Here and not above: --help and a bad argument need none of it.
    from iommuq.cli.commands.suites import run_matrix
    from iommuq.report.live import events

    with events.json_lines(as_json):
        return run_matrix(base, arches.get(arch), configs, timeout)


@click.command()
@click.argument("base", default=DEFAULT_BASE, shell_complete=bases)
@click.argument("filters", nargs=-1, metavar="[FILTER]...")
@at_patch
@click.option("--again", is_flag=True, help="Run even if nothing changed since the last run.")
@click.option("--coverage", is_flag=True, help="Say which lines and branches were executed.")
@click.option(
    "--coverage-json",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The same, and write the figures to FILE.",
)
@_arch
@_config
@_limit
@json_lines
def kunit(
    base: str,
    filters: tuple[str, ...],
    at: str | None,
    again: bool,
    coverage: bool,
    coverage_json: Path | None,
    arch: str,
    configs: tuple[str, ...],
    timeout: float,
    as_json: bool,
) -> int:
    """Run the KUnit suites on BASE with its queue applied.

    FILTER is a suite or suite.case, with * and ?.
    """
    from iommuq.cli.commands.suites import run_coverage, run_suites
    from iommuq.report.live import events

    with events.json_lines(as_json):
        if coverage or coverage_json is not None:
            return run_coverage(
                base,
                filters,
                at=at,
                arch=arches.get(arch),
                configs=configs,
                limit=timeout,
                json_path=coverage_json,
            )
        return run_suites(
            base,
            filters,
            at=at,
            arch=arches.get(arch),
            configs=configs,
            limit=timeout,
            again=again,
        )


@click.command()
@click.argument("base", default=DEFAULT_BASE, shell_complete=bases)
@click.argument("suites", nargs=-1, metavar="[SUITE]...")
@at_patch
@click.option(
    "--on", type=click.Choice(["um", "qemu"]), default="qemu", show_default=True, help="The guest."
)
@click.option("--again", is_flag=True, help="Run even if nothing changed since the last run.")
@click.option("--no-known", is_flag=True, help="Count known failures as failures.")
@json_lines
def selftest(
    base: str,
    suites: tuple[str, ...],
    at: str | None,
    on: str,
    again: bool,
    no_known: bool,
    as_json: bool,
) -> int:
    """Run the userspace suites on BASE with its queue applied.

    SUITE is one of selftests/suites.toml.
    """
    from iommuq.cli.commands.suites import run_selftests
    from iommuq.report.live import events

    with events.json_lines(as_json):
        return run_selftests(base, suites, at=at, on=on, again=again, all_fail=no_known)
