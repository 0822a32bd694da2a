# SPDX-License-Identifier: GPL-2.0-only
"""Split a unified diff into hunks, for messages and comparison.  Only git applies diffs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_HEADER = re.compile(rb"@@ -(\d{1,19})(?:,(\d{1,19}))? \+(\d{1,19})(?:,(\d{1,19}))? @@")
_NAME = re.compile(rb"(?:---|\+\+\+) ([^\t\r\n]+)")


@dataclass(frozen=True)
class Hunk:
    """One hunk of a diff.

    :ivar path: the file, without the leading ``a/``.
    :ivar header: its ``@@`` line.
    :ivar number: its number within the file, from 1.
    :ivar line: the line of *header* in the diff, from 1.
    :ivar start: its first line in the old file, from 1.
    :ivar before: context and removed lines, without line ends.
    :ivar after: context and added lines, without line ends.
    :ivar new_start: its first line in the new file, from 1; one less if *after* is empty.
    :ivar removed: indices of the removed lines in *before*.
    :ivar added: indices of the added lines in *after*.
    """

    path: str
    header: str
    number: int
    line: int
    start: int
    before: tuple[bytes, ...]
    after: tuple[bytes, ...]
    new_start: int = 0
    removed: tuple[int, ...] = ()
    added: tuple[int, ...] = ()


def _path(old: bytes, new: bytes) -> str:
    name = new if old == b"/dev/null" else old
    return name.strip(b'"').partition(b"/")[2].decode("utf-8", "backslashreplace")


def hunks(diff: bytes) -> Iterator[Hunk]:
    """Yield the hunks of *diff* in order."""
    lines = diff.split(b"\n")
    old = new = b""
    number = at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        name = _NAME.match(line)
        if name and line.startswith(b"---"):
            old = name[1]
        elif name:
            new, number = name[1], 0
        head = _HEADER.match(line)
        if not head:
            continue
        number += 1
        first = at
        # A count that is left out is 1.
        left = [1 if count is None else int(count) for count in (head[2], head[4])]
        before: list[bytes] = []
        after: list[bytes] = []
        removed: list[int] = []
        added: list[int] = []
        while at < len(lines) and (left[0] > 0 or left[1] > 0):
            sign, text = lines[at][:1], lines[at][1:]
            at += 1
            if sign == b"-":
                removed.append(len(before))
            elif sign == b"+":
                added.append(len(after))
            if sign in (b" ", b"-", b""):
                before.append(text)
                left[0] -= 1
            if sign in (b" ", b"+", b""):
                after.append(text)
                left[1] -= 1
        yield Hunk(
            path=_path(old, new),
            header=line.decode("utf-8", "backslashreplace").rstrip(),
            number=number,
            line=first,
            start=int(head[1]),
            before=tuple(before),
            after=tuple(after),
            new_start=int(head[3]),
            removed=tuple(removed),
            added=tuple(added),
        )
