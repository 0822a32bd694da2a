# SPDX-License-Identifier: GPL-2.0-only
"""Process groups: start one, end one, and end them all should we be killed.

What `iommuq.system.run` is made of; others only ask whether all is being ended, or end it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
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

#: Seconds a group has between SIGTERM and SIGKILL.
GRACE = 2.0

# A shell that outlives us by a moment: it is told of each group, and reads until
# our end of the pipe closes.  "done" means that all is well; end of file without it
# means that we were killed, so the groups must go too.  (dash's kill takes a group only
# with -s: -KILL and -- together it refuses.)  Who starts a process and is killed before
# it can tell leaves one that is known by its mark alone, and not before its exec().
_WATCHDOG = """
groups=
while read -r word; do
    [ "$word" = done ] && exit
    groups="$groups -$word"
done
[ -z "$groups" ] || kill -s KILL -- $groups
sleep 0.1
for place in $(grep -lsFxz -- "$1" /proc/[0-9]*/environ); do
    place=${place%/environ}
    kill -s KILL "${place#/proc/}"
done
"""
_MARK = "IOMMUQ_WATCHED"


# What other threads than the main one have started; see `end_other_threads`.
_others: weakref.WeakSet[subprocess.Popen[bytes]] = weakref.WeakSet()
_others_lock = threading.Lock()
_closed = False


@contextlib.contextmanager
def end_other_threads() -> Iterator[None]:
    """End all that other threads than the main one have started, and let them start no more.

    For the main thread, which alone is interrupted: in the block it waits for the others.
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
    """Tell whether other threads than the main one can start nothing any more.

    What they have started was not lost then: it was ended.
    """
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
    """Send a signal to a group; one that is gone is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, signum)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started: SIGTERM, a grace period, SIGKILL."""
    try:
        signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    finally:
        # The leader may be gone while its children are not; and who presses Ctrl-C
        # again wants them gone even sooner.
        signal_group(process.pid, signal.SIGKILL)
        process.wait()


@dataclass(frozen=True)
class Guard:
    """What ends processes when we cannot.

    :ivar tell: function to tell it of a group.
    :ivar mark: environment by which it knows what it was not told of.
    """

    tell: Callable[[int], None]
    mark: Mapping[str, str]


@contextlib.contextmanager
def watchdog() -> Iterator[Guard]:
    """End groups should this process be killed inside the block.

    It is there before the first process, so that none is without it for long.  The
    same if the block raises.
    """
    mark = secrets.token_hex(8)
    dog = subprocess.Popen(
        ["/bin/sh", "-c", _WATCHDOG, "sh", f"{_MARK}={mark}"],
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
        yield Guard(tell, {_MARK: mark})
        last = b"done\n"
    finally:
        # Without the last word it ends what is left: Ctrl-C may have come between two
        # lines of ours, with a process started and nobody yet to end it.
        with contextlib.suppress(BrokenPipeError):
            dog.communicate(last)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread is ever interrupted.
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
) -> subprocess.Popen[bytes]:
    """Start a process as the leader of its own session and group, and tell *guard* of it."""
    process = None
    changed = {**(env or {}), **(guard.mark if guard else {})}
    try:
        # An interrupt in between would leave a process that nobody knows of.
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
        raise ToolMissing(
            f"{words[0]} is not installed", hint="`iommuq doctor` names the package"
        ) from error
    except PermissionError as error:
        raise InfraError(f"{words[0]}: cannot be executed") from error


#: GiB that a guest and what is around it may take.
_GUEST_MEMORY = 4.0


def workers() -> int:
    """Return how many guests this machine can run at once."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return max(1, min(len(os.sched_getaffinity(0)), int(memory / _GUEST_MEMORY)))


@contextlib.contextmanager
def pool(size: int | None = None) -> Iterator[Executor]:
    """Return an executor whose threads, and what they started, end with the block.

    :param size: threads; by default `workers`.
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
