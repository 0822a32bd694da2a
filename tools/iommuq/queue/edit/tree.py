# SPDX-License-Identifier: GPL-2.0-only
"""Work trees whose commits are the patches of a queue, and the note stored in them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from iommuq.bases.sources import Base
from iommuq.queue.checkout import apply_to_repo
from iommuq.queue.model import Queue
from iommuq.queue.write import sums
from iommuq.system import files
from iommuq.system.errors import InfraError, UserError
from iommuq.system.git.command import git
from iommuq.system.git.objects import open_repository
from iommuq.system.run import Completed

if TYPE_CHECKING:
    from iommuq.system.git.repository import Repository

#: The note in the repository of a work tree.
_FILE = "iommuq-queue.json"
# Files of git that exist while an operation is unfinished.
_UNDER_WAY = {
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase, or `git am`,",
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "BISECT_LOG": "a bisection",
}
_SOURCES = (".c", ".h", ".S", ".rs", ".rst", ".dts", ".dtsi", ".yaml", ".sh", ".py")


class NoTree(UserError):
    """The directory is not in a work tree of a queue."""


@dataclass(frozen=True)
class Note:
    """What a work tree was made of.

    :ivar base: the name of the base.
    :ivar commit: the commit of its sources.
    :ivar version: of the sources, from the provider.
    :ivar patches: the commit of each patch, in order.
    :ivar sums: the sha256 of each file of the queue at that time, with the series file.
    """

    base: str
    commit: str
    version: str
    patches: dict[str, str] = field(default_factory=dict)
    sums: dict[str, str] = field(default_factory=dict)

    @property
    def tip(self) -> str:
        """The last of the commits."""
        return list(self.patches.values())[-1] if self.patches else self.commit


@dataclass(frozen=True)
class EditTree:
    """A work tree.

    :ivar git_dir: the git directory of this work tree.
    :ivar common: the git directory that linked work trees share.
    """

    folder: Path
    git_dir: Path
    common: Path
    note: Note

    @cached_property
    def repo(self) -> Repository:
        """The repository as GitPython has it."""
        return open_repository(self.git_dir)

    def git(self, *words: str | Path) -> Completed:
        """Run git in it, without optional locks, as the user may work there."""
        env = {"GIT_OPTIONAL_LOCKS": "0"}
        return git(*words, git_dir=self.git_dir, cwd=self.folder, env=env)

    def head(self) -> str:
        """Return the commit that is checked out.

        :raises UserError: an operation is unfinished, changes are not committed, or later
            commits of the branch would be lost.
        """
        for name, what in _UNDER_WAY.items():
            if (self.git_dir / name).exists():
                raise UserError(f"{self.folder}: {what} is not finished", hint="finish it first")
        words = ("status", "--porcelain=v1", "-z", "--untracked-files=no", "--no-renames")
        changed = [entry[3:] for entry in self.git(*words).output.split("\0") if entry]
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise UserError(
                f"{self.folder}: {changed[0]}{more} changed and not committed",
                hint="commit it to the patch that it belongs to, or restore it",
            )
        here = self.repo.find("HEAD")
        form = "--format=%(objectname) %(refname:short)"
        found = self.git("for-each-ref", "--contains=HEAD", form, "refs/heads").output.splitlines()
        later = [name for at, name in (line.split(" ", 1) for line in found) if at != here]
        if found and len(later) == len(found):
            raise UserError(
                f"{self.folder}: a commit before the last of {later[0]} is checked out",
                hint=f"`git switch {later[0]}`",
            )
        return here

    def strays(self) -> list[str]:
        """Return sources that are in no commit; Debian's .gitignore hides them from git."""
        if (self.folder / ".config").exists():
            return []  # A build in the tree generates sources.
        names = self.git("ls-files", "-z", "--others").output.split("\0")
        return [
            name
            for name in names
            if name.endswith(_SOURCES)
            or name.rpartition("/")[2].startswith(("Kconfig", "Makefile"))
        ]

    def write(self, note: Note) -> EditTree:
        """Replace its note."""
        files.write_json(self.common / _FILE, asdict(note))
        return EditTree(self.folder, self.git_dir, self.common, note)


def mark(folder: Path, note: Note) -> EditTree:
    """Make a repository with a queue's commits the latest edit tree of its base."""
    git_dir = folder.absolute() / ".git"
    tree = EditTree(folder.absolute(), git_dir, git_dir, note).write(note)
    files.write_json(_latest(note.base), {"folder": str(folder.absolute())})
    return tree


def default_place(base: str) -> Path:
    """Return the default directory for the edit tree of a base."""
    return files.state_dir() / "edit" / base


def find(base: str | None, start: Path | None) -> EditTree:
    """Return an edit tree.

    :param base: of this base; None for any.
    :param start: a directory in it; None for the current one, or else the latest of *base*.
    :raises NoTree: there is none.
    """
    here = start or Path.cwd()
    tree = _open(here)
    if start is None and base is not None and (tree is None or tree.note.base != base):
        try:
            here = Path(json.loads(_latest(base).read_text(encoding="utf-8"))["folder"])
            tree = _open(here)
        except (OSError, ValueError, KeyError, TypeError):
            tree = None
    if tree is None:
        raise NoTree(
            f"{here}: not a work tree of a queue"
            if start or base is None
            else f"there is no work tree of the queue of {base}",
            hint=f"`iommuq queue edit {base or 'BASE'}` makes one",
        )
    if base is not None and tree.note.base != base:
        raise UserError(f"{tree.folder} is the queue of {tree.note.base}, not of {base}")
    return tree


def _latest(base: str) -> Path:
    return files.state_dir() / "edit" / f"{base}.json"


def _open(start: Path) -> EditTree | None:
    """Return the edit tree that a directory is in."""
    start = start.absolute()
    for folder in (start, *start.parents):
        git_dir = folder / ".git"
        if not git_dir.exists():
            continue
        common = git_dir
        try:
            if git_dir.is_file():  # a linked work tree
                text = git_dir.read_text(encoding="utf-8")
                git_dir = (folder / text.removeprefix("gitdir:").strip()).resolve()
                common = (git_dir / (git_dir / "commondir").read_text().strip()).resolve()
            data = json.loads((common / _FILE).read_text(encoding="utf-8"))
            note = Note(**data)
            if not all(isinstance(each, dict) for each in (note.patches, note.sums)):
                raise TypeError
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InfraError(f"{common / _FILE}: {error.strerror}") from error
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{common / _FILE}: damaged", hint="save your commits with `git format-patch`"
            ) from error
        return EditTree(folder, git_dir, common, note)
    return None


def edit(base: Base, queue: Queue, into: Path | None = None) -> EditTree:
    """Make a work tree whose commits are the patches of a queue.

    :param into: its directory; `default_place` if None.
    :raises UserError: the directory is not empty.
    :raises VerdictError: a patch does not apply.
    """
    where = into or default_place(queue.base)
    if into is None and where.exists() and any(where.iterdir()):
        raise UserError(
            f"{where}: there is a work tree of {queue.base} already",
            hint="use it, remove it, or give another directory with --into",
        )
    apply_to_repo(base, queue, where)
    return attach(base, queue, where)


def attach(base: Base, queue: Queue, where: Path) -> EditTree:
    """Make a repository with one commit a patch an edit tree; *where* is its work tree."""
    commits = open_repository(where / ".git").line(base.commit, "HEAD")
    names = [patch.name for patch in queue.patches]
    patches = {name: commit.id for name, commit in zip(names, commits, strict=True)}
    note = Note(queue.base, base.commit, base.version, patches, sums(queue))
    return mark(where, note)
