# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq mail review``."""

from __future__ import annotations

from pathlib import Path

import click

from iommuq.defaults import DEFAULT_BASE


@click.command()
@click.argument("what", metavar="MSGID|MBOX")
@click.option("--base", default=DEFAULT_BASE, show_default=True, help="The kernel to try it on.")
@click.option(
    "--at",
    metavar="STEP",
    help="Apply it after this step of the base's queue: base, baseline, a patch.",
)
@click.option("-v", "--version", type=click.IntRange(1), help="This version of the series.")
@click.option(
    "-c",
    "--config",
    "config",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of b4, such as b4.midmask=https://lore.kernel.org/all/%s.",
)
@click.option("--offline", is_flag=True, help="Ask no server, not even for keys of signatures.")
@click.option(
    "--suite", "suites", multiple=True, default=("kunit",), help="Run this: kunit, selftest."
)
@click.option(
    "--checks",
    type=click.Choice(["quick", "all", "none"]),
    default="quick",
    show_default=True,
    help="all: those that build, too.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 10**6),
    metavar="SECONDS",
    help="For all that it builds and runs.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the drafts into this new directory.",
)
@click.option(
    "--trust", is_flag=True, help="Build and run it with your own rights, without a sandbox."
)
def review(
    what: str,
    base: str,
    at: str | None,
    version: int | None,
    config: tuple[str, ...],
    offline: bool,
    suites: tuple[str, ...],
    checks: str,
    limit: int | None,
    output: Path | None,
    trust: bool,
) -> int:
    """Try a series that somebody posted, and draft a reply.  Nothing is sent.

    The series is found by a Message-ID, or its address in an archive, or it is in a file.
    It is applied to a kernel and tested before and after each patch; all that runs code
    of the series is in a sandbox.
    """
    # Here and not above: --help and a bad argument need none of it.
    from iommuq.cli.commands.review import review_series
    from iommuq.mail.review.review import Wish

    wish = Wish(
        what,
        base,
        at=at,
        version=version,
        config=config,
        offline=offline,
        suites=suites,
        checks=checks,
        seconds=limit,
        trust=trust,
    )
    return review_series(wish, output)
