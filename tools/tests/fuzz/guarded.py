# SPDX-License-Identifier: GPL-2.0-only
"""Call a parser under its limits, and name what it did wrong."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import iommuq
from fuzzed import MIB, Parser

_PACKAGE = str(Path(iommuq.__file__).parent)
_PAGE = os.sysconf("SC_PAGE_SIZE")
#: The least limit of time: what an input of 4 KiB takes must be seen above the noise.
LEAST = 1.0


class TooSlow(BaseException):
    """The limit of time was reached; no ``except Exception`` of a parser may catch it."""


@dataclass(frozen=True)
class Find:
    """What a parser did wrong.

    :ivar kind: the type of the error.
    :ivar place: file and line, or function, in the package.
    :ivar text: the error, in one line.
    """

    parser: str
    kind: str
    place: str
    text: str

    @property
    def key(self) -> str:
        """What two finds of one fault share."""
        return f"{self.parser}:{self.kind}:{self.place}"

    def __str__(self) -> str:
        return f"{self.parser}: {self.kind} at {self.place}: {self.text}"

    def fields(self) -> dict[str, str]:
        """Return it as plain data."""
        return asdict(self)


def _too_slow(_signum: int, _frame: FrameType | None) -> None:
    raise TooSlow


@contextlib.contextmanager
def _limited(memory: int, seconds: float) -> Iterator[None]:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    # Processor time: other work on the machine is no fault.
    signal.signal(signal.SIGPROF, _too_slow)
    resource.setrlimit(resource.RLIMIT_AS, (pages * _PAGE + memory, hard))
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def attempt(parser: Parser, data: bytes, factor: float = 1.0) -> Find | None:
    """Give an input to a parser.

    :param factor: of the limit of time; more than 1 where each line is also counted.
    :return: None if it was read, or refused with an allowed error, within the limits.
    """
    share = max(len(data) / MIB, 1 / 8)
    seconds = max(parser.seconds * share, LEAST) * factor
    began = time.process_time()
    try:
        with _limited(int(parser.memory * max(share, 1 / 4)), seconds):
            parser.call(data)
    except parser.allowed:
        pass
    except (Exception, TooSlow) as error:
        return _find(parser, error)
    # One call of C does not see the timer.
    took = time.process_time() - began
    if took > seconds:
        return Find(parser.name, "TooSlow", "its end", f"{took:.1f} s of processor time")
    return None


def _find(parser: Parser, error: BaseException) -> Find:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(_PACKAGE)] or frames
    frame = ours[-1]
    file = os.path.relpath(frame.filename, Path(_PACKAGE).parent)
    # A limit may be met in any line.
    exact = not isinstance(error, TooSlow | MemoryError | RecursionError)
    place = f"{file}:{frame.lineno}" if exact else f"{file}, {frame.name}"
    text = " ".join(str(error).split())[:200]
    return Find(parser.name, type(error).__name__, place, text)


def smaller(parser: Parser, data: bytes, find: Find, seconds: float) -> bytes:
    """Return a shorter input with the same fault.

    :param seconds: for the search.
    """
    until = time.monotonic() + seconds
    size = len(data) // 2
    while size and find.kind != "TooSlow":
        start = 0
        while start < len(data):
            if time.monotonic() > until:
                return data
            shorter = data[:start] + data[start + size :]
            again = attempt(parser, shorter)
            if again is not None and again.key == find.key:
                data = shorter
            else:
                start += size
        size //= 2
    return data
