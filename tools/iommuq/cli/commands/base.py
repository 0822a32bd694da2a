# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq base``."""

from __future__ import annotations

from dataclasses import fields

import click

from iommuq.bases import basefile, sources
from iommuq.bases.providers import KINDS
from iommuq.system import progress


@click.group()
def base() -> None:
    """Kernels with a patch queue."""


@base.command("list")
def list_() -> None:
    """List the bases, and whether they are in the cache."""
    for spec in basefile.list_specs():
        here = "in the cache" if sources.is_cached(spec) else "not fetched"
        version = spec.seen.version if spec.seen else "no version"
        print(f"{spec.name:<8} {spec.title}; {spec.source.label}, {version}; {here}")


@base.command()
@click.argument("name")
@click.option("--update", is_flag=True, help="Fetch again even if it is in the cache.")
@click.option("--record", is_flag=True, help="Write the fetched version into base.toml.")
def fetch(name: str, update: bool, record: bool) -> None:
    """Fetch the source of base NAME into the cache."""
    spec = basefile.load_spec(name)
    base, notes = sources.fetch(spec, update=update)
    for line in notes:
        progress.note(line)
    if record:
        sources.record_seen(spec, base)
    print(f"{name}: Linux {base.kernel}, {base.version}, commit {base.commit}")


@base.command()
@click.argument("name")
@click.argument("provider", type=click.Choice(tuple(KINDS)))
@click.argument("where")
@click.option("--ref", help="git: the branch, tag or commit.")
@click.option("--suite", help="debian: use this suite instead of apt's own sources.")
@click.option("--insecure", is_flag=True, help="git, tarball: allow http:// and git://.")
@click.option("--title", default="", help="Its title in tables.")
def add(
    name: str,
    provider: str,
    where: str,
    ref: str | None,
    suite: str | None,
    insecure: bool,
    title: str,
) -> None:
    """Add base NAME with an empty queue.

    WHERE is a source package for debian, a URL or path for git and tarball, a
    path for directory.
    """
    source: dict[str, str | bool] = {"provider": provider, fields(KINDS[provider])[0].name: where}
    options = {"ref": ref, "suite": suite, "insecure": insecure or None}
    source |= {key: value for key, value in options.items() if value is not None}
    print(basefile.add(name, source, title=title))
