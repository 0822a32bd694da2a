# SPDX-License-Identifier: GPL-2.0-only
"""Where the full log of each step goes, and how long such logs are kept."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

from iommuq.dirs import log_dir

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
