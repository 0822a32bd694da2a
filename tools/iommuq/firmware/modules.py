# SPDX-License-Identifier: GPL-2.0-only
"""Unpack modules of a kernel and their dependencies, read from .modinfo.

An unpacked package has no modules.dep, and busybox's insmod reads no compressed module."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import lzma
import os
import re
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from iommuq.system import files as dirs
from iommuq.system.errors import CommandFailed, InfraError, UserError
from iommuq.system.groups import UNTRUSTED
from iommuq.system.run import run

# A string of .modinfo; a NUL ends it.
_DEPENDS = re.compile(rb"(?<=\0)depends=([\w,-]*)\0|^depends=([\w,-]*)\0")
_LIMIT = 60.0
# Bytes of a module; the largest of Debian's have 20 MiB.
_MOST = 128 << 20
_MOST_OF_ALL = 512 << 20
# Modules that wait for one that they need.
_MOST_DEPTH = 64


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
        if path.suffix == ".zst":
            with tempfile.TemporaryDirectory() as folder:
                plain = Path(folder) / "module.ko"
                words = ("zstd", "-dq", path, "-o", plain)
                run(words, cwd=path.parent, timeout=_LIMIT, bounds=UNTRUSTED)
                return _limited(path, plain.open("rb"))
        if path.suffix == ".xz":
            return _limited(path, lzma.open(path))
        return _limited(path, gzip.open(path) if path.suffix == ".gz" else path.open("rb"))
    except (OSError, EOFError, lzma.LZMAError, zlib.error, CommandFailed) as error:
        raise InfraError(f"{path}: damaged: {error}", hint="fetch the kernel again") from error


def _limited(path: Path, stream: BinaryIO | gzip.GzipFile | lzma.LZMAFile) -> bytes:
    with stream:
        data = stream.read(_MOST + 1)
    if len(data) > _MOST:
        raise UserError(f"{path.name}: more than {_MOST >> 20} MiB, no module is as large")
    return data


def _keep(name: str, data: bytes) -> Path:
    folder = dirs.cache_dir() / "modules" / hashlib.sha256(data).hexdigest()[:32]
    path = folder / f"{name}.ko"
    try:
        if path.exists() and path.stat().st_size == len(data):
            return path
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(data)
        with contextlib.suppress(FileNotFoundError):
            Path(file.name).replace(path)
    except OSError as error:
        raise InfraError(
            f"{folder}: {error.strerror}", hint="set IOMMUQ_CACHE_DIR to another directory"
        ) from error
    return path
