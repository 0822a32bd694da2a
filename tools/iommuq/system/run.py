# SPDX-License-Identifier: GPL-2.0-only
"""The one function that runs processes.

Every process is started here: its argv is logged in a form that can be pasted
into a shell, it gets its own process group, and the whole group is ended on a
timeout, on Ctrl-C, and when iommuq itself is killed.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from iommuq.system import groups
from iommuq.system.errors import (
    CommandFailed,
    CommandTimeout,
    DiskFull,
    InfraError,
    ToolMissing,
    TooMuchOutput,
    os_errors_as,
)

log = logging.getLogger(__name__)

#: Lines of output that an error message may quote.
TAIL_LINES = 20

# What a full disk is called: by the C library, and by git for its own packs.
_DISK_FULL = ("No space left on device", "Out of diskspace", "Disk quota exceeded")
# What Python, git and C++ print for want of memory, and Python for a file that is too large.
_NO_MEMORY = re.compile(
    r"^(?:MemoryError|fatal: .*(?:ut of memory|annot allocate memory).*|.*std::bad_alloc.*)$", re.M
)
_TOO_LARGE = re.compile(r"(?:^OSError: .*|: )File too large$", re.M)
# Characters of the end of its output that are searched for them.
_SAID = 4096
# Bytes in flight between the processes of a pipeline.
_PIPE_SIZE = 1 << 20
# Bytes of a line that are taken at once: one without an end must not fill the memory.
_PIECE = 1 << 20
# Seconds that a process has to end by itself after its pipe broke.
_SETTLE = 0.3


def _status(words: Sequence[str], returncode: int) -> int:
    """Return the exit status of what ran; bubblewrap ends with 128 and the number of a signal."""
    # git ends with 129 for a wrong option.
    return 128 - returncode if groups.BOX in words and returncode > 129 else returncode


@dataclass(frozen=True)
class Completed:
    """What a process left behind.

    :ivar output: standard output; with a log, standard error is mixed in.
    :ivar stderr: standard error, empty where it went into the log.
    :ivar seconds: wall-clock time.
    :ivar data: the bytes of standard output, if they were asked for.
    """

    argv: tuple[str, ...]
    returncode: int
    output: str
    stderr: str
    seconds: float
    data: bytes = b""


def exceeded(done: Completed) -> str:
    """Return which of its `groups.Bounds` a process met, in words; empty if none."""
    said = done.stderr[-_SAID:] + done.output[-_SAID:]
    if done.returncode == -signal.SIGXCPU:
        return "it takes more time than it may"
    if done.returncode == -signal.SIGXFSZ or _TOO_LARGE.search(said):
        return "it makes more data than it may"
    if _NO_MEMORY.search(said):
        return "it takes more memory than it may"
    return ""


def describe_status(returncode: int) -> str:
    """Say in words how a process ended (``exit status 2``, ``killed by SIGSEGV``)."""
    if returncode >= 0:
        return f"exit status {returncode}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-returncode).name}"
    return f"killed by signal {-returncode}"


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """Return the last *lines* lines of *text*."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def _describe(cwd: Path, commands: Sequence[Sequence[str]]) -> str:
    """Return a line to paste into a shell that does what we are about to do."""
    return f"cd {shlex.quote(str(cwd))} && {' | '.join(map(shlex.join, commands))}"


def _open_log(path: Path, line: str) -> IO[bytes]:
    """Open a log to append to it, and begin with the command."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Unbuffered: what found no room on the disk must not be tried once more by close().
    log_file = path.open("ab", buffering=0)
    try:
        with os_errors_as(InfraError, path):
            log_file.write(f"$ {line}\n".encode())
    except InfraError:
        log_file.close()
        raise
    return log_file


class _Reader(threading.Thread):
    """Drain one pipe: into the log as it comes, to a callback, and into memory.

    :ivar overflow: there was more than *most* bytes; the rest went nowhere.
    """

    def __init__(
        self,
        pipe: IO[bytes],
        log_file: IO[bytes] | None,
        on_line: Callable[[str], None] | None,
        most: int | None = None,
        on_overflow: Callable[[], None] | None = None,
        most_lines: int | None = None,
    ) -> None:
        super().__init__(daemon=True)
        self._pipe = pipe
        self._log_file = log_file
        self._on_line = on_line
        self._left = most
        self._lines_left = most_lines
        self._on_overflow = on_overflow
        self.overflow = False
        self._kept = bytearray()
        self.error: OSError | None = None
        self.start()

    def run(self) -> None:
        read = self._pipe.readline
        if self._on_line is None and isinstance(self._pipe, io.BufferedReader):
            read = self._pipe.read1
        for raw in iter(lambda: read(_PIECE), b""):
            if self._is_too_much(raw):
                if not self.overflow and self._on_overflow is not None:
                    self._on_overflow()
                self.overflow = True
                continue
            self._kept += raw
            try:
                if self._log_file is not None:
                    self._log_file.write(raw)
            except OSError as error:
                self.error = error
                self._log_file = None
            except ValueError:
                # Closed: after a Ctrl-C the last lines are not read.
                return
            if self._on_line is not None:
                self._on_line(raw.decode("utf-8", "backslashreplace").rstrip("\n"))

    def _is_too_much(self, raw: bytes) -> bool:
        if self._left is not None:
            self._left -= len(raw)
        if self._lines_left is not None:
            self._lines_left -= raw.count(b"\n")
        return (self._left or 0) < 0 or (self._lines_left or 0) < 0

    @property
    def data(self) -> bytes:
        return bytes(self._kept)

    @property
    def text(self) -> str:
        return self.data.decode("utf-8", "backslashreplace")


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    stdin: str | bytes | None = None,
    timeout: float | None = None,
    log_path: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    check: bool = True,
    watched: bool = False,
    on_start: Callable[[int], None] | None = None,
    most: int | None = None,
    most_lines: int | None = None,
    keep_bytes: bool = False,
    bounds: groups.Bounds | None = None,
) -> Completed:
    """Run a process to its end.

    :param argv: program and arguments; never a shell line.
    :param cwd: directory to run it in; our own is never changed.
    :param env: variables to set on top of our own environment.
    :param stdin: what to feed it; None is an empty input.
    :param timeout: seconds after which the whole group is ended.
    :param log_path: file to append the command, then both streams as they come.
    :param on_line: called with each line of output, from another thread.
    :param check: raise if the exit status is not 0.
    :param watched: end the group even if we are killed with SIGKILL; for all
        that may run longer than a moment.
    :param on_start: called with its process id, which is that of its group, too.
    :param most: bytes that it may write to each stream; with more the group is ended.
    :param most_lines: the same, in lines.
    :param keep_bytes: keep standard output as bytes, too.
    :param bounds: what it may use, and each process that it starts.
    :return: the finished process.
    :raises ToolMissing: the program does not exist.
    :raises CommandTimeout: it did not end within *timeout*.
    :raises TooMuchOutput: it wrote more than *most* or *most_lines*.
    :raises CommandFailed: its exit status is not 0, and *check* is set.
    :raises DiskFull: it, or the log, had no room left.
    """
    words = tuple(str(word) for word in argv)
    line = _describe(cwd, [words])
    log.debug("%s", line)
    data = stdin.encode() if isinstance(stdin, str) else stdin
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        log_file: IO[bytes] | None = None
        if log_path is not None:
            log_file = stack.enter_context(_open_log(log_path, line))
        guard = stack.enter_context(groups.watchdog()) if watched else None
        process = groups.start(
            words,
            guard,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if log_file else subprocess.PIPE,
            bounds=bounds,
        )

        def end() -> None:
            groups.signal_group(process.pid, signal.SIGKILL)

        try:
            if on_start is not None:
                on_start(process.pid)
            assert process.stdout is not None
            out = _Reader(process.stdout, log_file, on_line, most, end, most_lines)
            err = None
            if process.stderr is not None:
                err = _Reader(process.stderr, None, None, most, end, most_lines)
            if data is not None:
                assert process.stdin is not None
                with contextlib.suppress(BrokenPipeError), process.stdin:
                    process.stdin.write(data)
            returncode = _status(words, process.wait(timeout))
        except subprocess.TimeoutExpired:
            groups.end_group(process)
            out.join()
            where = f"; full log: {log_path}" if log_path else ""
            raise CommandTimeout(
                f"{groups.inner(words)[0]} did not end within {timeout:g} s and was ended{where}",
                hint=f"last line: {tail(out.text, 1)!r}",
            ) from None
        except BaseException:
            groups.end_group(process)
            raise
        # Whatever the leader left running (a helper of a guest, say) goes now:
        # it would keep the pipe open.
        groups.signal_group(process.pid, signal.SIGKILL)
        out.join()
        if err is not None:
            err.join()
    stderr = "" if err is None else err.text
    if out.overflow or (err is not None and err.overflow):
        lines = f" or {most_lines} lines" if most_lines else ""
        name = groups.inner(words)[0]
        raise TooMuchOutput(f"{name} wrote more than {most} bytes{lines} and was ended")
    if out.error is not None:
        assert log_path is not None
        with os_errors_as(InfraError, log_path):
            raise out.error
    kept = out.data if keep_bytes else b""
    done = Completed(words, returncode, out.text, stderr, time.monotonic() - begin, kept)
    if check and returncode != 0:
        raise failure(done, log_path=log_path)
    return done


@contextlib.contextmanager
def pipeline(
    *commands: Sequence[str | Path], cwd: Path, feed: bool = False, log_path: Path | None = None
) -> Iterator[IO[bytes]]:
    """Run commands joined by pipes, for more data than fits into memory.

    Each has its own group, and each group is ended if the block raises, and also
    if we are killed.  A block that reads may stop early: the rest is read and
    dropped, so that a check sum at the end of the data is looked at.

    :param commands: programs with their arguments; never shell lines.
    :param cwd: directory to run them in.
    :param feed: the block writes what the first command reads, and the last
        one's output is dropped; else it reads what the last one writes.
    :param log_path: file to append the commands to, then all standard error.
    :return: the pipe to read from or to write to.
    :raises ToolMissing: a program does not exist.
    :raises CommandFailed: one of them failed, which outweighs any `Exception` of
        the block's if it came first: the block saw a short or a broken pipe.
    :raises DiskFull: one of them had no room left.
    """
    lines = [tuple(str(word) for word in argv) for argv in commands]
    line = _describe(cwd, lines)
    log.debug("%s", line)
    begin = time.monotonic()
    processes: list[subprocess.Popen[bytes]] = []
    errors: list[_Reader] = []
    with contextlib.ExitStack() as stack:
        log_file = None if log_path is None else stack.enter_context(_open_log(log_path, line))
        guard = stack.enter_context(groups.watchdog())

        def failed() -> InfraError | None:
            # The last that failed: those before it may be victims of its early end.
            started = zip(lines, processes, errors, strict=False)
            for words, process, error in reversed(list(started)):
                status = _status(words, process.returncode or 0)
                if status not in (0, -signal.SIGPIPE):
                    # As in run(): what it left running would keep the pipe open.
                    groups.signal_group(process.pid, signal.SIGKILL)
                    error.join()
                    seconds = time.monotonic() - begin
                    done = Completed(words, status, "", error.text, seconds)
                    return failure(done, log_path=log_path)
            return None

        try:
            source: int | IO[bytes] = subprocess.PIPE if feed else subprocess.DEVNULL
            for words in lines:
                process = groups.start(
                    words,
                    guard,
                    cwd=cwd,
                    env=None,
                    stdin=source,
                    stdout=(subprocess.DEVNULL if feed and words is lines[-1] else subprocess.PIPE),
                    stderr=subprocess.PIPE,
                    pipesize=_PIPE_SIZE,
                )
                processes.append(process)
                assert process.stderr is not None
                errors.append(_Reader(process.stderr, log_file, None))
                if not isinstance(source, int):
                    # Only the new process may hold it, or the old one is never told to stop.
                    source.close()
                if process.stdout is not None:
                    source = process.stdout
            stream = processes[0].stdin if feed else processes[-1].stdout
            assert stream is not None
            stack.callback(_close, stream)
            yield stream
            while not feed and stream.read(_PIPE_SIZE):
                pass
            stream.close()
            for process in processes:
                process.wait()
        except BaseException as error:
            cause = None
            if isinstance(error, Exception) and not isinstance(error, ToolMissing):
                _settle(processes)
                cause = failed()
            for process in processes:
                groups.end_group(process)
            if cause is not None:
                raise cause from error
            raise
        for process, reader in zip(processes, errors, strict=True):
            groups.signal_group(process.pid, signal.SIGKILL)
            reader.join()
    cause = failed()
    if cause is not None:
        raise cause


def _settle(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Give processes that are about to end by themselves the moment that they need."""
    deadline = time.monotonic() + _SETTLE
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))


def _close(stream: IO[bytes]) -> None:
    with contextlib.suppress(OSError):
        stream.close()


def failure(done: Completed, *, log_path: Path | None = None) -> InfraError:
    """Make the error that fits a process that failed.

    :return: `DiskFull` if its output says so, else `CommandFailed`.
    """
    argv = groups.inner(done.argv)
    output = (done.stderr + "\n" + done.output).strip() if done.stderr else done.output
    where = f"full log: {log_path}" if log_path else tail(output, 1)
    if any(words in output for words in _DISK_FULL):
        return DiskFull(f"{argv[0]}: no space left on device", hint=where)
    return CommandFailed(
        f"{shlex.join(argv[:4])}{' …' if len(argv) > 4 else ''}:"
        f" {describe_status(done.returncode)}",
        hint=where,
        returncode=done.returncode,
        output=output,
    )
