# SPDX-License-Identifier: GPL-2.0-only
"""Pieces of logs for a report: the begin, the end, and what is around the tests that matter.

A log of 200 MB is never shown whole, and hardly ever read whole: what is left out is said,
and the file is named.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from iommuq.results.console import ktap
from iommuq.system.logtext import clean_line

#: Bytes of a log that are searched for tests; of a longer one begin and end are read.
SEARCHED = 16 << 20
#: Lines that are kept of the begin, of the end, and around each test.
HEAD, TAIL, AROUND = 60, 120, 60
#: Tests of a log whose lines are kept.
MOST_TESTS = 40
#: Characters that are kept of a line.
WIDTH = 500
#: Bytes of a log that are kept.
KEPT = 96 << 10
_ENDS = 48 << 10

_MARK = re.compile(r"iommuq: ([^|\s]+)\| ?")


@dataclass(frozen=True)
class Excerpt:
    """What is shown of one log.

    :ivar size: bytes of the whole file.
    :ivar lines: lines of the whole file; 0 if unknown.
    :ivar parts: pieces, each with the number of its first line, 0 if unknown.
    :ivar missing: why there are none; empty if there are.
    :ivar where: first and last line of tests that were found, by name.
    """

    path: str
    size: int = 0
    lines: int = 0
    parts: tuple[tuple[int, tuple[str, ...]], ...] = ()
    missing: str = ""
    where: dict[str, tuple[int, int]] = field(default_factory=dict)


def read(path: str, tests: Sequence[str], below: Path | None = None) -> Excerpt:
    """Return an excerpt of a log; what is wrong with the file is said in it.

    :param tests: names of the tests that matter most first, without their lane.
    :param below: read nothing outside of this directory.
    """
    if not path:
        return Excerpt(path, missing="no log was kept")
    try:
        place = Path(path)
        if below is not None and not place.resolve().is_relative_to(below.resolve()):
            return Excerpt(path, missing="the log is on the machine that made this run")
        # Opened without waiting: a FIFO would keep us for ever.
        descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            return Excerpt(path, missing="not a file")
        with os.fdopen(descriptor, "rb") as file:
            if status.st_size > SEARCHED:
                return _ends(path, file.read(_ENDS), _last(file.fileno(), status.st_size))
            data = file.read(SEARCHED)
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


def _last(descriptor: int, size: int) -> bytes:
    return os.pread(descriptor, _ENDS, size - _ENDS)


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
    """Return the first and last line, numbered from 1, of those of some tests that are found.

    KUnit's cases are in the console's own KTAP.  A program's lines have its name before
    them; a firmware scenario's are all one place.
    """
    wanted = dict.fromkeys(tests)
    found: dict[str, tuple[int, int]] = {}
    if not wanted:
        return found
    marks = [match and match[1] for match in map(_MARK.match, lines)]
    programs = {mark for mark in marks if mark}
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
            # <machine>.<scenario>.<check>, and what is said of a program as a whole.
            words = name.split(".")
            if name not in found and program in words[:2]:
                found[name] = (at[0], at[-1])
    return found


def _parts(
    lines: Sequence[str], where: dict[str, tuple[int, int]]
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the pieces that are kept of a log, none overlapping another."""
    keep: set[int] = set(range(1, HEAD + 1)) | set(range(len(lines) - TAIL + 1, len(lines) + 1))
    for first, last in list(dict.fromkeys(where.values()))[:MOST_TESTS]:
        # What a test says last matters most.
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
    """Return how many characters some excerpts have."""
    return sum(len(line) + 1 for one in excerpts for _, lines in one.parts for line in lines)
