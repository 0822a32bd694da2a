# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq queue``."""

from __future__ import annotations

from pathlib import Path

import click

from iommuq.cli.completion import bases
from iommuq.defaults import DEFAULT_BASE


@click.group()
def queue() -> None:
    """The patches, and trees with them applied."""


@queue.command()
@click.argument("base", default=DEFAULT_BASE, shell_complete=bases)
def show(base: str) -> None:
    """List the patches of the queue of BASE."""
    from iommuq.cli.commands.base import show_queue

    show_queue(base)


@queue.command()
@click.argument("base", default=DEFAULT_BASE, shell_complete=bases)
@click.option("--to", metavar="PATCH", help="Stop after this patch.")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Make a git repository here; without it, the patches are only tried.",
)
def apply(base: str, to: str | None, into: Path | None) -> None:
    """Apply the queue of BASE, one commit a patch."""
    from iommuq.cli.commands.base import apply_queue

    apply_queue(base, to, into)


@queue.command()
@click.argument("base", default=DEFAULT_BASE, shell_complete=bases)
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Make it here, not in the usual place.",
)
def edit(base: str, into: Path | None) -> None:
    """Make a work tree whose commits are the queue of BASE, to be changed with git."""
    from iommuq.cli.commands.queue import edit_queue

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
    from iommuq.cli.commands.queue import refresh_queue

    refresh_queue(base, start, section=section, afresh=afresh, force=force)


@queue.command()
@click.argument("base", default=DEFAULT_BASE, shell_complete=bases)
@click.option(
    "--against",
    required=True,
    metavar="NEW",
    help="A base, a directory with a kernel tree, or REPOSITORY@REF of git.",
)
@click.option("--patch", metavar="PATCH", help="Only this patch.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def upstream(base: str, against: str, patch: str | None, as_json: bool) -> None:
    """Say what of the queue of BASE another kernel has already."""
    from iommuq.cli.commands.queue import show_upstream

    show_upstream(base, against, patch, as_json=as_json)


@queue.command()
@click.argument("base", default=DEFAULT_BASE, shell_complete=bases)
@click.option(
    "--onto",
    required=True,
    metavar="NEW",
    help="The base to carry the queue over to, or REPOSITORY@REF of git.",
)
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Make the work tree here, and keep it.",
)
@click.option("--section", metavar="NAME", help="Only the patches of this section.")
@click.option("--baseline", is_flag=True, help="Those that go back in time, too.")
@click.option("--continue", "action", flag_value="continue", help="Take what was mended.")
@click.option("--skip", "action", flag_value="skip", help="Leave out the patch that conflicts.")
@click.option("--abort", "action", flag_value="abort", help="Forget it all.")
def rebase(
    base: str,
    onto: str,
    into: Path | None,
    section: str | None,
    baseline: bool,
    action: str | None,
) -> None:
    """Carry the queue of BASE over to another kernel with three-way merges."""
    from iommuq.cli.commands.queue import rebase_queue

    rebase_queue(base, onto, into, section=section, baseline=baseline, action=action)


@queue.command()
@click.argument("base", default=DEFAULT_BASE, shell_complete=bases)
@click.option("--patch", metavar="PATCH", help="Only this patch.")
@click.option("--only", "names", multiple=True, metavar="CHECK", help="Only this check.")
@click.option("--quick", is_flag=True, help="None of those that build.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(base: str, patch: str | None, names: tuple[str, ...], quick: bool, as_json: bool) -> int:
    """Check the patches of BASE as reviewers do: message, style, new warnings."""
    from iommuq.cli.commands.queue import check_queue

    return check_queue(base, patch, names, slow=not quick, as_json=as_json)


@queue.command("check-mail")
@click.option(
    "--form",
    type=click.Choice(["json", "lines"]),
    default="json",
    help="json: for b4.review-*-check-cmd; lines: for b4.prep-perpatch-check-cmd.",
)
@click.option("--only", "names", multiple=True, metavar="CHECK", help="Only this check.")
def check_mail_(form: str, names: tuple[str, ...]) -> int:
    """Check the patch mail on standard input, for b4."""
    from iommuq.cli.commands.queue import check_mail

    return check_mail(form, names)
