# SPDX-License-Identifier: GPL-2.0-only
"""Write trees to disk: build directories, and git repositories for the user.

In a build directory only the files that differ are rewritten: make compares times.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from iommuq.queue.model import Queue
from iommuq.queue.steps import Step, make_steps
from iommuq.system.errors import CommandFailed, InfraError, UserError
from iommuq.system.git.command import git
from iommuq.system.git.objects import lost_or
from iommuq.system.run import Completed

if TYPE_CHECKING:
    from iommuq.bases.sources import Base

#: Seconds.  A whole kernel takes 15 on an idle disk.
_LIMIT = 1800.0


def checkout(base: Base, tree: str, where: Path) -> None:
    """Make the directory *where* hold exactly the files of *tree*.

    Unchanged files keep their times, files changed by hand are restored, untracked files
    stay.  After a killed call or with a damaged index, all files are compared by content
    and untracked files are removed.  The caller must lock *where*, ``<where>.index`` and
    ``<where>.busy``.

    :param tree: the id of a tree, or of a commit.
    :raises ObjectsLost: the repository lost the tree; its steps must be made again.
    :raises DiskFull: the disk is full; the next call starts over.
    """
    place = _BuildTree(base.git_dir, where)
    place.prepare()
    # The index is valid if the last call finished.
    if not place.busy.exists():
        try:
            place.switch(tree)
            return
        except CommandFailed:
            pass  # Probably a damaged index.  Otherwise recover() fails in the same way.
    place.recover(tree)


class _BuildTree:
    """A build directory, its index, and the file that marks an unfinished call."""

    def __init__(self, git_dir: Path, where: Path) -> None:
        self._git_dir = git_dir
        self._where = where
        self._index = where.with_name(f"{where.name}.index")
        self.busy = where.with_name(f"{where.name}.busy")

    def prepare(self) -> None:
        """Make the directory, or check that iommuq made it."""
        try:
            if not (self._index.exists() or self.busy.exists()):
                self._where.mkdir(parents=True, exist_ok=True)
                if any(self._where.iterdir()):
                    raise UserError(f"{self._where}: not empty, and not made by iommuq")
            self._where.mkdir(exist_ok=True)
            # The caller holds the lock, so the process that left this is dead.
            self._index.with_name(f"{self._index.name}.lock").unlink(missing_ok=True)
        except OSError as error:
            raise InfraError(f"{self._where}: {error.strerror}") from error

    def switch(self, tree: str) -> None:
        """Go from the tree that the index holds to another."""
        self.busy.touch()
        # --reset also restores files that changed on disk.
        self._git("read-tree", "--reset", "-u", tree)
        self.busy.unlink()

    def recover(self, tree: str) -> None:
        """Go to a tree from an unknown state, by content."""
        self.busy.touch()
        self._index.unlink(missing_ok=True)
        self._git("read-tree", tree)
        # Fails if files differ; switch() rewrites those.
        self._git("update-index", "-q", "--refresh", check=False)
        self.switch(tree)
        self._git("clean", "-ffdxq")

    def _git(self, *words: str, check: bool = True) -> Completed:
        try:
            return git(
                *words,
                git_dir=self._git_dir,
                cwd=self._where,
                index=self._index,
                work_tree=self._where,
                check=check,
                timeout=_LIMIT,
                watched=True,
            )
        except CommandFailed as error:
            raise lost_or(error, self._git_dir, *words) from error


def apply_to_repo(base: Base, queue: Queue, into: Path, *, to: str | None = None) -> list[Step]:
    """Make a git repository with the queue applied, one commit a patch, on ``iommuq/<base>``.

    It does not depend on the cache.  The tag ``iommuq-base`` is the start of the branch.
    On an error everything is removed again.

    :param into: a directory that does not exist, or is empty.
    :param to: the step to stop after, as `find_step` understands it; all if None.
    :return: the steps, without overlay.
    :raises UserError: *into* is not empty, or there is no step *to*.
    :raises VerdictError: a patch does not apply.
    """
    into = into.absolute()
    there = into.exists()
    if there and (not into.is_dir() or any(into.iterdir())):
        raise UserError(f"{into}: not an empty directory", hint="give one with --into")
    steps = make_steps(base, queue, None, to=to)
    try:
        join_repo(into, f"iommuq/{base.spec.name}", base, [], steps[-1].commit)
        _inside(into, "reset", "--quiet", "--hard")
    except BaseException as error:
        shutil.rmtree(into, ignore_errors=True)
        if there:
            into.mkdir()
        if isinstance(error, OSError):
            raise InfraError(f"{into}: {error.strerror}") from error
        raise
    return steps


def _link_or_copy(source: str, target: str) -> None:
    # An object of this name has the same content.
    if not Path(target).exists():
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)


def join_repo(
    into: Path, branch: str, base: Base, others: Sequence[Base], commit: str | None = None
) -> None:
    """Make a repository with the objects of bases, and an empty work tree.

    :param branch: its branch, which starts at the tag ``iommuq-base``.
    :param base: the base that it starts from.
    :param others: further bases whose objects are copied.
    :param commit: the tip of the branch; the base if None.
    :raises InfraError: the disk is full, or not writable.
    """
    git_dir = into / ".git"
    try:
        into.mkdir(parents=True, exist_ok=True)
        _inside(into, "init", "--quiet", into)
        shallow: set[str] = set()
        for each in dict.fromkeys(one.git_dir for one in (base, *others)):
            # Like `git clone --local`; a fetch would pack the objects again.
            shutil.copytree(
                each / "objects",
                git_dir / "objects",
                copy_function=_link_or_copy,
                dirs_exist_ok=True,
            )
            with contextlib.suppress(FileNotFoundError):
                # The base may have been fetched without its history.
                shallow |= set((each / "shallow").read_text(encoding="ascii").splitlines(True))
        if shallow:
            (git_dir / "shallow").write_text("".join(sorted(shallow)), encoding="ascii")
    except OSError as error:
        raise InfraError(f"{into}: {error.strerror or error}") from error
    start = commit or base.commit
    refs = f"create refs/heads/{branch} {start}\ncreate refs/tags/iommuq-base {base.commit}\n"
    _inside(into, "update-ref", "--stdin", stdin=refs)
    _inside(into, "symbolic-ref", "HEAD", f"refs/heads/{branch}")


def _inside(into: Path, *words: str | Path, stdin: str | None = None) -> Completed:
    git_dir = into / ".git"
    return git(
        *words,
        git_dir=git_dir,
        cwd=into,
        index=git_dir / "index",
        stdin=stdin,
        timeout=_LIMIT,
        watched=True,
    )
