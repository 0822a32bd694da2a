# SPDX-License-Identifier: GPL-2.0-only
"""Watch what the processes of a sandbox use together, and kill them at the limit.

Two threads poll every `TICK`: one counts files, which can take long, and one all else.  It is
the second line where the kernel has a limit for all of them, and the only one elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from iommuq.system import groups

#: Seconds between two checks.
TICK = 0.25
# Counting a kernel's files takes half a second, statvfs() no time: files are counted when so
# many bytes, or so many inodes, were used since.  Others may have freed as many: they are also
# counted after so many times the time that it took.
_STEP = 256 << 20
_STEP_FILES = 50_000
_PAUSE = 20
# Bytes of free disk, and of free memory, at which the sandbox is stopped.
_FLOOR = 256 << 20
# Bytes of shared memory of a process from which on it is counted by its share.
_SHARED = 4 << 20
_SIZE = re.compile(rb"^(RssAnon|RssShmem|VmPTE):\s*(\d+)", re.M)
_SHARE = re.compile(rb"^(Pss_Shmem):\s*(\d+)", re.M)
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
        self._threads: list[threading.Thread] = []
        self._counted: tuple[int, int] | None = None
        self._next = 0.0
        self.reason = ""

    def begin(self, pid: int) -> None:
        """Start to watch the process *pid*, the leader of its group."""
        for check in (self._processes, self._files):
            thread = threading.Thread(target=self._run, args=(pid, check), daemon=True)
            self._threads.append(thread)
            thread.start()

    def end(self) -> None:
        """Stop watching."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, pid: int, check: Callable[[int], str]) -> None:
        while not self._over.wait(TICK):
            try:
                reason = check(pid)
            except Exception as error:
                reason = f"it cannot be watched: {error}"
            if reason:
                self.reason = self.reason or reason
                self._over.set()
                groups.signal_group(pid, signal.SIGKILL)

    def _processes(self, pid: int) -> str:
        watch = self._watch
        memory, processes = usage(pid)
        if memory > watch.most_memory:
            return f"its processes took more than {watch.most_memory >> 20} MiB of memory"
        if processes > watch.most_processes:
            return f"it had more than {watch.most_processes} processes"
        # Covers memory of no process, such as buffers of sockets.
        if available() < _FLOOR:
            return f"less than {_FLOOR >> 20} MiB of the machine's memory were left"
        # Where the directory itself may be a file system of its own.
        room = os.statvfs(watch.folder.parent)
        if room.f_bavail * room.f_frsize < _FLOOR:
            return f"less than {_FLOOR >> 20} MiB are free at {watch.folder}"
        return ""

    def _files(self, _pid: int) -> str:
        watch = self._watch
        room = os.statvfs(watch.folder)
        free, files = room.f_bavail * room.f_frsize, room.f_favail
        if self._counted is not None and time.monotonic() < self._next:
            steady = self._counted[0] - free < min(_STEP, watch.most_disk // 4)
            if steady and self._counted[1] - files < min(_STEP_FILES, watch.most_files // 4):
                return ""
        self._counted, began = (free, files), time.monotonic()
        try:
            size, count = weigh(watch.folder, watch.most_disk, watch.most_files, self._over)
        except OSError as error:
            return f"it made an unreadable directory: {error.strerror}"
        self._next = time.monotonic() + _PAUSE * (time.monotonic() - began)
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
    """Return the bytes of memory, and the number, of a process and its descendants.

    Memory that several share counts for each by its share.
    """
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                stat = Path("/proc", entry, "stat").read_bytes()
                parents[int(entry)] = int(stat.rpartition(b")")[2].split()[1])
    children: dict[int, list[int]] = {}
    for child, parent in parents.items():
        children.setdefault(parent, []).append(child)
    memory = count = 0
    left = [pid]
    while left:
        current = left.pop()
        left += children.get(current, [])
        count += 1
        with contextlib.suppress(OSError):
            memory += _memory(current)
    # The last one is in the sandbox, if any is.
    return memory + _files_in_memory(current), count


def _memory(pid: int) -> int:
    """Return what a process takes for itself, its page tables, and its share of shared memory."""
    text = Path(f"/proc/{pid}/status").read_bytes()
    sizes = {name: int(size) << 10 for name, size in _SIZE.findall(text)}
    memory = sum(sizes.get(name, 0) for name in (b"RssAnon", b"VmPTE"))
    if sizes.get(b"RssShmem", 0) < _SHARED:
        return memory
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_bytes()
    return memory + sum(int(size) << 10 for _, size in _SHARE.findall(rollup))


def _files_in_memory(pid: int) -> int:
    """Return the kernel's memory for the files in /tmp and /dev/shm that *pid* sees."""
    used = 0
    for place in ("/tmp", "/dev/shm"):
        with contextlib.suppress(OSError):
            seen = f"/proc/{pid}/root{place}"
            # While the sandbox is made it still sees ours.
            if os.stat(seen).st_dev != os.stat(place).st_dev:  # noqa: PTH116
                room = os.statvfs(seen)
                used += room.f_files - room.f_ffree
    return used << 10


def weigh(
    folder: Path,
    most: int | None = None,
    files: int | None = None,
    over: threading.Event | None = None,
) -> tuple[int, int]:
    """Return the bytes on disk, and the number, of files and directories below a directory.

    :param most: bytes from which on no more is counted.
    :param files: files from which on no more are counted.
    :param over: ends it when set.
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
                if size > (most or size) or count > (files or count) or (over and over.is_set()):
                    return size, count
    return size, count
