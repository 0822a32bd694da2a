# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq mail review``."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import click

from iommuq.cli import options
from iommuq.defaults import DEFAULT_BASE
from iommuq.mail.review import draft
from iommuq.mail.review import review as reviews
from iommuq.mail.review.model import Reviewed, exit_code
from iommuq.mail.review.review import Wish
from iommuq.system import progress
from iommuq.system.progress import count, duration, one_line


@click.command()
@click.argument("what", metavar="MSGID|MBOX")
@click.option("--base", default=DEFAULT_BASE, show_default=True, help="The kernel to apply it to.")
@click.option(
    "--at", metavar="STEP", help="Apply it after this step of the queue: base, baseline, a patch."
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
@click.option("--offline", is_flag=True, help="Use no server, not even for keys of signatures.")
@click.option(
    "--suite", "suites", multiple=True, default=("kunit",), help="Run this: kunit, selftest."
)
@click.option(
    "--checks",
    type=click.Choice(["quick", "all", "none"]),
    default="quick",
    show_default=True,
    help="all: also those that build.",
)
@click.option(
    "--limit",
    "seconds",
    type=click.IntRange(1, 10**6),
    metavar="SECONDS",
    help="Time limit of all builds and runs.",
)
@click.option("--output", type=options.folder, help="Write the drafts into this new directory.")
@click.option(
    "--trust", is_flag=True, help="Build and run it with your own rights, without a sandbox."
)
def review(output: Path | None, **wish: Any) -> int:
    """Test a posted series, and draft a reply.  Nothing is sent.

    The series is named by a Message-ID, its address in an archive, or a file.
    It is applied to a kernel and tested before and after each patch; code of the series
    runs in a sandbox.
    """
    if output is not None:
        draft.check_target(output)
    # The other options have the names of its fields.
    with reviews.review(Wish(**wish)) as found:
        folder = output or _free(Path(draft.default_name(found.posted.title)))
        drafts = draft.compose(found)
        for line in _lines(found):
            text = line.lstrip(" ")
            print(" " * (len(line) - len(text)) + one_line(text))
        for path, each in zip(draft.write(drafts, folder), drafts, strict=True):
            print(f"{path}: reply to {one_line(each.subject)}")
        sys.stdout.flush()
        if found.logs is not None:
            progress.note(f"logs: {found.logs}")
    return exit_code(found)


def _free(folder: Path) -> Path:
    """Return a directory that does not exist: drafts are never overwritten."""
    names = itertools.chain([folder.name], (f"{folder.name}-{n}" for n in itertools.count(2)))
    return next(path for path in map(folder.with_name, names) if not path.exists())


def _lines(found: Reviewed) -> list[str]:
    posted = found.posted
    total = len(posted.patches)
    patches = count(total, "patch", "patches")
    lines = [f"{posted.title}: v{posted.revision}, {patches}, {posted.messages} mails"]
    for message in (*([posted.cover] if posted.cover else []), *posted.patches):
        lines.append(f"  {message.subject}: {message.signature}")
        lines += [f"    {remark}" for remark in message.remarks]
    lines += [f"b4: {note}" for note in posted.notes]
    place = found.place
    lines.append(f"applied to {place.title}")
    if place.wanted and not place.met:
        lines.append(f"its base-commit {place.wanted[:12]} is not available")
    if found.refusal is not None:
        lines.append(f"{found.refusal[0]}/{total} does not apply: {found.refusal[1]}")
        return lines
    assert found.answer is not None
    names = found.names
    for ran in found.answer.outcomes:
        if ran.failure is not None:
            lines.append(f"{names.get(ran.label, ran.label)} does not build: {ran.failure}")
        lines += [f"{names.get(ran.label, ran.label)} adds a warning: {w}" for w in ran.warnings]
    for change in found.changes:
        what = f"fixes {len(change.fixed)}, breaks {len(change.broke)} of {change.lane}"
        lines.append(f"{names[change.label]} {what}")
    remarks = sum(
        1 for report in found.answer.reports for each in report.findings if each.status != "skip"
    )
    where = "without a sandbox" if found.trusted else "in the sandbox"
    lines.append(f"{remarks} remarks of the checks; {duration(found.seconds)} {where}")
    return lines
