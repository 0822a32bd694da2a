# SPDX-License-Identifier: GPL-2.0-only
"""The command ``iommudrivers``, also ``iommuq drivers``."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import click


@click.command()
@click.argument("bases", nargs=-1, metavar="[BASE]...")
@click.option("--at", metavar="PATCH", help="With the queue up to this patch; by default none.")
@click.option(
    "--into",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the page here, such as docs/generated/drivers.md, and print nothing.",
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="Write all that is known here; - is standard output.",
)
@click.option(
    "--goals",
    is_flag=True,
    help="Show which of the four goals of 2023 each driver of BASE meets, with its queue and "
    "without; the page is docs/generated/goals.md.",
)
def drivers(
    bases: tuple[str, ...], at: str | None, into: Path | None, json_file: Path | None, goals: bool
) -> None:
    """Show what each IOMMU driver of BASE supports, from its source; by default of all bases.

    Prints its domains for identity, blocking and release, whether and how attaching them
    can fail, and the reserved regions that it reports.
    """
    from iommudrivers.command import run_drivers, run_goals
    from iommuq.system.errors import UserError

    if goals:
        if len(bases) != 1 or at is not None or json_file is not None:
            raise UserError("--goals needs exactly one base, and neither --at nor --json")
        run_goals(bases[0], into)
        return
    run_drivers(bases, at, into, json_file)


def main() -> NoReturn:
    """Run ``iommudrivers``."""
    from iommuq.cli.main import run

    run(drivers, "iommudrivers", "_IOMMUDRIVERS_COMPLETE")
