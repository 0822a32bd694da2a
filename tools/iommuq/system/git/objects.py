# SPDX-License-Identifier: GPL-2.0-only
"""Make blobs, trees and commits in a bare repository; no branch and no work tree changes."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from iommuq.system.errors import CommandFailed, InfraError, ObjectsLost, UserError
from iommuq.system.git.command import QUICK, git, pinned
from iommuq.system.run import Completed, exceeded, failure
from iommuq.system.sandbox.reader import read
from iommuq.system.tables import own_table

if TYPE_CHECKING:
    from iommuq.system.git.repository import Entries, Repository

_ID = re.compile(r"\b[0-9a-f]{40}\b")
_OLD_FILE = re.compile(rb"^--- a/([^\t\n]+)", re.MULTILINE)


_opening = threading.Lock()
_opened: WeakValueDictionary[Path, Repository] = WeakValueDictionary()


class Objects:
    """The objects of a repository, and an index of its own.

    :param git_dir: the bare repository.
    :param folder: a directory for temporary files, and for the index.
    :param boxed: apply diffs in a sandbox.
    """

    def __init__(self, git_dir: Path, folder: Path, *, boxed: bool = False) -> None:
        self.git_dir = git_dir
        self.folder = folder
        self._boxed = boxed
        self._loaded = ""  # the tree that was read into the index

    @cached_property
    def repo(self) -> Repository:
        """The repository as GitPython has it."""
        return open_repository(self.git_dir)

    def git(
        self,
        *words: str | Path,
        index: Path | None = None,
        stdin: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> Completed:
        """Run git on the repository, in the folder for temporary files.

        :raises ObjectsLost: it failed for want of an object.
        :raises CommandFailed: it failed for another reason, and *check* is set.
        """
        try:
            return git(
                *words,
                git_dir=self.git_dir,
                cwd=self.folder,
                index=index or self.folder / "index",
                stdin=stdin,
                env=env,
                check=check,
            )
        except CommandFailed as error:
            raise lost_or(error, self.git_dir, *words, self._loaded) from error

    def tree_of(self, commit: str) -> str:
        """Return the id of the tree of *commit*."""
        return self.repo.tree_of(commit)

    def has(self, *ids: str) -> bool:
        """Tell whether all the objects *ids* are there."""
        return all(map(self.repo.has, ids))

    def entries(self, tree: str, paths: Sequence[str]) -> dict[str, str]:
        """Look paths up in a tree.

        :param tree: the id of a tree or a commit.
        :param paths: files, or directories with a slash at the end for what is in them; an
            empty one for what is at the top.
        :return: path -> ``<mode> <type> <id>``, of those that exist.
        """
        read = _Folders(self.repo, tree)
        found = {}
        for path in paths:
            folder, _, name = path.rpartition("/")
            wanted = read[folder] if not name else {name: read[folder].get(name, (0, ""))}
            for each, (mode, ident) in wanted.items():
                if mode:
                    kind = {0o04: "tree", 0o16: "commit"}.get(mode >> 12, "blob")
                    full = f"{folder}/{each}" if folder else each
                    found[full] = f"{mode:06o} {kind} {ident}"
        return found

    def read_blob(self, blob: str) -> bytes:
        """Return the content of a blob."""
        return self.repo.content(blob)

    def read_file(self, tree: str, path: str) -> bytes | None:
        """Return the content of a regular file in a tree, None if there is no such file."""
        mode, _, blob = self.entries(tree, [path]).get(path, "0 0 0").split()
        return self.read_blob(blob) if mode.startswith("100") else None

    def write_blobs(self, contents: Sequence[bytes]) -> list[str]:
        """Write blobs.

        :return: their ids, in the same order.
        :raises DiskFull: there is no room for them.
        """
        return [self.repo.write(b"blob", data) for data in contents]

    def replace(self, tree: str, edits: Mapping[str, str]) -> str:
        """Make a tree from another by putting files in, whatever was in their place.

        Only the directories on the way are read and written: on a kernel tree
        this takes a tenth of what an index does.

        :param edits: path -> ``<mode> blob <id>``.
        :return: the id of the new tree.
        """
        from iommuq.system.git.repository import FOLDER

        if not edits:
            return tree
        folders = _Folders(self.repo, tree)
        for path, entry in edits.items():
            mode, _, blob = entry.split()
            folder, _, name = path.rpartition("/")
            folders[folder][name] = (int(mode, 8), blob)
        touched = {str(parent) for path in edits for parent in PurePosixPath(path).parents} - {"."}
        for folder in sorted(touched, key=lambda each: -each.count("/")):
            parent, _, name = folder.rpartition("/")
            folders[parent][name] = (FOLDER, self.repo.write_entries(folders[folder]))
        return self.repo.write_entries(folders[""])

    def read_tree(self, tree: str) -> None:
        """Fill the private index with a tree."""
        self._loaded = tree
        self.git("read-tree", tree)

    def apply(self, diff: bytes) -> Completed:
        """Apply a diff to the private index; all of it or nothing.

        :return: the finished process, with its exit status unchecked.
        :raises ObjectsLost: a file that it changes is missing or damaged.
        :raises InfraError: git failed, twice, and did not say that the diff does not fit.
        :raises UserError: in a sandbox, the diff takes more than it may.
        """
        for again in (True, False):
            done = self._apply(diff)
            if done.returncode == 0:
                return done
            if self._boxed and (why := exceeded(done)):
                raise UserError(f"git apply: {why}", hint="or the machine is short of memory")
            if self._loaded:
                # git says the same of such a file as of one that the patch does not fit.
                for path in set(_OLD_FILE.findall(diff)):
                    self.read_file(self._loaded, path.decode("utf-8", "surrogateescape"))
            if done.returncode in (1, 128) and _refused().search(done.stderr):
                return done
            if not again:
                break
        raise failure(done)

    def _apply(self, diff: bytes) -> Completed:
        words = ("apply", "--cached", "--whitespace=nowarn", "-p1", "-")
        place, index = self.folder, self.folder / "index"
        if self._boxed:
            return read(
                ["git", *words],
                cwd=place,
                writable=[self.git_dir],
                readable=lenders(self.git_dir),
                env=pinned(self.git_dir, place, index),
                stdin=diff,
                timeout=QUICK,
                check=False,
            )
        return self.git(*words, stdin=diff, check=False)

    def write_tree(self) -> str:
        """Return the id of the tree of the private index."""
        self._loaded = self.git("write-tree").output.strip()
        return self._loaded

    def commit(self, tree: str, parent: str, *, author: str, date: str, message: str) -> str:
        return self.repo.write_commit(tree, parent, author, date, message)


def lenders(git_dir: Path, depth: int = 5) -> list[Path]:
    """Return the directories of objects that a repository reads besides its own.

    :param depth: as git does, lenders of lenders are followed so far.
    """
    try:
        text = (git_dir / "objects/info/alternates").read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    found = [Path(line) for line in text.splitlines() if line]
    more = [each for path in found if depth for each in lenders(path.parent, depth - 1)]
    return found + more


@cache
def _refused() -> re.Pattern[str]:
    """Return the pattern of ``apply.toml``."""
    refused = "|".join(own_table(__package__, "apply.toml")["refused"])
    return re.compile(f"^error: (?:{refused})", re.M)


class _Folders(dict[str, "Entries"]):
    """Directory entries of a tree by path; empty for a directory that does not exist."""

    def __init__(self, repo: Repository, tree: str) -> None:
        super().__init__({"": repo.entries(repo.tree_of(tree))})
        self._repo = repo

    def __missing__(self, path: str) -> Entries:
        # A loop: a path may be longer than the stack is deep.
        at = ""
        for name in path.split("/"):
            mode, ident = self[at].get(name, (0, ""))
            at = f"{at}/{name}" if at else name
            if at not in self:
                self[at] = self._repo.entries(ident) if mode >> 12 == 0o04 else {}
        return self[path]


def open_repository(git_dir: Path) -> Repository:
    """Return a repository as GitPython has it, which is not imported before.

    As long as it is in use, the next call returns the same one.

    :raises InfraError: it is none.
    """
    with _opening:
        found = _opened.get(git_dir)
        if found is None:
            # At import GitPython would run `git version`, or the program that a variable names.
            os.environ |= {"GIT_PYTHON_GIT_EXECUTABLE": os.devnull, "GIT_PYTHON_REFRESH": "quiet"}
            from iommuq.system.git.repository import Repository

            del os.environ["GIT_PYTHON_GIT_EXECUTABLE"], os.environ["GIT_PYTHON_REFRESH"]
            found = _opened[git_dir] = Repository(git_dir)
        return found


def lost_or(error: CommandFailed, git_dir: Path, *words: str | Path) -> InfraError:
    """Return `ObjectsLost` if that is why git failed, else the error itself.

    :param words: what it was told; the objects that are named in it, or in what git says,
        are looked up.
    """
    repo = open_repository(git_dir)
    if repo.lacks(*_ID.findall(" ".join(map(str, words)))):
        return ObjectsLost(git_dir)
    try:
        for ident in set(_ID.findall(error.output)):
            repo.content(ident)
    except ObjectsLost as damage:
        return damage
    return error
