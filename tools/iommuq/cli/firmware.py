# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq firmware``."""

from __future__ import annotations

from pathlib import Path

import click

from iommuq.cli.firmware_table import table
from iommuq.cli.options import at_patch, json_lines


class _RunByDefault(click.Group):
    """A group whose first word may be left out: then it is ``run``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``run`` in front of what is none of the commands."""
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help")):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_RunByDefault)
def firmware() -> None:
    """Boot kernels on machines whose firmware claims memory for devices.

    Without a command: `iommuq firmware [BASE] [SCENARIO]...` runs scenarios; see
    `iommuq firmware run --help` for its options.
    """


@firmware.command()
@click.argument("words", nargs=-1, metavar="[BASE] [SCENARIO]...")
@at_patch
@click.option(
    "--kernel",
    metavar="IMAGE|PACKAGE",
    help="Not a base but this kernel: a bzImage, a .deb, or a Debian package by name.",
)
@click.option("--machine", "on", metavar="NAME", multiple=True, help="Only on this machine.")
@click.option("--again", is_flag=True, help="Run even if nothing changed since the last run.")
@click.option("--no-known", is_flag=True, help="Count known failures as failures.")
@click.option("--full", is_flag=True, help="Print every check, also where all is well.")
@json_lines
def run(
    words: tuple[str, ...],
    at: str | None,
    kernel: str | None,
    on: tuple[str, ...],
    again: bool,
    no_known: bool,
    full: bool,
    as_json: bool,
) -> int:
    """Run firmware scenarios on BASE with its queue, or on another kernel.

    SCENARIO is one of those that `iommuq firmware list` prints.
    """
    from iommuq.cli.commands.firmware import run_firmware
    from iommuq.report.live import events

    with events.json_lines(as_json):
        return run_firmware(
            words, at=at, kernel=kernel, on=on, again=again, all_fail=no_known, full=full
        )


@firmware.command("list")
def list_() -> None:
    """Tell each scenario in a line."""
    from iommuq.cli.commands.firmware import list_scenarios

    list_scenarios()


@firmware.command()
@click.option("--stored", is_flag=True, help="Build and run nothing: the rest stays open.")
@click.option(
    "--into",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write here, and not docs/generated/exposure.md.",
)
def exposure(stored: bool, into: Path | None) -> None:
    """Write docs/generated/exposure.md: each scenario on each kernel of selftests/exposure.toml."""
    from iommuq.report.exposure import write_exposure

    write_exposure(into, stored_only=stored)


firmware.add_command(table)
