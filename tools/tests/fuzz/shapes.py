# SPDX-License-Identifier: GPL-2.0-only
"""Large inputs of the shapes that make parsers slow: long lines, repetition, nesting."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TypeAlias

#: The name of a shape, and what makes it: all of them do not fit into memory.
Shape: TypeAlias = tuple[str, Callable[[], bytes]]

# What is repeated: a byte, an opening bracket, a separator, a character of four bytes.
_UNITS = (
    *(bytes([byte]) for byte in b"\0\xff\n\r\t A9.:,-#[{(<\"'\\/+@|\x1b"),
    b"\r\n", b"a\n", b"a.", b"a/", b"../", b"[],", b'{"a":', b"a={a=", b"[[a]]\n", b"a=1\n",
    b" #", b": ", b"\xf0\x9f\x90\xa7", b"\xc2\x85", b"\x1b[", b"/* ", b"#if\n",
    b"diff --git a/a b/a\n", b"@@ -1 +1 @@\n", b"=?utf-8?q?a?= ",
)  # fmt: skip
# What a line is stretched with.
_FILLERS = (b" ", b"a", b"9", b":1", b"ld:", b"(", b'\\"')
_MOST_LINES, _MOST_PLACES = 30, 4
_DIGITS = re.compile(rb"\d+")


def shapes(seeds: Sequence[bytes], size: int) -> list[Shape]:
    """Return inputs of about *size* bytes, in an order that differs each time."""
    found: list[Shape] = [
        (f"{unit!r} repeated", partial(_filled, b"", unit, b"", size)) for unit in _UNITS
    ]
    found += [shape for seed in seeds for shape in _of_seed(seed, size)]
    # If there is no time for all, some of each kind are read.
    random.shuffle(found)
    return found


def _filled(before: bytes, unit: bytes, after: bytes, size: int) -> bytes:
    return before + unit * (size // max(len(unit), 1)) + after


def _of_seed(seed: bytes, size: int) -> Iterator[Shape]:
    yield "a seed repeated", partial(_filled, b"", seed, b"", size)
    if b"\0" in seed:
        # The last structures of a table, at any byte.
        for length in (4, 8, 16, 20, 24, 32, 48):
            yield f"{length} bytes repeated", partial(_filled, seed, seed[-length:], b"", size)
        return
    lines = seed.splitlines(keepends=True)
    chosen = sorted({line: number for number, line in enumerate(lines)}.values())
    for number in islice(chosen, _MOST_LINES):
        yield from _of_line(lines, number, size)


def _of_line(lines: Sequence[bytes], number: int, size: int) -> Iterator[Shape]:
    before, line, after = b"".join(lines[:number]), lines[number], b"".join(lines[number + 1 :])
    name = f"line {line.strip()[:40]!r}"
    yield f"{name} repeated", partial(_filled, before, line, after, size)
    yield f"{name} counted up", partial(_counted, before, line, after, size)
    for match in islice(re.finditer(rb"\S+", line), _MOST_PLACES):
        place = match.end()
        ends = before + line[:place], b"!" + line[place:] + after
        for filler in _FILLERS:
            stretched = partial(_filled, ends[0], filler, ends[1], size)
            yield f"{name} stretched by {filler!r} at {place}", stretched


def _counted(before: bytes, line: bytes, after: bytes, size: int) -> bytes:
    """Repeat a line with another number in it each time."""
    numbers = list(_DIGITS.finditer(line))
    start, end = numbers[-1].span() if numbers else (len(line.rstrip()),) * 2
    values = range(1, size // (len(line) + 4))
    return before + b"".join(b"%s%d%s" % (line[:start], n, line[end:]) for n in values) + after
