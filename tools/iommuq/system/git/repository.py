# SPDX-License-Identifier: GPL-2.0-only
"""Repositories as GitPython has them, in the pinned environment.

docs/git.md says what uses it.  Import it where it is used: it takes half as long as ``--help``.
"""

from __future__ import annotations

import contextlib
import io
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

import git
from git.config import GitConfigParser
from git.exc import GitCommandError
from git.objects.fun import tree_entries_from_data, tree_to_stream
from git.objects.util import altz_to_utctz_str
from gitdb.base import IStream, OStream
from gitdb.db import LooseObjectDB
from gitdb.exc import BadObject, ODBError

from iommuq.system import groups
from iommuq.system.errors import CommandTimeout, InfraError, ObjectsLost, UserError, os_errors_as
from iommuq.system.git.command import QUICK, Commit, pinned
from iommuq.system.run import run

#: The mode of a directory in a tree.
FOLDER = 0o040000
_SUBMODULE = 0o160000
_MOST_CONFIG = 1 << 20  # bytes
#: name -> mode and id of each entry of a tree.
Entries = dict[str, tuple[int, str]]

# What git takes off both ends of a name and of an address (ident.c, crud()).
_CRUD = "".join(map(chr, range(33))) + ".,:;<>\"\\'"
# ... and what it leaves out wherever it is.
_NEVER = str.maketrans("", "", "<>\n")
# How GitPython says that there is no such object or ref.
_ABSENT = (AssertionError, LookupError, ODBError, NotImplementedError, TypeError, ValueError)
# What a repository may have that GitPython does not read.
_UNREADABLE = re.compile(rb"^\s*(refstorage\s*=\s*reftable|objectformat\s*=\s*sha256)", re.I | re.M)


class _PinnedGit(git.Git):
    """Starts the commands of GitPython as all other commands are started."""

    cwd: Path
    pinned: Mapping[str, str]
    running: list[subprocess.Popen[bytes]]
    ended = False

    def execute(  # type: ignore[override]  # of its options, those that are used
        self,
        command: Sequence[Any],
        istream: int | BinaryIO | None = None,
        *,
        as_process: bool = False,
        with_exceptions: bool = True,
        stdout_as_string: bool = True,
    ) -> Any:
        # The program that GitPython was told of by a variable may be another.
        words = ["git", *(str(word) for word in command[1:])]
        if as_process:
            process = groups.start(
                words,
                None,
                cwd=self.cwd,
                env=self.pinned,
                stdin=subprocess.DEVNULL if istream is None else istream,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self.running[:] = [each for each in self.running if each.returncode is None]
            self.running.append(process)
            return self.AutoInterrupt(process, words)
        done = run(
            words, cwd=self.cwd, env=self.pinned, check=False, timeout=QUICK, keep_bytes=True
        )
        if with_exceptions and done.returncode != 0:
            raise GitCommandError(words, done.returncode, done.stderr, done.output)
        return done.output.rstrip("\n") if stdout_as_string else done.data

    def end(self) -> None:
        """Kill the processes of cat-file, which hang."""
        self.ended = True
        for process in self.running:
            groups.signal_group(process.pid, signal.SIGKILL)


class _Database(git.GitCmdObjectDB):
    """Reads through ``git cat-file --batch``; writes loose objects, without a process.

    An object that is not there is a `BadObject`; a process that ended instead of an answer
    is asked once more, and then the object is damaged.
    """

    _git: _PinnedGit

    def info(self, binsha: bytes) -> Any:
        return self._ask(binsha, super().info)

    def stream(self, binsha: bytes) -> OStream:
        def read(binsha: bytes) -> OStream:
            found = super(_Database, self).stream(binsha)
            kind, size, data = found.type, found.size, found.read()
            del found  # It reads its rest, if there is one.
            if len(data) != size:
                raise ValueError("cut off")
            return OStream(binsha, kind, size, io.BytesIO(data))

        made: OStream = self._ask(binsha, read)
        return made

    def _ask(self, binsha: bytes, question: Callable[[bytes], Any]) -> Any:
        for last in (False, True):
            try:
                return question(binsha)
            except (ValueError, BrokenPipeError) as error:
                # git's own word in answer to --batch, in every language.
                if str(error).endswith(" missing'"):
                    raise BadObject(binsha) from None
                self._git.clear_cache()
                if last or self._git.ended:
                    raise ObjectsLost(Path(self.root_path()).parent) from error
        raise AssertionError

    def store(self, istream: IStream) -> IStream:
        with os_errors_as(InfraError, self.root_path()):
            return LooseObjectDB.store(self, istream)


class Repository(git.Repo):
    """A repository, of which neither configuration nor hooks count.

    One thread at a time reads from it.

    :param git_dir: its git directory; of a linked work tree, that of the work tree.
    :raises InfraError: it is none, or of a kind that GitPython does not read.
    """

    GitCommandWrapperType = _PinnedGit
    git: _PinnedGit

    def __init__(self, git_dir: Path) -> None:
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        path = common = git_dir.absolute()
        with contextlib.suppress(OSError, ValueError):
            common /= (path / "commondir").read_text(encoding="utf-8").strip()
        try:
            super().__init__(path, odbt=_Database, expand_vars=False)
        except (git.InvalidGitRepositoryError, git.NoSuchPathError) as error:
            raise InfraError(f"{git_dir}: not a git repository, or a damaged one") from error
        with contextlib.suppress(OSError):
            if match := _UNREADABLE.search((common / "config").read_bytes()[:_MOST_CONFIG]):
                raise InfraError(f"{git_dir}: {match[1].decode()} is not supported")
        self.git_dir = path
        self._common_dir = common
        self.git = _PinnedGit(path)
        self.git.cwd = path
        self.git.pinned = pinned(path, path)
        self.git.running = []
        self.odb = _Database(str(common / "objects"), self.git)

    def _config_reader(self, *_: object, **__: object) -> GitConfigParser:
        # An empty one: nothing that is asked here depends on it.
        return GitConfigParser([], read_only=True)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Read in the block; what is not there is an error.

        :raises ObjectsLost: an object is missing or damaged.
        :raises CommandTimeout: git does not answer.
        """
        with self._answering():
            try:
                yield
            except (*_ABSENT, GitCommandError) as error:
                raise ObjectsLost(Path(self.git_dir)) from error

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        with self._lock, contextlib.ExitStack() as stack:
            if self._timer is None:
                stack.enter_context(self._limited())
            with os_errors_as(InfraError, self.git_dir):
                yield

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        timer = self._timer = threading.Timer(QUICK, self.git.end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except BaseException as error:
            # The answer to what was asked may still come.
            self.git.clear_cache()
            if self.git.ended and isinstance(error, Exception):
                what = f"git did not answer about {self.git_dir} within {QUICK:g} s"
                raise CommandTimeout(what) from error
            raise
        finally:
            timer.cancel()
            self._timer = None
            self.git.ended = False

    def find(self, name: str) -> str:
        """Return the id of the commit that a ref, an id or ``<id>^`` names, empty if none."""
        with self._answering():
            try:
                # Described, as an id alone is not looked up.
                return _describe(self.commit(name)).id
            except _ABSENT:
                return ""

    def has(self, ident: str) -> bool:
        """Tell whether an object is there."""
        with self._answering():
            try:
                self.odb.info(bytes.fromhex(ident))
            except _ABSENT:
                return False
            return True

    def lacks(self, *names: str) -> bool:
        """Return whether a tree, a commit or a file in it is missing; files are not read whole."""
        pending: list[str] = []
        seen: set[str] = set()
        try:
            for name in names:
                with self._reading():
                    if self.odb.info(bytes.fromhex(name)).type in (b"commit", b"tree"):
                        pending.append(self.tree(name).hexsha)
            while pending:
                for mode, ident in self.entries(pending.pop()).values():
                    if ident in seen or mode == _SUBMODULE:
                        continue
                    seen.add(ident)
                    if mode == FOLDER:
                        pending.append(ident)
                    elif not self.has(ident):
                        return True
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
        with self._answering():
            pending = [("", self.tree_of(before), self.tree_of(after))]
            while pending:
                prefix, *trees = pending.pop()
                left, right = (self.entries(each) if each else {} for each in trees)
                for name in left.keys() | right.keys():
                    sides = [side.get(name, (0, "")) for side in (left, right)]
                    if sides[0] == sides[1]:
                        continue
                    old, new = (ident if mode == FOLDER else "" for mode, ident in sides)
                    if old or new:
                        pending.append((f"{prefix}{name}/", old, new))
                    if any(mode not in (0, FOLDER) for mode, _ in sides):
                        found.add(prefix + name)
        return sorted(found)

    def content(self, ident: str) -> bytes:
        """Return the content of an object."""
        with self._reading():
            data: bytes = self.odb.stream(bytes.fromhex(ident)).read()
            return data

    def write(self, kind: bytes, data: bytes) -> str:
        """Write an object.

        :param kind: ``blob``, ``tree`` or ``commit``.
        :return: its id.
        :raises DiskFull: there is no room for it.
        """
        made: bytes = self.odb.store(IStream(kind, len(data), io.BytesIO(data))).binsha
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
        :raises UserError: git would not take author, date or message.
        :raises DiskFull: there is no room for it.
        """
        name, _, address = author.rpartition(" <")
        name, address = (part.strip(_CRUD).translate(_NEVER) for part in (name, address))
        if not name or "\0" in message:
            what = "a NUL byte in its message" if name else f"no name in its author, {author!r}"
            raise UserError(f"a commit with {what}")
        with self._reading():
            trees = self.tree(tree)
            parents = [self.commit(parent)]
        try:
            made = git.Commit.create_from_tree(
                self,
                trees,
                message,
                parents,
                author=git.Actor(name, address),
                committer=git.Actor(name, address),
                author_date=f"@{date}",
                commit_date=f"@{date}",
            )
        except ValueError as error:
            raise UserError(f"a commit of {author} at {date}: {error}") from error
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
