# SPDX-License-Identifier: GPL-2.0-only
"""Where things live: the project, the cache, the results, the logs.

``IOMMUQ_CACHE_DIR`` and ``IOMMUQ_STATE_DIR`` override the user's directories
of the XDG base directory specification; ``IOMMUQ_ROOT`` names the project when
the package is not installed from a checkout.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from iommuq.system import progress
from iommuq.system.errors import UserError


def project_root() -> Path:
    """Return the checkout that holds ``patches/``, ``kunit/`` and ``selftests/``.

    :raises UserError: if neither ``IOMMUQ_ROOT`` nor the package's own place nor
        the current directory or one above it has a ``patches`` directory.
    """
    override = os.environ.get("IOMMUQ_ROOT")
    if override:
        root = Path(override).resolve()
        if (root / "patches").is_dir():
            return root
        raise UserError(f"IOMMUQ_ROOT={override}: no patches/ directory there")
    here = Path(__file__).resolve().parents[3]
    for candidate in (here, Path.cwd(), *Path.cwd().parents):
        if (candidate / "patches").is_dir():
            return candidate
    raise UserError("not in a checkout of the project", hint="cd to it, or set IOMMUQ_ROOT")


def cache_dir() -> Path:
    """Return the directory for whatever can be made again: sources, builds, images."""
    override = os.environ.get("IOMMUQ_CACHE_DIR")
    return Path(override).resolve() if override else Path(platformdirs.user_cache_dir("iommuq"))


def state_dir() -> Path:
    """Return the directory for what must be kept: the results of runs."""
    override = os.environ.get("IOMMUQ_STATE_DIR")
    return Path(override).resolve() if override else Path(platformdirs.user_state_dir("iommuq"))


def log_dir() -> Path:
    """Return the directory that every step writes its full log into."""
    return state_dir() / "logs"


@contextlib.contextmanager
def hold(path: Path, holder: str) -> Iterator[None]:
    """Keep other processes out for as long as the block runs.

    The kernel drops the lock when its holder dies, however it dies.

    :param path: the lock file; its directory must exist.
    :param holder: who may be holding it, in words, for the user who waits.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        with progress.step(f"Waiting for {holder}"):
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


#: Logs older than this many seconds are removed when a new one is made.
KEEP = 30 * 24 * 3600.0


def new_log(what: str) -> Path:
    """Make a new log, still empty.

    :param what: what is logged, such as ``build-6.12-um-0001``.
    :return: a path in the log directory that names the time, *what* and our process.
    """
    folder = log_dir()
    folder.mkdir(parents=True, exist_ok=True)
    _forget_old(folder)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", what)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = folder / f"{stamp}-{name}-{os.getpid()}.log"
    # The same step twice in a second, or in two threads: two logs, never one with both.
    number = 2
    while True:
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            path = folder / f"{stamp}-{name}-{os.getpid()}.{number}.log"
            number += 1
        else:
            return path


def _forget_old(folder: Path) -> None:
    limit = time.time() - KEEP
    for path in folder.glob("*.log"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < limit:
                path.unlink()
