# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq base``."""

from __future__ import annotations

import click


@click.group()
def base() -> None:
    """The kernels that there are queues for."""


@base.command("list")
def list_() -> None:
    """List the bases, and which of them are in the cache."""
    from iommuq.cli.commands.base import list_bases

    list_bases()


@base.command()
@click.argument("name")
@click.option("--update", is_flag=True, help="Fetch again even if it is in the cache.")
@click.option("--record", is_flag=True, help="Write what was fetched into base.toml.")
def fetch(name: str, update: bool, record: bool) -> None:
    """Fetch the source of base NAME into the cache."""
    from iommuq.cli.commands.base import fetch_base

    fetch_base(name, update=update, record=record)


@base.command()
@click.argument("name")
@click.argument("provider", type=click.Choice(["debian", "git", "tarball", "directory"]))
@click.argument("where")
@click.option("--ref", help="git: the branch, tag or commit.")
@click.option("--suite", help="debian: take it from this suite, not from apt's own sources.")
@click.option("--title", default="", help="What to call it in tables.")
def add(
    name: str, provider: str, where: str, ref: str | None, suite: str | None, title: str
) -> None:
    """Add base NAME with an empty queue.

    WHERE is a source package for debian, a URL or path for git and tarball, a
    path for directory.
    """
    from iommuq.cli.commands.base import add_base

    add_base(name, provider, where, {"ref": ref, "suite": suite}, title)
