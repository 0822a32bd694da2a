# SPDX-License-Identifier: GPL-2.0-only
"""Limits for all processes of a sandbox together, by a control group of version 2.

Made by systemd, or below a group that was delegated to us; see cgroups(7).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from iommuq.system.errors import IommuqError
from iommuq.system.run import run
from iommuq.system.sandbox.model import Limits

_PROBE_LIMIT = 20.0
# Other work goes first: 100 is what every group has.
_WEIGHT = 25
_NEEDED = {"memory", "pids"}
_BY_SYSTEMD = ("systemd-run", "--quiet", "--scope", "--collect")
# Where systemd has mounted it, with the limits that the group should have.
_SHOW = "cd /sys/fs/cgroup/$(sed -n s/^0:://p /proc/self/cgroup) && cat memory.max pids.max"
# Enters the group, whose directory is $0.
_ENTER = 'echo $$ >"$0"/cgroup.procs && exec "$@"'


@dataclass(frozen=True)
class Scope:
    """A control group.

    :ivar words: what comes before a command that is to run in it.
    :ivar folder: its directory; None if there is none, or systemd has made it.
    """

    words: tuple[str, ...] = ()
    folder: Path | None = None

    def reason(self) -> str:
        """Return which limit ended processes of the group; empty if none."""
        with contextlib.suppress(OSError):
            if self.folder is not None:
                events = (self.folder / "memory.events").read_text(encoding="ascii").split()
                if int(events[events.index("oom_kill") + 1]):
                    return "its processes took all the memory of their control group"
        return ""


def settings(limits: Limits) -> dict[str, str]:
    """Return the content of the files of a group."""
    return {
        "memory.max": f"{limits.memory + limits.tmp + limits.shm}M",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        # The processes that start the sandbox count too.
        "pids.max": str(limits.processes + 16),
        "cpu.weight": str(_WEIGHT),
        "io.weight": str(_WEIGHT),
    }


@contextmanager
def entered(limits: Limits) -> Iterator[Scope]:
    """Yield a control group with the limits, empty again after the block; `Scope()` if none."""
    how, values = kind(), settings(limits)
    if how == "":
        yield Scope()
    elif how.startswith(_BY_SYSTEMD[0]):
        names = {"memory.max": "MemoryMax", "memory.swap.max": "MemorySwapMax"}
        names |= {"pids.max": "TasksMax", "cpu.weight": "CPUWeight", "io.weight": "IOWeight"}
        given = [word for key, name in names.items() for word in ("-p", f"{name}={values[key]}")]
        yield Scope((*how.split(), *given, "--"))
    else:
        folder = Path(how) / f"iommuq-{os.getpid()}-{secrets.token_hex(4)}"
        folder.mkdir()
        try:
            for key, value in values.items():
                # Not every group has cpu and io.
                with contextlib.suppress(FileNotFoundError):
                    (folder / key).write_text(value, encoding="ascii")
            yield Scope(("/bin/sh", "-c", _ENTER, str(folder)), folder)
        finally:
            _end(folder)


def _end(folder: Path) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError):
            (folder / "cgroup.kill").write_text("1", encoding="ascii")
        try:
            folder.rmdir()
        except OSError:  # Killed processes are still there.
            time.sleep(0.02)
        else:
            return


@cache
def kind() -> str:
    """Return how a group can be made: words of systemd-run, a directory, or empty for not."""
    words = [*_BY_SYSTEMD, *([] if os.geteuid() == 0 else ["--user"])]
    with contextlib.suppress(IommuqError):
        limited = [*words, "-p", "MemoryMax=64M", "-p", "TasksMax=16", "--", "sh", "-c", _SHOW]
        done = run(limited, cwd=Path("/"), check=False, timeout=_PROBE_LIMIT)
        if done.output.split() == [str(64 << 20), "16"]:
            return " ".join(words)
    own = _group(Path("/proc/self/cgroup").read_text(encoding="ascii"))
    for folder in (own, *own.parents) if own is not None else ():
        if _can_hold(folder):
            return str(folder)
    return ""


def _group(text: str) -> Path | None:
    """Return the directory of a process in the hierarchy of version 2; None without one."""
    name = next((line[3:] for line in text.splitlines() if line.startswith("0::/")), None)
    if name is None:
        return None
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(before.split()[4]) / name.lstrip("/")
    return None


def _can_hold(folder: Path) -> bool:
    """Return whether a group below *folder* gets limits, and can be entered."""
    try:
        given = (folder / "cgroup.subtree_control").read_text(encoding="ascii").split()
        if not set(given) >= _NEEDED:
            return False
        trial = folder / f"iommuq-{os.getpid()}-trial"
        trial.mkdir()
    except OSError:
        return False
    try:
        words = ["/bin/sh", "-c", _ENTER, str(trial), "true"]
        return run(words, cwd=Path("/"), check=False, timeout=_PROBE_LIMIT).returncode == 0
    except IommuqError:
        return False
    finally:
        _end(trial)
