# SPDX-License-Identifier: GPL-2.0-only
"""Look at what the processes of a sandbox use together, and end them at the limit.

The kernel limits a process and an account, not a disk or the memory of many processes,
unless there is a control group to be had, which takes a service manager or root.  So this
looks four times a second.  What it may miss in between is a moment's worth.
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

#: Seconds between two looks.
TICK = 0.25
# Counting a kernel's files takes half a second, asking for free room none: files are
# counted when so much room, or so many files, went since, whoever took them.
_STEP = 256 << 20
_STEP_FILES = 50_000
# Bytes below which the disk counts as full, and so does the machine's memory.
_FLOOR = 256 << 20
_PAGE = os.sysconf("SC_PAGE_SIZE")
_GONE = (FileNotFoundError, NotADirectoryError)


@dataclass(frozen=True)
class Watch:
    """What may be used.

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
        """Return a watcher that looks as long as the block lasts."""
        watcher = Watcher(self)
        try:
            yield watcher
        finally:
            watcher.end()


class Watcher:
    """Looks at one process with all that descend from it.

    :ivar reason: why they were ended; empty if they were not.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._free: tuple[int, int] | None = None
        self.reason = ""

    def begin(self, pid: int) -> None:
        """Look at the process *pid*, which leads its group."""
        self._thread = threading.Thread(target=self._run, args=(pid,), daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
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
        # What is in no process counts, too: files in memory without a name, for one.
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
            return f"it has a directory that nobody can look into: {error.strerror}"
        if size > watch.most_disk:
            return f"it wrote more than {watch.most_disk >> 20} MiB"
        if count > watch.most_files:
            return f"it made more than {watch.most_files} files"
        return ""


def available() -> int:
    """Return the bytes of memory that the machine can still give out."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 1 << 62


def usage(pid: int) -> tuple[int, int]:
    """Return the bytes of memory that a process and its descendants have to themselves.

    :return: bytes, and the number of those processes.
    """
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
    """Return how much room all files below a directory take.

    :return: bytes, and the number of files and directories.
    :raises OSError: one of them cannot be looked into: it is not readable, or too deep down.
    """
    size = count = 0
    left = [str(folder)]
    while left:
        # What goes meanwhile does not count.
        with contextlib.suppress(*_GONE), os.scandir(left.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(*_GONE):
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    count += 1
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
    return size, count
