# SPDX-License-Identifier: GPL-2.0-only
"""The report of a guest's init, over its own FIFO; ``selftests/init`` defines the lines.

Unknown lines, or a wrong order, are errors: a dying guest leaves an incomplete report.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from iommuq.system.logtext import LINE, LINES

#: The name of the port, and of the protocol.
NAME = "iommuq"
VERSION = 1
#: Limits of the report in characters and lines; a guest that exceeds them is ended.
OUTPUT_LIMIT, LINES_LIMIT = 16 << 20, LINES

_TICK = 0.05
_PIPE_SIZE = 1 << 20
_NUMBERED = re.compile(r"(\d+) (?:\|(.*)|(\w+)(?: (.+))?)", re.DOTALL)


@dataclass
class SuiteState:
    """The state of a suite.

    :ivar begin: seconds since the guest booted; None before it began.
    :ivar end: the same, for its end.
    :ivar status: its exit status like ``$?``; None before its end.
    :ivar missing: the path that it needs and the guest does not have; empty if it was run.
    :ivar expired: it exceeded its time limit, and was killed.
    :ivar left: it left processes that held its output open.
    :ivar stuck: it survived SIGKILL.
    """

    begin: float | None = None
    end: float | None = None
    status: int | None = None
    output: list[str] = field(default_factory=list)
    missing: str = ""
    expired: bool = False
    left: bool = False
    stuck: bool = False

    @property
    def over(self) -> bool:
        """Whether it has ended or was not run."""
        return self.status is not None or bool(self.missing)


class Garbled(Exception):
    """A line that is malformed or in the wrong place."""


class Transcript:
    """The report so far.

    :ivar suites: those that began or could not be run, in order.
    :ivar broken: why the guest could not be set up; empty if it could.
    :ivar whole: the report is complete and well-formed.
    :ivar garbled: the first malformed line; empty without one.
    :ivar began: time of the first suite, or else of the last line, by `time.monotonic`.
    :ivar ended: time of the last line.
    :ivar flooded: it exceeded `OUTPUT_LIMIT` or `LINES_LIMIT`; the rest is dropped.
    """

    def __init__(self) -> None:
        self.suites: list[SuiteState] = []
        self.broken = ""
        self.whole = False
        self.garbled = ""
        self.began: float | None = None
        self.ended: float | None = None
        self.flooded = False
        self._greeted = False
        # The line that has not ended, and its bytes that were dropped.
        self._rest = bytearray()
        self._dropped = 0
        self._size = self._lines = 0

    def feed(self, data: bytes) -> None:
        """Parse more data; lines may be split."""
        *ends, last = data.split(b"\n")
        self._size += len(data)
        self._lines += len(ends)
        if self._size > OUTPUT_LIMIT or self._lines > LINES_LIMIT:
            self.flooded, self.whole = True, False
        if self.garbled or self.flooded:
            return
        for raw in ends:
            self._keep(raw)
            line = self._rest.decode("utf-8", "backslashreplace").removesuffix("\r")
            if self._dropped:
                line += f"… {self._dropped} bytes left out"
            self._rest, self._dropped = bytearray(), 0
            try:
                self._take(line)
            except (Garbled, ValueError):
                self.garbled = line[:80] or "an empty line"
                self.whole = False
                return
        self._keep(last)

    def _keep(self, data: bytes) -> None:
        room = LINE - len(self._rest)
        self._rest += data[:room]
        self._dropped += max(0, len(data) - room)

    def close(self) -> None:
        """Mark the end of the data."""
        if self._rest and not self.garbled and not self.flooded:
            self.garbled = self._rest[:80].decode("utf-8", "backslashreplace")
            self.whole = False

    def _take(self, line: str) -> None:
        if not self._greeted:
            self._expect(line == f"{NAME} {VERSION}")
            self._greeted = True
            return
        self._expect(not self.whole)
        word, _, rest = line.partition(" ")
        if word == "broken":
            self.broken = self.broken or rest  # the first is the cause of the others
            self._note_end()
        elif word == "done":
            self._expect(int(rest) == len(self.suites) and self._between_suites)
            self.whole = not self.broken
            self._note_end()
        else:
            match = _NUMBERED.fullmatch(line)
            self._expect(match is not None)
            assert match is not None
            self._take_numbered(int(match[1]), match[2], match[3], match[4] or "")

    def _take_numbered(self, number: int, text: str | None, word: str | None, rest: str) -> None:
        if word in ("begin", "missing"):
            self._expect(number == len(self.suites) and self._between_suites)
            if self.began is None:
                self.began = time.monotonic()
            begin = float(rest) if word == "begin" else None
            self.suites.append(SuiteState(begin, missing=rest if word == "missing" else ""))
            return
        self._expect(number == len(self.suites) - 1)
        suite = self.suites[number]
        self._expect(not suite.over)
        if text is not None:
            suite.output.append(text)
        elif word == "end":
            status, _, end = rest.partition(" ")
            suite.end = float(end)
            suite.status = int(status)
        elif word == "limit":
            suite.expired = True
        elif word == "left":
            suite.left = True
        else:
            self._expect(word == "stuck")
            suite.stuck = True

    @property
    def _between_suites(self) -> bool:
        # Each suite began after the end of the one before.
        return not self.suites or self.suites[-1].over

    @staticmethod
    def _expect(condition: object) -> None:
        if not condition:
            raise Garbled

    def _note_end(self) -> None:
        self.ended = time.monotonic()
        if self.began is None:
            self.began = self.ended


class Channel:
    """A FIFO, and the thread that reads it during the block.

    :param path: path of the FIFO.
    :param tick: called from the thread, several times a second and after each read.
    """

    def __init__(self, path: Path, tick: Callable[[Transcript], None]) -> None:
        self.path = path
        self.transcript = Transcript()
        self._tick = tick
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Channel:
        os.mkfifo(self.path)
        # Also for writing: no end of file, and no blocking, before the guest has opened it.
        self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        os.close(self._fd)
        self.transcript.close()

    def _read(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        while True:
            # Before the read: the last data is read after the guest's end.
            stopping = self._stop.is_set()
            poll.poll(0 if stopping else _TICK * 1000)
            with contextlib.suppress(BlockingIOError):
                # A guest that writes without end must not keep its limits from being checked.
                while data := os.read(self._fd, _PIPE_SIZE):
                    self.transcript.feed(data)
                    self._tick(self.transcript)
            if stopping:
                return
            self._tick(self.transcript)
