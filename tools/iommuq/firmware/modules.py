# SPDX-License-Identifier: GPL-2.0-only
"""Unpack modules of a kernel and their dependencies, read from .modinfo.

An unpacked package has no modules.dep, and busybox's insmod reads no compressed module."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from iommuq.bases.providers.archive import decompressor, unreadable
from iommuq.system import files as dirs
from iommuq.system.errors import CommandFailed, InfraError, UserError
from iommuq.system.run import pipeline
from iommuq.system.sandbox.reader import boxed

# A string of .modinfo; a NUL ends it.
_DEPENDS = re.compile(rb"(?<=\0)depends=([\w,-]{0,4096})\0|^depends=([\w,-]{0,4096})\0")
# Bytes of a module; the largest of Debian's have 20 MiB.
_MOST = 128 << 20
_MOST_OF_ALL = 512 << 20
# Modules that wait for one that they need, and all of them; a kernel has about 20.
_MOST_DEPTH, _MOST_MODULES = 64, 256


def unpack(folder: Path, wanted: Sequence[str]) -> tuple[Path, ...]:
    """Return uncompressed modules and their dependencies, in the order of loading.

    :param folder: ``lib/modules/<release>``.
    :param wanted: names; one that is no module of this kernel is left out: it may be built in.
    :raises InfraError: a module is damaged or missing, or the cache cannot be written.
    """
    files = {
        _plain(path.name.partition(".ko")[0]): path for path in sorted(_modules(folder / "kernel"))
    }
    contents: dict[str, bytes] = {}
    waiting: list[str] = []

    def need(name: str, asked_by: str) -> None:
        if name in contents:
            return
        if name in waiting or len(waiting) == _MOST_DEPTH:
            raise UserError(f"{folder}: the modules {', '.join(waiting[-3:])} need each other")
        path = files.get(name)
        if path is None:
            if asked_by:
                raise InfraError(f"{folder}: module {name} is missing, {asked_by} needs it")
            return
        data = _content(path)
        if sum(map(len, contents.values()), len(data)) > _MOST_OF_ALL:
            raise UserError(f"{folder}: modules of more than {_MOST_OF_ALL >> 20} MiB")
        if len(contents) == _MOST_MODULES:
            raise UserError(f"{folder}: more than {_MOST_MODULES} modules are needed")
        waiting.append(name)
        for other in _dependencies(data, path):
            need(other, name)
        waiting.pop()
        contents[name] = data

    for name in wanted:
        need(_plain(name), "")
    return tuple(_keep(name, data) for name, data in contents.items())


def _modules(top: Path) -> Iterator[Path]:
    # Not rglob() or walk(), which are recursive; links are not followed.
    pending = [] if top.is_symlink() or not top.is_dir() else [str(top)]
    while pending:
        for entry in os.scandir(pending.pop()):
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            elif ".ko" in entry.name:
                yield Path(entry.path)


def _plain(name: str) -> str:
    return name.replace("-", "_")


def _dependencies(data: bytes, path: Path) -> list[str]:
    if not data.startswith(b"\x7fELF"):
        raise InfraError(f"{path}: not a kernel module", hint="fetch the kernel again")
    match = _DEPENDS.search(data)
    if match is None:
        raise InfraError(f"{path}: no dependencies in .modinfo")
    names = (match[1] or match[2] or b"").decode()
    return [_plain(name) for name in names.split(",") if name]


def _content(path: Path) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise UserError(f"{path.name}: not a regular file")
    try:
        # Not in this process: 3 KB of xz may take gigabytes.
        # It reads its input alone, and so sees no file.
        with (
            boxed(decompressor(path)) as inside,
            pipeline(("cat", path), inside.argv, cwd=inside.cwd) as pipe,
        ):
            data = pipe.read(_MOST + 1)
            if len(data) > _MOST:
                raise UserError(f"{path.name}: more than {_MOST >> 20} MiB, no module is as large")
    except CommandFailed as error:
        raise unreadable(path, error, "fetch the kernel again") from error
    return data


def _keep(name: str, data: bytes) -> Path:
    folder = dirs.cache_dir() / "modules" / hashlib.sha256(data).hexdigest()[:32]
    path = folder / f"{name}.ko"
    try:
        if path.exists() and path.read_bytes() == data:
            return path
        folder.mkdir(parents=True, exist_ok=True)
        dirs.write_whole(path, data)
    except OSError as error:
        raise InfraError(
            f"{folder}: {error.strerror}", hint="set IOMMUQ_CACHE_DIR to another directory"
        ) from error
    return path
