# SPDX-License-Identifier: GPL-2.0-only
"""Make the work trees that a queue is edited in."""

from __future__ import annotations

from pathlib import Path

from iommuq import edittree
from iommuq.bases import Base
from iommuq.edittree import EditTree, Note
from iommuq.errors import UserError
from iommuq.git import git
from iommuq.patchqueue import Queue
from iommuq.queuewrite import sums
from iommuq.worktree import apply_to_repo


def edit(base: Base, queue: Queue, into: Path | None = None) -> EditTree:
    """Make a work tree whose commits are the patches of a queue.

    :param into: where; the usual place if None.
    :raises UserError: there is something in that place.
    :raises VerdictError: a patch does not apply.
    """
    where = into or edittree.default_place(queue.base)
    if into is None and where.exists() and any(where.iterdir()):
        raise UserError(
            f"{where}: there is a work tree of {queue.base} already",
            hint="go on there, remove it, or give another place with --into",
        )
    apply_to_repo(base, queue, where)
    return attach(base, queue, where)


def attach(base: Base, queue: Queue, where: Path) -> EditTree:
    """Note in a repository with a queue's commits, one a patch, what they are.

    :param where: its work tree.
    """
    git_dir = where / ".git"
    words = ("rev-list", "--reverse", f"{base.commit}..HEAD")
    commits = git(*words, git_dir=git_dir, cwd=where).output.split()
    names = [patch.name for patch in queue.patches]
    patches = dict(zip(names, commits, strict=True))
    note = Note(queue.base, base.commit, base.version, patches, sums(queue))
    return edittree.mark(where, note)
