# SPDX-License-Identifier: GPL-2.0-only
"""Excerpts of logs for a report: begin, end, and the lines of the most important tests."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from iommuq.results.console import ktap
from iommuq.system.logtext import LINES, clean_line

#: Largest size in bytes of a log that is searched for tests; else only the ends are read.
SEARCHED = 16 << 20
#: Lines at the begin, at the end, and for each test.
HEAD, TAIL, AROUND = 60, 120, 60
#: Tests of a log with lines in the excerpt.
MOST_TESTS = 40
#: Characters of a line.
WIDTH = 500
#: Bytes of an excerpt.
KEPT = 96 << 10
_ENDS = 48 << 10

_MARK = re.compile(r"iommuq: ([^|\s]+)\| ?")


@dataclass(frozen=True)
class Excerpt:
    """The excerpt of one log.

    :ivar size: bytes of the whole file.
    :ivar lines: lines of the whole file; 0: unknown.
    :ivar parts: pieces, each with the number of its first line; 0: unknown.
    :ivar missing: why there is no piece, or empty.
    :ivar where: first and last line of tests that were found, by name.
    """

    path: str
    size: int = 0
    lines: int = 0
    parts: tuple[tuple[int, tuple[str, ...]], ...] = ()
    missing: str = ""
    where: dict[str, tuple[int, int]] = field(default_factory=dict)


def read(path: str, tests: Sequence[str], below: Path | None = None) -> Excerpt:
    """Return an excerpt of a log, or one that tells why it cannot be read.

    :param tests: names without the lane, the most important first.
    :param below: read nothing outside of this directory.
    """
    if not path:
        return Excerpt(path, missing="no log was kept")
    try:
        place = Path(path)
        if below is not None and not place.resolve().is_relative_to(below.resolve()):
            return Excerpt(path, missing="the log is on the machine that made this run")
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            return Excerpt(path, missing="not a file")
        with os.fdopen(descriptor, "rb") as file:
            if status.st_size > SEARCHED:
                last = os.pread(file.fileno(), _ENDS, status.st_size - _ENDS)
                return _ends(path, file.read(_ENDS), last)
            data = file.read(SEARCHED)
            if data.count(b"\n") > LINES:
                return _ends(path, data[:_ENDS], data[-_ENDS:])
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        gone = isinstance(error, FileNotFoundError)
        return Excerpt(path, missing="the log is gone" if gone else f"cannot be read: {reason}")
    lines = data.decode("utf-8", "backslashreplace").split("\n")
    if not lines[-1]:
        lines.pop()
    clean = [clean_line(line) for line in lines]
    where = locate(clean, tests)
    return Excerpt(path, len(data), len(clean), tuple(_parts(clean, where)), where=where)


def _ends(path: str, first: bytes, last: bytes) -> Excerpt:
    size = Path(path).stat().st_size
    head = first.decode("utf-8", "backslashreplace").split("\n")[:-1]
    tail = last.decode("utf-8", "backslashreplace").split("\n")[1:]
    parts = tuple(
        (number, tuple(_cut(clean_line(line)) for line in lines))
        for number, lines in ((1, head), (0, tail))
    )
    return Excerpt(path, size, 0, parts)


def locate(lines: Sequence[str], tests: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Return the first and last line, numbered from 1, of the tests that are found.

    KUnit's cases are in the console's KTAP.  Lines of a program have its name as a prefix;
    all checks of a firmware scenario have the same lines.
    """
    wanted = dict.fromkeys(tests)
    found: dict[str, tuple[int, int]] = {}
    if not wanted:
        return found
    marks = [match and match[1] for match in map(_MARK.match, lines)]
    programs = set(sorted({mark for mark in marks if mark})[:MOST_TESTS])
    if not programs:
        for case in ktap.parse(lines).tests:
            if case.name in wanted and case.first:
                found[case.name] = (case.first, case.last)
        return found
    for program in programs:
        at = [number for number, mark in enumerate(marks, 1) if mark == program]
        own = [
            _MARK.sub("", line, count=1) if mark == program else "" if mark else line
            for line, mark in zip(lines, marks, strict=True)
        ]
        for case in ktap.parse(own[: at[-1]]).tests:
            name = f"{program}.{case.name}"
            if name in wanted and case.first:
                found[name] = (max(case.first, at[0]), case.last)
        for name in wanted:
            # <machine>.<scenario>.<check>, or a result of a program as a whole.
            words = name.split(".")
            if name not in found and program in words[:2]:
                found[name] = (at[0], at[-1])
    return found


def _parts(
    lines: Sequence[str], where: dict[str, tuple[int, int]]
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the pieces of an excerpt, without overlap."""
    keep: set[int] = set(range(1, HEAD + 1)) | set(range(len(lines) - TAIL + 1, len(lines) + 1))
    for first, last in list(dict.fromkeys(where.values()))[:MOST_TESTS]:
        # The last lines of a test are the most important.
        keep |= set(range(max(first, last - AROUND), last + 4))
    numbers = sorted(number for number in keep if 1 <= number <= len(lines))
    left = KEPT
    begin = 0
    for number, (here, after) in enumerate(pairwise([*numbers, len(lines) + 2])):
        if after == here + 1:
            continue
        piece = tuple(_cut(lines[one - 1]) for one in numbers[begin : number + 1])
        left -= sum(map(len, piece))
        if left >= 0:
            yield numbers[begin], piece
        begin = number + 1


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[:WIDTH]}…"


def total(excerpts: Collection[Excerpt]) -> int:
    """Return the number of characters of excerpts."""
    return sum(len(line) + 1 for one in excerpts for _, lines in one.parts for line in lines)
