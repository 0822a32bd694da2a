# SPDX-License-Identifier: GPL-2.0-only
"""Limit the size of the cache: the least recently used entries are removed first.

Build directories and sources are removed only on request.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from iommuq.system import files
from iommuq.system.errors import UserError
from iommuq.system.files import cache_dir
from iommuq.system.temporary import PREFIX, sweep

GIB = 1 << 30
#: Default limit of images and archives in GiB; ``IOMMUQ_CACHE_GIB`` overrides it.
LIMIT = 4.0
#: Seconds after its last use in which no entry is removed: a run may be about to boot it.
RECENT = 3600.0


@dataclass(frozen=True)
class _Entry:
    path: Path
    size: int
    used: float  # seconds since the epoch


def limit() -> int:
    """Return the limit of images and archives in bytes.

    :raises UserError: ``IOMMUQ_CACHE_GIB`` is not a number of GiB.
    """
    text = os.environ.get("IOMMUQ_CACHE_GIB", str(LIMIT))
    try:
        size = float(text)
    except ValueError:
        size = -1.0
    if not 0 <= size < 1e9:
        raise UserError(f"IOMMUQ_CACHE_GIB={text}: not a number of GiB")
    return int(size * GIB)


def shrink(to: int | None = None, *, recent: float = RECENT) -> int:
    """Remove the least recently used entries until the rest fits.

    :param to: bytes that may stay; by default `limit`.
    :param recent: seconds after its last use in which no entry is removed.
    :return: freed bytes.
    :raises UserError: as for `limit`.
    """
    bound = limit() if to is None else to
    entries = sorted(_entries(), key=lambda entry: entry.used)
    total = sum(entry.size for entry in entries)
    freed = 0
    for entry in entries:
        if total - freed <= bound or time.time() - entry.used < recent:
            break
        _remove(entry.path)
        freed += entry.size
    return freed


def _entries() -> Iterator[_Entry]:
    for kind in ("images", "initramfs", "programs"):
        for path in (cache_dir() / kind).glob("[!.]*"):
            record = path / "image.json"  # touched at each use
            with contextlib.suppress(OSError):
                used = (record if record.exists() else path).stat().st_mtime
                yield _Entry(path, _size(path), used)


def _size(path: Path) -> int:
    """Return the disk usage of a file or folder in bytes."""
    total = 0
    with contextlib.suppress(OSError):
        if not path.is_dir() or path.is_symlink():
            return path.lstat().st_blocks * 512
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(folder, name).lstat().st_blocks * 512
    return total


def _remove(path: Path) -> None:
    """Remove a file or folder; a folder is renamed first, so that its name is gone at once."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    doomed = path.with_name(f".{path.name}.gone")
    shutil.rmtree(doomed, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def clean(*, trees: bool = False, bases: bool = False) -> int:
    """Remove all images and archives; results are kept.

    :param trees: also remove work trees and build directories.
    :param bases: also remove the kernel sources.
    :return: freed bytes.
    """
    freed = shrink(0, recent=0.0)
    # Left by killed processes.
    for left in (cache_dir() / "images").glob(".*"):
        if not left.name.startswith(f".{PREFIX}"):
            freed += _size(left)
            shutil.rmtree(left, ignore_errors=True)
    for place in (Path(tempfile.gettempdir()), cache_dir(), *cache_dir().glob("*/")):
        sweep(place)
    if trees:
        for home in sorted((cache_dir() / "trees").glob("[!.]*")):
            # Wait for a build; the lock itself stays.
            with files.hold(home / "lock", f"a build of {home.name}"):
                for path in home.iterdir():
                    if path.name != "lock":
                        freed += _size(path)
                        _remove(path)
    if bases:
        for home in sorted((cache_dir() / "bases").glob("[!.]*")):
            if home.is_dir():
                with files.hold(home.with_name(f"{home.name}.lock"), f"a fetch of {home.name}"):
                    freed += _size(home)
                    _remove(home)
    return freed
