# SPDX-License-Identifier: GPL-2.0-only
"""Process groups: start one, end one, and end all of them if this process is killed."""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import shutil
import signal
import subprocess
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from iommuq.system.errors import InfraError, ToolMissing

#: Seconds between SIGTERM and SIGKILL.
GRACE = 2.0

# A shell that reads the id of each group from a pipe.  End of file without "done" means that
# this process was killed: the shell kills the groups, then each process with the mark in its
# environment, which was started but not reported, until there is none or 10 s are over:
# each may have started another.  (dash's kill takes a group only with -s.)
_WATCHDOG = """
groups=
while read -r word; do
    [ "$word" = done ] && exit
    groups="$groups -$word"
done
[ -z "$groups" ] || kill -s KILL -- $groups
while [ $((pass += 1)) -lt 100 ] && sleep 0.1; do
    places=$(grep -lsFxz -- "$1" /proc/[0-9]*/environ)
    [ -n "$places" ] || exit
    for place in $places; do
        place=${place%/environ}
        kill -s KILL "${place#/proc/}"
    done
done
"""
#: The variable that marks processes until their group is reported.
MARK = "IOMMUQ_WATCHED"
#: Starts bubblewrap.  It reads its filter and its options from descriptors, and run() passes
#: none on: options hold variables, and a command line can be read by all users.  Its own
#: environment can be read in the sandbox: it has nothing but what finds it again.  The OOM killer
#: chooses these processes first; root's score cannot be lowered again by a process without
#: rights, and others cannot write to /proc.
BOX = (
    "echo 1000 >/proc/self/oom_score_adj 2>/dev/null;"
    f' exec env -i {MARK}="${MARK}" "$@" 3<"$0" 4<"$0.args"'
)

# Processes started by threads other than the main one; see `end_other_threads`.
_others: weakref.WeakSet[subprocess.Popen[bytes]] = weakref.WeakSet()
_others_lock = threading.Lock()
_closed = False


@contextlib.contextmanager
def end_other_threads() -> Iterator[None]:
    """Kill all processes of other threads, and those that they start during the block.

    For the main thread, which waits for the others in the block.
    """
    global _closed
    with _others_lock:
        _closed = True
        running = [process for process in _others if process.returncode is None]
    for process in running:
        signal_group(process.pid, signal.SIGKILL)
    try:
        yield
    finally:
        _closed = False


def ending() -> bool:
    """Tell whether `end_other_threads` is active: processes of other threads were killed."""
    return _closed


def _enlist(process: subprocess.Popen[bytes]) -> None:
    if threading.current_thread() is threading.main_thread():
        return
    with _others_lock:
        _others.add(process)
        closed = _closed
    if closed:
        signal_group(process.pid, signal.SIGKILL)


def signal_group(pgid: int, signum: int) -> None:
    """Send a signal to a group; a missing group is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, signum)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group: SIGTERM, `GRACE` seconds, SIGKILL."""
    try:
        signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    finally:
        # Its children may outlive the leader; a second Ctrl-C in wait() gets here at once.
        signal_group(process.pid, signal.SIGKILL)
        process.wait()


@dataclass(frozen=True)
class Guard:
    """The interface of a `watchdog`.

    :ivar tell: reports a group to it.
    :ivar mark: environment variables that mark processes not reported yet.
    """

    tell: Callable[[int], None]
    mark: Mapping[str, str]


@dataclass(frozen=True)
class Bounds:
    """Limits of a process and each that it starts.

    :ivar memory: bytes of address space.
    :ivar seconds: of CPU time.
    :ivar file: bytes of one file.
    :ivar maps: files that are mapped, such as git's packs, do not count as memory.
    """

    memory: int
    seconds: int
    file: int
    maps: bool = False

    def words(self) -> list[str]:
        """Return the command that sets them, and that the command to be limited follows."""
        wanted = {
            "data" if self.maps else "as": (
                resource.RLIMIT_DATA if self.maps else resource.RLIMIT_AS,
                self.memory,
                0,
            ),
            # At the hard limit of time it would be killed without a reason.
            "cpu": (resource.RLIMIT_CPU, self.seconds, _GRACE),
            "fsize": (resource.RLIMIT_FSIZE, self.file, 0),
            # With 0 the kernel would still start a program that core_pattern names.
            "core": (resource.RLIMIT_CORE, 1, 0),
        }
        argv = [_PRLIMIT]
        for name, (kind, most, grace) in wanted.items():
            own = resource.getrlimit(kind)[1]
            hard = most + grace if own == resource.RLIM_INFINITY else min(most + grace, own)
            argv.append(f"--{name}={min(most, hard)}:{hard}")
        return [*argv, "--"]


_GRACE = 5  # seconds
# A part of util-linux, which every system has, also where PATH lacks it.
_PRLIMIT = "/usr/bin/prlimit"
#: For programs that read untrusted input.
UNTRUSTED = Bounds(memory=1 << 30, seconds=60, file=256 << 20)


def inner(words: Sequence[str]) -> Sequence[str]:
    """Return a command without what limits it and puts it into a sandbox."""
    return words[words.index("--", words.index(_PRLIMIT)) + 1 :] if _PRLIMIT in words else words


@contextlib.contextmanager
def watchdog() -> Iterator[Guard]:
    """Kill the reported groups if this process is killed in the block, or the block raises."""
    mark = secrets.token_hex(8)
    dog = subprocess.Popen(
        ["/bin/sh", "-c", _WATCHDOG, "sh", f"{MARK}={mark}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        bufsize=0,
    )

    def tell(pgid: int) -> None:
        assert dog.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            dog.stdin.write(b"%d\n" % pgid)

    last = b""
    try:
        yield Guard(tell, {MARK: mark})
        last = b"done\n"
    finally:
        # Without "done" it kills what is left: Ctrl-C may have come just after a start.
        with contextlib.suppress(BrokenPipeError):
            dog.communicate(last)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Defer SIGINT and SIGTERM to the end of the block; only the main thread gets them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {
        signum: signal.signal(signum, lambda number, _frame: came.append(number))
        for signum in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        for number in came:
            signal.raise_signal(number)


def start(
    words: Sequence[str],
    guard: Guard | None,
    *,
    cwd: Path,
    env: Mapping[str, str] | None,
    stdin: int | IO[bytes],
    stdout: int,
    stderr: int,
    pipesize: int = -1,
    bounds: Bounds | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process as the leader of its own session and group, and report it to *guard*."""
    process = None
    changed = {**(env or {}), **(guard.mark if guard else {})}
    if bounds is not None:
        if shutil.which(words[0]) is None:
            raise _missing(words[0])
        # Not by us once it runs: it may have started others by then.
        words = [*bounds.words(), *words]
    try:
        # An interrupt between start and report would leave the process running.
        with signals_held():
            process = subprocess.Popen(
                words,
                cwd=cwd,
                env={**os.environ, **changed} if changed else None,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                pipesize=pipesize,
            )
            if guard is not None:
                guard.tell(process.pid)
        _enlist(process)
        return process
    except KeyboardInterrupt:
        if process is not None:
            end_group(process)
        raise
    except FileNotFoundError as error:
        if not Path(cwd).is_dir():
            raise InfraError(f"{cwd}: no such directory") from error
        raise _missing(words[0]) from error
    except PermissionError as error:
        raise InfraError(f"{words[0]}: cannot be executed") from error


def _missing(program: str) -> ToolMissing:
    return ToolMissing(f"{program} is not installed", hint="`iommuq doctor` names the package")


#: GiB of memory for one guest and its QEMU.
_GUEST_MEMORY = 4.0


def workers() -> int:
    """Return the number of guests that this machine can run at once."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return max(1, min(len(os.sched_getaffinity(0)), int(memory / _GUEST_MEMORY)))


@contextlib.contextmanager
def pool(size: int | None = None) -> Iterator[Executor]:
    """Return an executor; its threads and their processes end with the block.

    :param size: number of threads; by default `workers`.
    """
    executor = ThreadPoolExecutor(size or workers(), thread_name_prefix="iommuq")
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        with end_other_threads():
            executor.shutdown(wait=True)
        raise
    executor.shutdown()
