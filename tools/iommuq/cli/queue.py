# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq queue``."""

from __future__ import annotations

from pathlib import Path

import click

from iommuq.workspace import DEFAULT_BASE


@click.group()
def queue() -> None:
    """The patches, and trees with them applied."""


@queue.command()
@click.argument("base", default=DEFAULT_BASE)
def show(base: str) -> None:
    """List the patches of the queue of BASE."""
    from iommuq.listings import show_queue

    show_queue(base)


@queue.command()
@click.argument("base", default=DEFAULT_BASE)
@click.option("--to", metavar="PATCH", help="Stop after this patch.")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Make a git repository here; without it, the patches are only tried.",
)
def apply(base: str, to: str | None, into: Path | None) -> None:
    """Apply the queue of BASE, one commit a patch."""
    from iommuq.listings import apply_queue

    apply_queue(base, to, into)


@queue.command()
@click.argument("base", default=DEFAULT_BASE)
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Make it here, not in the usual place.",
)
def edit(base: str, into: Path | None) -> None:
    """Make a work tree whose commits are the queue of BASE, to be changed with git."""
    from iommuq.queuecommands import edit_queue

    edit_queue(base, into)


@queue.command()
@click.argument("base", required=False)
@click.option(
    "--from",
    "start",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The work tree; else the current directory, or the one made last.",
)
@click.option("--section", metavar="NAME", help="Where new patches go, if not where they stand.")
@click.option("--afresh", is_flag=True, help="Write every patch anew, even if it is unchanged.")
@click.option("--force", is_flag=True, help="Write over patches that somebody else has changed.")
def refresh(
    base: str | None, start: Path | None, section: str | None, afresh: bool, force: bool
) -> None:
    """Write the commits of a work tree back as the queue of BASE."""
    from iommuq.queuecommands import refresh_queue

    refresh_queue(base, start, section=section, afresh=afresh, force=force)


@queue.command()
@click.argument("base", default=DEFAULT_BASE)
@click.option(
    "--against", required=True, metavar="NEW", help="A base, or a directory with a kernel tree."
)
@click.option("--patch", metavar="PATCH", help="Only this patch.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def upstream(base: str, against: str, patch: str | None, as_json: bool) -> None:
    """Say what of the queue of BASE another kernel has already."""
    from iommuq.queuecommands import show_upstream

    show_upstream(base, against, patch, as_json=as_json)
