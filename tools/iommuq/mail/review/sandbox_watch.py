# SPDX-License-Identifier: GPL-2.0-only
"""Watch what the processes of a sandbox use together, and kill them at the limit.

Polls every `TICK`: control groups would need root or a service manager.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from iommuq.system import groups

#: Seconds between two checks.
TICK = 0.25
# Counting a kernel's files takes half a second, statvfs() no time: files are counted
# when so many bytes, or so many inodes, were used since.
_STEP = 256 << 20
_STEP_FILES = 50_000
# Bytes of free disk, and of free memory, at which the sandbox is stopped.
_FLOOR = 256 << 20
_PAGE = os.sysconf("SC_PAGE_SIZE")
_GONE = (FileNotFoundError, NotADirectoryError)


@dataclass(frozen=True)
class Watch:
    """The limits.

    :ivar folder: the directory whose size counts.
    :ivar most_memory: bytes, of all processes.
    :ivar most_disk: bytes below the directory.
    """

    folder: Path
    most_memory: int
    most_disk: int
    most_files: int
    most_processes: int

    @contextlib.contextmanager
    def watching(self) -> Iterator[Watcher]:
        """Yield a watcher, and stop it after the block."""
        watcher = Watcher(self)
        try:
            yield watcher
        finally:
            watcher.end()


class Watcher:
    """Watches one process and its descendants.

    :ivar reason: why they were killed; empty if they were not.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._free: tuple[int, int] | None = None
        self.reason = ""

    def begin(self, pid: int) -> None:
        """Start to watch the process *pid*, the leader of its group."""
        self._thread = threading.Thread(target=self._run, args=(pid,), daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop watching."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, pid: int) -> None:
        while not self._over.wait(TICK):
            self.reason = self._breach(pid)
            if self.reason:
                groups.signal_group(pid, signal.SIGKILL)
                return

    def _breach(self, pid: int) -> str:
        watch = self._watch
        memory, processes = usage(pid)
        if memory > watch.most_memory:
            return f"its processes took more than {watch.most_memory >> 20} MiB of memory"
        if processes > watch.most_processes:
            return f"it had more than {watch.most_processes} processes"
        # Covers memory of no process, such as memfd files.
        if available() < _FLOOR:
            return f"less than {_FLOOR >> 20} MiB of the machine's memory were left"
        room = os.statvfs(watch.folder)
        free, files = room.f_bavail * room.f_frsize, room.f_favail
        if free < _FLOOR:
            return f"less than {_FLOOR >> 20} MiB are free at {watch.folder}"
        if self._free is not None:
            steady = self._free[0] - free < min(_STEP, watch.most_disk // 4)
            if steady and self._free[1] - files < min(_STEP_FILES, watch.most_files // 4):
                return ""
        self._free = free, files
        try:
            size, count = weigh(watch.folder)
        except OSError as error:
            return f"it made an unreadable directory: {error.strerror}"
        if size > watch.most_disk:
            return f"it wrote more than {watch.most_disk >> 20} MiB"
        if count > watch.most_files:
            return f"it made more than {watch.most_files} files"
        return ""


def available() -> int:
    """Return the bytes of memory available on the machine."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 1 << 62


def usage(pid: int) -> tuple[int, int]:
    """Return the bytes of unshared memory, and the number, of a process and its descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                stat = (entry / "stat").read_bytes()
                parents[int(entry.name)] = int(stat.rpartition(b")")[2].split()[1])
    children: dict[int, list[int]] = {}
    for child, parent in parents.items():
        children.setdefault(parent, []).append(child)
    memory = count = 0
    left = [pid]
    while left:
        current = left.pop()
        left += children.get(current, [])
        count += 1
        with contextlib.suppress(OSError, ValueError, IndexError):
            _, resident, shared, *_ = Path(f"/proc/{current}/statm").read_bytes().split()
            memory += (int(resident) - int(shared)) * _PAGE
    return memory, count


def weigh(folder: Path) -> tuple[int, int]:
    """Return the bytes on disk, and the number, of files and directories below a directory.

    :raises OSError: a directory is not readable, or its path is too long.
    """
    size = count = 0
    left = [str(folder)]
    while left:
        # Files that vanish meanwhile are ignored.
        with contextlib.suppress(*_GONE), os.scandir(left.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(*_GONE):
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    count += 1
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
    return size, count
