# SPDX-License-Identifier: GPL-2.0-only
"""Repositories as GitPython has them, in the pinned environment.

docs/git.md tells what goes through here and what runs git itself.  Importing this
takes as long as half of ``iommuq --help``: import it where it is used.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

import git
from git.config import GitConfigParser
from git.exc import GitCommandError
from git.objects.fun import tree_entries_from_data, tree_to_stream
from git.objects.util import altz_to_utctz_str
from gitdb.base import IStream
from gitdb.db import LooseObjectDB
from gitdb.exc import ODBError

from iommuq.system import groups
from iommuq.system.errors import InfraError, ObjectsLost, UserError, no_room
from iommuq.system.git.command import QUICK, pinned
from iommuq.system.git.commit import Commit
from iommuq.system.run import run

#: The mode of a directory in a tree.
FOLDER = 0o040000
#: name -> mode and id of each entry of a tree.
Entries = dict[str, tuple[int, str]]

# What git takes off both ends of a name and of an address (ident.c, crud()).
_CRUD = "".join(map(chr, range(33))) + ".,:;<>\"\\'"
# ... and what it leaves out wherever it is.
_NEVER = str.maketrans("", "", "<>\n")
# How GitPython says that it found no object, or that git did not.
_NOT_FOUND = (
    AssertionError,
    GitCommandError,
    LookupError,
    ODBError,
    OSError,
    ValueError,
)


class _PinnedGit(git.Git):
    """Starts the commands of GitPython as all other commands are started."""

    cwd = Path()
    pinned: Mapping[str, str] = {}

    def execute(  # type: ignore[override]  # of its options, those that are used
        self,
        command: Sequence[Any],
        istream: int | BinaryIO | None = None,
        *,
        as_process: bool = False,
        with_exceptions: bool = True,
        stdout_as_string: bool = True,
    ) -> Any:
        words = [str(word) for word in command]
        if as_process:
            process = groups.start(
                words,
                None,
                cwd=self.cwd,
                env=self.pinned,
                stdin=subprocess.DEVNULL if istream is None else istream,
                stdout=subprocess.PIPE,
                # What a process complains of that answers many requests would fill a pipe.
                stderr=subprocess.PIPE if istream is None else subprocess.DEVNULL,
            )
            return self.AutoInterrupt(process, words)
        done = run(
            words, cwd=self.cwd, env=self.pinned, check=False, timeout=QUICK, keep_bytes=True
        )
        if with_exceptions and done.returncode != 0:
            raise GitCommandError(words, done.returncode, done.stderr, done.output)
        return done.output.rstrip("\n") if stdout_as_string else done.data


class _Database(git.GitCmdObjectDB):
    """Reads through ``git cat-file --batch``; writes loose objects, without a process."""

    store = LooseObjectDB.store


class Repository(git.Repo):
    """A repository whose own configuration alone is read, and that runs no hook.

    One thread at a time reads from it.

    :param git_dir: its git directory; of a linked work tree, that of the work tree.
    :raises InfraError: it is none.
    """

    GitCommandWrapperType = _PinnedGit

    def __init__(self, git_dir: Path) -> None:
        self._lock = threading.RLock()
        path = common = git_dir.absolute()
        with contextlib.suppress(OSError):
            common /= (path / "commondir").read_text(encoding="utf-8").strip()
        self._config = common / "config"
        try:
            super().__init__(path, odbt=_Database, expand_vars=False)
        except (git.InvalidGitRepositoryError, git.NoSuchPathError) as error:
            raise InfraError(f"{git_dir}: not a git repository, or a damaged one") from error
        # GitPython follows the variables that git gives to a hook; they name another one.
        self.git_dir = path
        self._common_dir = common
        self.git = _PinnedGit(path)
        self.git.cwd = path
        self.git.pinned = pinned(path, path)
        self.odb = _Database(str(common / "objects"), self.git)

    def _config_reader(self, *_: object, **__: object) -> GitConfigParser:
        # The repository's own file alone, and none that it includes.
        return GitConfigParser([str(self._config)], read_only=True, merge_includes=False)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except _NOT_FOUND as error:
                # The process that answers may have ended over a damaged object.
                self.git.clear_cache()
                raise ObjectsLost(Path(self.git_dir)) from error

    def find(self, name: str) -> str:
        """Return the id of the commit that a ref, an id or ``<id>^`` names, empty if none."""
        with contextlib.suppress(ObjectsLost):
            return self.describe(name).id  # Which reads it: an id alone is not looked up.
        return ""

    def has(self, ident: str) -> bool:
        """Tell whether an object is there."""
        with contextlib.suppress(ObjectsLost), self._reading():
            self.odb.info(bytes.fromhex(ident))
            return True
        return False

    def lacks(self, *names: str) -> bool:
        """Tell whether a file or directory of one of the trees or commits is not there."""
        try:
            with self._reading():
                pending = [self.tree(name).hexsha for name in names]
                while pending:
                    for mode, ident in self.entries(pending.pop()).values():
                        if mode == FOLDER:
                            pending.append(ident)
                        else:
                            self.odb.info(bytes.fromhex(ident))
        except ObjectsLost:
            return True
        return False

    def tree_of(self, name: str) -> str:
        """Return the id of the tree of a commit."""
        with self._reading():
            return self.tree(name).hexsha

    def describe(self, name: str) -> Commit:
        """Return what a commit says."""
        with self._reading():
            return _describe(self.commit(name))

    def line(self, base: str, tip: str) -> list[Commit]:
        """Return the commits that are in *tip* and not in *base*, the oldest first."""
        with self._reading():
            found = self.iter_commits(f"{base}..{tip}", topo_order=True, reverse=True)
            return [_describe(each) for each in found]

    def branch(self) -> str:
        """Return the name of the branch that is checked out, empty if there is none."""
        with self._reading():
            return "" if self.head.is_detached else self.active_branch.name

    def fork(self, one: str, other: str) -> str:
        """Return the best common ancestor of two commits, empty if there is none."""
        with self._reading():
            return next((each.hexsha for each in self.merge_base(one, other) if each), "")

    def descends(self, name: str, ancestor: str) -> bool:
        """Tell whether *ancestor* is the commit *name*, or one before it."""
        with self._reading():
            return self.is_ancestor(self.commit(ancestor), self.commit(name))

    def entries(self, tree: str) -> Entries:
        """Return what is in a directory.

        :param tree: the id of a tree.
        :raises UserError: it has a name that could pass for git's own directory.
        """
        try:
            entries = tree_entries_from_data(self.content(tree))
        except ValueError as error:
            raise UserError(f"{self.git_dir}: tree {tree[:12]}: {error}") from error
        return {name: (mode, sha.hex()) for sha, mode, name in entries}

    def changed(self, before: str, after: str) -> list[str]:
        """Return the files that differ between two trees or commits, sorted."""
        found: set[str] = set()

        def compare(prefix: str, old: str, new: str) -> None:
            left, right = (self.entries(each) if each else {} for each in (old, new))
            for name in left.keys() | right.keys():
                sides = [side.get(name, (0, "")) for side in (left, right)]
                if sides[0] == sides[1]:
                    continue
                folders = [ident if mode == FOLDER else "" for mode, ident in sides]
                if any(folders):
                    compare(f"{prefix}{name}/", *folders)
                if any(mode not in (0, FOLDER) for mode, _ in sides):
                    found.add(prefix + name)

        compare("", self.tree_of(before), self.tree_of(after))
        return sorted(found)

    def content(self, ident: str) -> bytes:
        """Return the content of an object."""
        with self._reading():
            stream = self.odb.stream(bytes.fromhex(ident))
            data: bytes = stream.read()
            # git says how much there is before it sees that it is damaged, and ends.
            size = stream.size
            del stream  # It reads its rest, if there is one.
            if len(data) != size:
                raise ValueError(ident)
            return data

    def write(self, kind: bytes, data: bytes) -> str:
        """Write an object.

        :param kind: ``blob``, ``tree`` or ``commit``.
        :return: its id.
        :raises DiskFull: there is no room for it.
        """
        try:
            made: bytes = self.odb.store(IStream(kind, len(data), io.BytesIO(data))).binsha
        except OSError as error:
            raise no_room(Path(self.git_dir), error) from error
        return made.hex()

    def write_entries(self, entries: Entries) -> str:
        """Write a directory, and return its id."""
        named = [
            (bytes.fromhex(ident), mode, name.encode("utf-8", "surrogateescape"))
            for name, (mode, ident) in entries.items()
        ]
        # git's order: a directory goes where its name with a slash would.
        named.sort(key=lambda entry: entry[2] + (b"/" if entry[1] == FOLDER else b""))
        stream = io.BytesIO()
        try:
            tree_to_stream(named, stream.write)  # type: ignore[arg-type]  # takes bytes, too
        except ValueError as error:
            raise UserError(f"{self.git_dir}: {error}") from error
        return self.write(b"tree", stream.getvalue())

    def write_commit(self, tree: str, parent: str, author: str, date: str, message: str) -> str:
        """Make a commit whose author and committer, and their dates, are the same.

        :param author: ``Name <address>``.
        :param date: in git's raw form.
        :return: its id, which depends on nothing but the arguments.
        :raises DiskFull: there is no room for it.
        """
        name, _, address = author.rpartition(" <")
        parts = (part.strip(_CRUD).translate(_NEVER) for part in (name, address))
        who = git.Actor(*parts)
        with self._reading():
            made = git.Commit.create_from_tree(
                self,
                self.tree(tree),
                message,
                [self.commit(parent)],
                author=who,
                committer=who,
                author_date=f"@{date}",
                commit_date=f"@{date}",
            )
            return made.hexsha


def _describe(commit: git.Commit) -> Commit:
    message = commit.message
    if isinstance(message, bytes):
        message = message.decode("utf-8", "backslashreplace")
    first = takewhile(str.strip, message.lstrip("\n").split("\n"))
    return Commit(
        commit.hexsha,
        commit.tree.hexsha,
        tuple(parent.hexsha for parent in commit.parents),
        f"{commit.author.name or ''} <{commit.author.email or ''}>",
        f"{commit.authored_date} {altz_to_utctz_str(commit.author_tz_offset)}",
        " ".join(line.rstrip() for line in first),
        message,
    )
