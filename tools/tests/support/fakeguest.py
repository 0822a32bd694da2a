# SPDX-License-Identifier: GPL-2.0-only
"""Make kernels of fakesim.py, and look whether anything of them is left."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SCRIPT = Path(__file__).with_name("fakesim.py")


def kernel(folder: Path, name: str) -> Path:
    """Return a kernel with the bug of a name; its files are in *folder*."""
    link = folder / name
    if not link.exists():
        link.symlink_to(SCRIPT)
    return link


def pids(folder: Path) -> list[int]:
    """Return the processes that the kernels of a folder ever were."""
    path = folder / "pids"
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def wait_for(good: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something is so; it is an error if that takes too long."""
    deadline = time.monotonic() + seconds
    while not good():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def assert_gone(folder: Path) -> None:
    """Check that no process and no temporary folder is left, and that there were some."""
    assert pids(folder)
    wait_for(lambda: not any(_runs(pid) for pid in pids(folder)), 3.0)
    assert list(Path(tempfile.gettempdir()).glob("iommuq-tmp-*")) == []


def _runs(pid: int) -> bool:
    try:
        # After the name, which is in parentheses.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
