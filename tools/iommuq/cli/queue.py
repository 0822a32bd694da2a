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
