# SPDX-License-Identifier: GPL-2.0-only
"""What the commands print that change a queue, compare it and check it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from iommuq import basefile, bases, edittree, progress
from iommuq.objects import Store
from iommuq.patchqueue import find_step, load_queue
from iommuq.workspace import DEFAULT_BASE

if TYPE_CHECKING:
    from iommuq.targets import Target

#: Sources in no commit that are named before the rest is only counted.
_STRAYS = 3


def edit_queue(name: str, into: Path | None) -> None:
    """Make a work tree of a queue and print where it is.

    :param into: where; the usual place if None.
    """
    from iommuq.edit import edit

    spec = basefile.load_spec(name)
    queue = load_queue(spec.folder, name)
    tree = edit(bases.open_base(spec), queue, into)
    print(f"{tree.folder}: branch iommuq/{name}, {len(queue.patches)} commits from iommuq-base on")


def refresh_queue(
    name: str | None, start: Path | None, *, section: str | None, afresh: bool, force: bool
) -> None:
    """Write the commits of a work tree back and print what became of each patch.

    :param name: the base; None for that of the tree.
    :param start: the tree; None for the current directory, or else the latest.
    """
    from iommuq.refresh import refresh

    try:
        tree = edittree.find(name, start)
    except edittree.NoTree:
        if name or start:
            raise
        tree = edittree.find(DEFAULT_BASE, None)
    spec = basefile.load_spec(tree.note.base)
    strays = tree.strays()
    if strays:
        more = f" and {len(strays) - _STRAYS} more" if len(strays) > _STRAYS else ""
        names = ", ".join(strays[:_STRAYS])
        progress.note(f"{tree.folder}: in no commit: {names}{more} (git add -f)")
    base = bases.cached(spec)
    if base is not None and base.commit != tree.note.commit:
        progress.note(
            f"{tree.folder} is of {tree.note.version}, the base is {base.version} by now:"
            " `iommuq queue rebase` takes the patches there"
        )
    done, _ = refresh(tree, spec.folder, section=section, afresh=afresh, force=force)
    for entry in done.entries:
        was = f" (was {entry.old})" if entry.old not in (None, entry.name) else ""
        print(f"{entry.action:<10} {progress.one_line(entry.name)}{was}")
    for gone in done.dropped:
        print(f"{'dropped':<10} {progress.one_line(gone)}")
    print(f"{spec.folder}: {'written' if done.changed else 'nothing to write'}")


def show_upstream(name: str, against: str, only: str | None, *, as_json: bool) -> None:
    """Print what of a queue another tree has already.

    :param against: a base, or a directory with unpacked sources.
    :param only: the patch to look for; all that are sent if None.
    """
    from iommuq.report import upstream as report
    from iommuq.upstream import judge_queue

    spec = basefile.load_spec(name)
    queue = load_queue(spec.folder, name)
    patches = None
    if only is not None:
        label = find_step(queue, only)
        patches = [patch for patch in queue.sent if patch.label == label]
    with open_target(against) as (target, title):
        verdicts = judge_queue(bases.open_base(spec), queue, target, patches)
    print(report.as_json(verdicts, title) if as_json else report.as_text(verdicts, title))


@contextlib.contextmanager
def open_target(against: str) -> Iterator[tuple[Target, str]]:
    """Open what a queue is to be compared with.

    :param against: a base, or a directory with unpacked sources.
    :return: the tree, and what to call it.
    :raises UserError: it is neither.
    """
    from iommuq.targets import FolderTarget, TreeTarget

    path = Path(against)
    if "/" in against or path.is_dir():
        yield FolderTarget(path), str(path)
        return
    other = bases.open_base(basefile.load_spec(against))
    with tempfile.TemporaryDirectory(prefix="iommuq-target-") as folder:
        yield TreeTarget(Store(other.git_dir, Path(folder)), other.commit), f"Linux {other.kernel}"
