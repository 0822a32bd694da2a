# SPDX-License-Identifier: GPL-2.0-only
"""The overlay: tests as plain files that can be laid over any revision of a tree.

Files are copied, and lines appended to files of the tree (``#include``, ``source``).
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from iommuq.system import files
from iommuq.system.errors import UserError, VerdictError, os_errors_as
from iommuq.system.git.command import is_safe_path
from iommuq.system.git.objects import Objects
from iommuq.system.tables import parse

#: The description of an overlay, in its folder.
DESCRIPTION = "overlay.toml"

# Temporary files of editors and patch: they would change the key of every build.
_LEFTOVERS = ("*~", "*.orig", "*.rej", ".*.sw?", ".#*", "#*#")
_NAME = re.compile(r"[A-Za-z0-9_.,+=@/-]+")


@dataclass(frozen=True)
class Overlay:
    """Files and lines to lay over a tree.

    :ivar files: (path, content, mode as git writes it), sorted.
    :ivar hooks: (path, lines to append), in the order they are appended.
    """

    files: tuple[tuple[str, bytes, str], ...]
    hooks: tuple[tuple[str, str], ...]

    @cached_property
    def key(self) -> str:
        """A hash of files and hooks."""
        facts = [[name, mode, hashlib.sha256(data).hexdigest()] for name, data, mode in self.files]
        return files.hash_of(json.dumps([facts, self.hooks]))

    def over(self, other: Overlay) -> Overlay:
        """Return this overlay and another one as one.

        :raises UserError: both have a file.
        """
        twice = {name for name, _, _ in self.files} & {name for name, _, _ in other.files}
        if twice:
            raise UserError(f"two overlays have {', '.join(sorted(twice))}")
        files = tuple(sorted((*self.files, *other.files)))
        return Overlay(files, (*self.hooks, *other.hooks))


def load_overlay(folder: Path) -> Overlay:
    """Read ``overlay.toml`` in *folder*, and the files it names.

    :raises UserError: it is missing or malformed, or names a missing file.
    """
    path = folder / DESCRIPTION
    tables = _read_description(path)
    files: dict[str, tuple[bytes, str]] = {}
    for table in tables["copy"]:
        for name, source in _sources(path, folder, table):
            if name in files:
                raise UserError(f"{path}: two files would be copied to {name}")
            with os_errors_as(UserError, source):
                mode = "100755" if source.stat().st_mode & 0o100 else "100644"
                files[name] = (source.read_bytes(), mode)
    hooks = tuple((table["file"], table["append"].rstrip("\n") + "\n") for table in tables["hook"])
    listed = tuple((name, data, mode) for name, (data, mode) in sorted(files.items()))
    return Overlay(listed, hooks)


def extend(overlay: Overlay, hooks: Iterable[tuple[str, str]]) -> Overlay:
    """Return an overlay that appends more lines: (path, lines)."""
    return replace(overlay, hooks=(*overlay.hooks, *hooks))


_TABLES = {"copy": ("from", "to"), "hook": ("file", "append")}


def _read_description(path: Path) -> dict[str, list[dict[str, str]]]:
    """Return the checked tables of an overlay's description."""
    document = parse(files.read_text(path), path)
    for name in document.keys() - _TABLES.keys():
        raise UserError(f"{path}: unknown table [[{name}]]", hint="there are [[copy]] and [[hook]]")
    tables: dict[str, list[dict[str, str]]] = {}
    for name, keys in _TABLES.items():
        tables[name] = document.get(name, [])
        if not isinstance(tables[name], list):
            raise UserError(f"{path}: write [[{name}]], with two brackets")
        for number, table in enumerate(tables[name], 1):
            where = f"{path}: [[{name}]] number {number}"
            if not isinstance(table, dict) or table.keys() != set(keys):
                raise UserError(f"{where}: needs exactly the keys {' and '.join(keys)}")
            for key in keys:
                value: object = table[key]
                if not isinstance(value, str) or not value.strip():
                    raise UserError(f"{where}: {key} must be a string that is not empty")
                if key != "append":
                    _check_path(where, value)
    return tables


def _check_path(where: str, path: str) -> None:
    if not is_safe_path(path):
        raise UserError(f"{where}: {path!r} is not a path inside a tree")
    if not _NAME.fullmatch(path):
        raise UserError(f"{where}: {path!r} has characters other than A-Z a-z 0-9 _.,+=@/-")


def _sources(path: Path, folder: Path, table: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """Yield path in the tree and file to copy, for a ``[[copy]]`` of a file or a directory."""
    source = folder / table["from"]
    if source.is_file() and not source.is_symlink():
        yield table["to"], source
        return
    if not source.is_dir():
        raise UserError(f"{path}: there is no {table['from']} in {folder}")
    for place, folders, names in os.walk(source):
        folders.sort()
        for name in sorted(
            [*names, *(each for each in folders if (Path(place) / each).is_symlink())]
        ):
            file = Path(place) / name
            if name == DESCRIPTION or any(
                fnmatch.fnmatch(name, leftover) for leftover in _LEFTOVERS
            ):
                continue
            if file.is_symlink() or not file.is_file():
                raise UserError(f"{file}: only plain files can be laid over a tree")
            inside = f"{table['to']}/{file.relative_to(source).as_posix()}"
            _check_path(str(file), inside)
            yield inside, file


@dataclass
class Layer:
    """An overlay whose files are in a repository."""

    overlay: Overlay
    store: Objects
    _files: dict[str, str] = field(init=False)
    _hooked: dict[tuple[str, str], str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        blobs = self.store.write_blobs([data for _, data, _ in self.overlay.files])
        self._files = {
            name: f"{mode} blob {blob}"
            for (name, _, mode), blob in zip(self.overlay.files, blobs, strict=True)
        }

    def over(self, tree: str, name: str) -> str:
        """Lay the overlay over *tree*, and return the id of the new tree.

        :param name: names the tree in an error, ``6.12 baseline``.
        :raises VerdictError: the tree lacks a file to append lines to.
        """
        hooked = [path for path, _ in self.overlay.hooks]
        entries = self.store.entries(tree, hooked) if hooked else {}
        edits = dict(self._files)
        for path, text in self.overlay.hooks:
            entry = edits.get(path) or entries.get(path)
            if entry is None or not entry.startswith("100"):
                raise VerdictError(
                    f"the overlay does not fit {name}: there is no file {path} in it",
                    hint=f"a [[hook]] of {DESCRIPTION} appends lines to it",
                )
            edits[path] = self._append(entry, text)
        return self.store.replace(tree, edits)

    def _append(self, entry: str, text: str) -> str:
        """Return the entry of a file with *text* appended, unless it contains it."""
        if (entry, text) not in self._hooked:
            mode, _, blob = entry.split()
            data = self.store.read_blob(blob)
            added = text.encode()
            if added not in data:
                gap = b"" if data.endswith(b"\n") or not data else b"\n"
                (blob,) = self.store.write_blobs([data + gap + added])
            self._hooked[entry, text] = f"{mode} blob {blob}"
        return self._hooked[entry, text]
