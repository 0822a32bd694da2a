# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq mail``."""

from __future__ import annotations

from pathlib import Path

import click

from iommuq.cli.lazy import Entry, LazyGroup

_REVIEW = Entry("review", "iommuq.cli.mail_review", "Try a posted series, and draft a reply.")
_tree = click.option(
    "--from",
    "start",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The work tree; else the current directory.",
)


@click.group(cls=LazyGroup, table=[_REVIEW])
def mail() -> None:
    """Series on mailing lists: prepare, send, collect, compare, review."""


@mail.command()
@click.argument("base")
@click.argument("series")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Make a work tree here; else that of `iommuq queue edit`.",
)
def prep(base: str, series: str, into: Path | None) -> None:
    """Make a branch for b4 of SERIES of the queue of BASE, or bring it up to date."""
    from iommuq.cli.commands.mail import prepare_branch

    prepare_branch(base, series, into)


@mail.command()
@_tree
def check(start: Path | None) -> int:
    """Say whether the series may be sent: checks, sign-offs, recipients, proof."""
    from iommuq.cli.commands.mail import check_branch

    return check_branch(start)


@mail.command()
@_tree
@click.option("--yes", is_flag=True, help="Do not ask.")
def sign(start: Path | None, yes: bool) -> None:
    """Add your Signed-off-by to the patches that lack it."""
    from iommuq.cli.commands.mail import sign_branch

    sign_branch(start, sure=yes)


@mail.command()
@_tree
@click.option("--really", is_flag=True, help="Send; without it nothing leaves.")
@click.option("--dry-run", is_flag=True, help="Print what would be sent: the default.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the messages into this directory.",
)
@click.option("--preview-to", metavar="ADDR", default="", help="Only to this address.")
@click.option("--no-sign", is_flag=True, help="Without a cryptographic signature.")
@click.option("--without", multiple=True, metavar="ADDR", help="Give up one who was refused.")
def send(
    start: Path | None,
    really: bool,
    dry_run: bool,
    output: Path | None,
    preview_to: str,
    no_sign: bool,
    without: tuple[str, ...],
) -> int:
    """Send the series, or what is left of one that was stopped half-way."""
    from iommuq.cli.commands.mail import send_branch

    if really and dry_run:
        raise click.UsageError("--really and --dry-run exclude each other")
    return send_branch(
        start, really=really, output=output, preview=preview_to, plain=no_sign, without=without
    )


@mail.command()
@_tree
@click.option(
    "--mbox",
    type=click.Path(path_type=Path, exists=True),
    help="Read this file or Maildir, not the archive.",
)
@click.option("--look", is_flag=True, help="Change nothing.")
def trailers(start: Path | None, mbox: Path | None, look: bool) -> int:
    """Collect Reviewed-by and the like from the thread into the queue's patches."""
    from iommuq.cli.commands.mail import collect_trailers

    return collect_trailers(start, mbox, look=look)


@mail.command()
@_tree
@click.argument("old", default="", metavar="[vN]")
@click.argument("new", default="", metavar="[vM]")
@click.option(
    "--html", "page", type=click.Path(path_type=Path, dir_okay=False), help="Write a page, too."
)
def diff(start: Path | None, old: str, new: str, page: Path | None) -> None:
    """Show what changed between versions, or since the last that was sent."""
    from iommuq.cli.commands.mail import show_difference

    show_difference(start, old, new, page)
