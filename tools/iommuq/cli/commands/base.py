# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq base``."""

from __future__ import annotations

from collections.abc import Mapping

import click

from iommuq.bases import basefile, sources
from iommuq.system import progress


@click.group()
def base() -> None:
    """The kernels that there are queues for."""


@base.command("list")
def list_() -> None:
    """List the bases, and which of them are in the cache."""

    list_bases()


@base.command()
@click.argument("name")
@click.option("--update", is_flag=True, help="Fetch again even if it is in the cache.")
@click.option("--record", is_flag=True, help="Write what was fetched into base.toml.")
def fetch(name: str, update: bool, record: bool) -> None:
    """Fetch the source of base NAME into the cache."""

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

    add_base(name, provider, where, {"ref": ref, "suite": suite}, title)


#: The key of the source's place in ``base.toml``, by provider.
_PLACE = {"debian": "package", "git": "url", "tarball": "url", "directory": "path"}


def list_bases() -> None:
    """Print the bases, one a line."""
    for spec in basefile.list_specs():
        here = "in the cache" if sources.is_cached(spec) else "not fetched"
        version = spec.seen.version if spec.seen else "never seen"
        print(f"{spec.name:<8} {spec.title}; {spec.source.label}, {version}; {here}")


def fetch_base(name: str, *, update: bool, record: bool) -> None:
    """Fetch a base and print what it is.

    :param update: get it again, and the newest there is.
    :param record: write what was found into its ``base.toml``.
    """
    spec = basefile.load_spec(name)
    base, notes = sources.fetch(spec, update=update)
    for line in notes:
        progress.note(line)
    if record:
        sources.record_seen(spec, base)
    print(f"{name}: Linux {base.kernel}, {base.version}, commit {base.commit}")


def add_base(
    name: str, provider: str, where: str, options: Mapping[str, str | None], title: str
) -> None:
    """Make the folder of a new base and print its file.

    :param where: the source's place, whatever the provider calls it.
    :param options: further keys; None for those that were not given.
    """
    source = {"provider": provider, _PLACE[provider]: where}
    source |= {key: value for key, value in options.items() if value is not None}
    print(basefile.add(name, source, title=title))
