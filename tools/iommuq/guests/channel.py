# SPDX-License-Identifier: GPL-2.0-only
"""What a guest's init reports, over a FIFO that nothing else of the guest writes to.

``selftests/init`` says what each line means.  Every line must be one of those, in
an order that makes sense: what a dying guest leaves half-written is told from a
report by that.
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

#: The name of the port, or whatever stands in for one.
NAME = "iommuq"
VERSION = 1
#: Bytes of output that are kept of one suite.
OUTPUT_LIMIT = 64 << 20

_TICK = 0.05
_PIPE_SIZE = 1 << 20
_NUMBERED = re.compile(r"(\d+) (?:\|(.*)|(\w+)(?: (.+))?)", re.DOTALL)


@dataclass
class SuiteState:
    """How far a suite is.

    :ivar begin: seconds since the guest booted; None before it began.
    :ivar end: the same, for its end.
    :ivar status: its exit status as a shell gives it; None before its end.
    :ivar output: the lines that it wrote.
    :ivar missing: what it needs and the guest has not; empty if it was run.
    :ivar expired: it did not end within its limit, and was killed.
    :ivar left: it left processes behind that held its output open.
    :ivar stuck: not even SIGKILL ended it.
    :ivar cut: there was more output than is kept.
    """

    begin: float | None = None
    end: float | None = None
    status: int | None = None
    output: list[str] = field(default_factory=list)
    missing: str = ""
    expired: bool = False
    left: bool = False
    stuck: bool = False
    cut: bool = False
    size: int = 0

    @property
    def over(self) -> bool:
        """Whether nothing more can come of it."""
        return self.status is not None or bool(self.missing)


class Garbled(Exception):
    """A line that no init would write there."""


class Transcript:
    """All that was reported so far.

    :ivar suites: those that began or could not, in order.
    :ivar broken: why the guest could not be set up; empty if it could.
    :ivar whole: the last line came, and all before it made sense.
    :ivar garbled: the first line that made no sense; empty if there was none.
    :ivar began: when the first suite began, or nothing but its end can come any more;
        seconds of `time.monotonic`.
    :ivar ended: when the last line came.
    """

    def __init__(self) -> None:
        self.suites: list[SuiteState] = []
        self.broken = ""
        self.whole = False
        self.garbled = ""
        self.began: float | None = None
        self.ended: float | None = None
        self._greeted = False
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take in what came; a line may come in pieces."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for raw in lines:
            line = raw.decode("utf-8", "backslashreplace").removesuffix("\r")
            if self.garbled:
                return
            try:
                self._take(line)
            except (Garbled, ValueError):
                self.garbled = line[:80] or "an empty line"
                self.whole = False

    def close(self) -> None:
        """Nothing more will come."""
        if self._rest and not self.garbled:
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
            # The first reason is the cause of those after it.
            self.broken = self.broken or rest
            self._note_end()
        elif word == "done":
            self._expect(int(rest) == len(self.suites) and all(s.over for s in self.suites))
            self.whole = not self.broken
            self._note_end()
        else:
            match = _NUMBERED.fullmatch(line)
            self._expect(match is not None)
            assert match is not None
            self._take_numbered(int(match[1]), match[2], match[3], match[4] or "")

    def _take_numbered(self, number: int, text: str | None, word: str | None, rest: str) -> None:
        if word in ("begin", "missing"):
            self._expect(number == len(self.suites) and all(s.over for s in self.suites))
            if self.began is None:
                self.began = time.monotonic()
            begin = float(rest) if word == "begin" else None
            self.suites.append(SuiteState(begin, missing=rest if word == "missing" else ""))
            return
        self._expect(number == len(self.suites) - 1)
        suite = self.suites[number]
        self._expect(not suite.over)
        if text is not None:
            suite.size += len(text) + 1
            suite.cut = suite.cut or suite.size > OUTPUT_LIMIT
            if not suite.cut:
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

    @staticmethod
    def _expect(condition: object) -> None:
        if not condition:
            raise Garbled

    def _note_end(self) -> None:
        self.ended = time.monotonic()
        if self.began is None:
            self.began = self.ended


class Channel:
    """A FIFO, and the thread that reads it for as long as the block runs.

    :param path: where it is made.
    :param tick: called from the thread, several times a second.
    """

    def __init__(self, path: Path, tick: Callable[[Transcript], None]) -> None:
        self.path = path
        self.transcript = Transcript()
        self._tick = tick
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Channel:
        os.mkfifo(self.path)
        # Opened for writing as well, so that there is no end of file before the guest
        # has opened it, and nobody waits for anybody.
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
            # Asked before the read: what a guest wrote before its end is read after it.
            stopping = self._stop.is_set()
            poll.poll(0 if stopping else _TICK * 1000)
            try:
                while data := os.read(self._fd, _PIPE_SIZE):
                    self.transcript.feed(data)
            except BlockingIOError:
                pass
            if stopping:
                return
            self._tick(self.transcript)
