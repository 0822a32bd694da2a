# SPDX-License-Identifier: GPL-2.0-only
"""Trees to look patches up in: a commit, or a directory with unpacked sources."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Protocol

from iommuq.system.errors import UserError
from iommuq.system.git.command import NO_REPOSITORY, git, is_safe_path
from iommuq.system.git.objects import Objects, open_repository

#: The most files to search for a change that is not in its own file.
_MOST = 4
#: The most names to search for.
_MOST_NAMES = 12


class Target(Protocol):
    """A tree that files can be read from."""

    def read(self, path: str) -> bytes | None:
        """Return the content of a file, None if there is no such file."""

    def candidates(self, path: str, names: Collection[str], *, missing: bool) -> list[str]:
        """Return files that may have a change expected in *path*.

        :param names: the names that the change adds.
        :param missing: *path* does not exist, so it may have moved.
        """


class TreeTarget:
    """A tree in a repository; *tree* is the id of a tree or a commit."""

    def __init__(self, store: Objects, tree: str) -> None:
        self._store = store
        self._tree = tree
        self._files: dict[str, bytes | None] = {}

    @cached_property
    def _paths(self) -> list[str]:
        words = ("ls-tree", "-r", "-z", "--name-only", "--full-tree", self._tree)
        return self._store.git(*words).output.split("\0")

    def read(self, path: str) -> bytes | None:
        """Return the content of a file, None if there is no such file."""
        if path not in self._files:
            self._files[path] = self._store.read_file(self._tree, path)
        return self._files[path]

    def candidates(self, path: str, names: Collection[str], *, missing: bool) -> list[str]:
        """Return files that may hold what another file was expected to."""
        words = ("grep", "-lw", "-F", *_patterns(names), self._tree, "--", _around(path))
        listing = self._store.git(*words, check=False).output if _patterns(names) else ""
        prefix = f"{self._tree}:"
        hits = [line.removeprefix(prefix) for line in listing.splitlines()]
        name = f"/{PurePosixPath(path).name}"
        same_name = [other for other in self._paths if other.endswith(name)] if missing else []
        return _rank(path, hits, same_name)


class FolderTarget:
    """A directory with unpacked sources.

    :raises UserError: it is not a kernel tree.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        if not any((folder / name).exists() for name in ("Makefile", "drivers", "include")):
            raise UserError(f"{folder}: not a kernel tree", hint="no Makefile and no drivers/")

    def read(self, path: str) -> bytes | None:
        """Return the content of a file, None if there is no such file."""
        if not is_safe_path(path):
            return None
        try:
            return (self._folder / path).read_bytes()
        except OSError:
            return None

    def candidates(self, path: str, names: Collection[str], *, missing: bool) -> list[str]:
        """Return files that may hold what another file was expected to."""
        near: list[str] = []
        if missing:
            found = (self._folder / _around(path)).rglob(PurePosixPath(path).name)
            near = [str(each.relative_to(self._folder)) for each in found]
        hits = []
        if _patterns(names):
            done = git(
                *("grep", "--no-index", "-lw", "-F", *_patterns(names), "--", _around(path)),
                git_dir=NO_REPOSITORY,
                cwd=self._folder,
                check=False,
            )
            hits = done.output.splitlines()
        return _rank(path, hits, near)


def find_commit(repository: Path, ref: str) -> tuple[Path, str]:
    """Return the git directory of a repository, and the id of a commit in it.

    :param repository: its work tree, or a bare repository.
    :raises UserError: it is not a repository, or has no such commit.
    """
    if not repository.is_dir():
        raise UserError(f"{repository}: no such directory")
    root = repository.absolute()
    git_dir = root / ".git" if (root / ".git").exists() else root
    if git_dir.is_file():  # a linked work tree
        pointer = git_dir.read_text(encoding="utf-8", errors="replace")
        git_dir = root / pointer.removeprefix("gitdir:").strip()
    if not (git_dir / "HEAD").exists():
        raise UserError(f"{repository} is not a git repository")
    commit = open_repository(git_dir).find(ref)
    if not commit:
        raise UserError(f"{repository} has no {ref!r}")
    return git_dir, commit


def _patterns(names: Collection[str]) -> list[str]:
    # Long names are rarely the same by chance.
    chosen = sorted((name for name in names if re.fullmatch(r"\w{5,}", name)), key=len)
    return [word for name in chosen[-_MOST_NAMES:] for word in ("-e", name)]


def _around(path: str) -> str:
    """Return the directory to search for a change that *path* lacks."""
    parent = PurePosixPath(path).parent
    return str(parent.parent) if len(parent.parts) > 2 else str(parent)


def _is_source(name: str) -> bool:
    return name.endswith((".c", ".h", ".S", ".rs")) or name.startswith(("Kconfig", "Makefile"))


def _rank(path: str, hits: Collection[str], namesakes: Collection[str]) -> list[str]:
    """Return the most likely files: the sources nearest to *path*."""
    ours = PurePosixPath(path).parts

    def distance(other: str) -> tuple[bool, int, str]:
        parts = PurePosixPath(other).parts
        common = sum(1 for left, right in zip(ours, parts, strict=False) if left == right)
        return (
            PurePosixPath(other).suffix != PurePosixPath(path).suffix,
            len(ours) + len(parts) - 2 * common,
            other,
        )

    found = {other for other in (*hits, *namesakes) if other != path and _is_source(other)}
    return sorted(found, key=distance)[:_MOST]
