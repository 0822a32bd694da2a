# SPDX-License-Identifier: GPL-2.0-only
"""Locks between processes, which say what they wait for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from iommuq import progress


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
