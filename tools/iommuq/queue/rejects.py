# SPDX-License-Identifier: GPL-2.0-only
"""Say why a patch does not apply, and where in the tree to look."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import takewhile
from operator import eq

from iommuq.queue.hunks import Hunk, hunks
from iommuq.queue.model import Patch
from iommuq.system.errors import VerdictError

#: A place is worth naming if so much of a hunk's text is there.
_ENOUGH = 0.4
_EVERYWHERE = {b"", b"{", b"}", b"};"}

_FAILED = re.compile(r"^error: patch failed: (.+):(\d+)$", re.MULTILINE)
_FIRST = re.compile(r"^error: (.+)$", re.MULTILINE)


def explain(patch: Patch, said: str, read_file: Callable[[str], bytes | None]) -> VerdictError:
    """Make the error for a patch that git refused.

    :param said: what git wrote to its standard error.
    :param read_file: gives the content of a file of the tree, None if there is no such file.
    """
    failed = _FAILED.search(said)
    if not failed:
        first = _FIRST.search(said)
        reason = first[1] if first else said.strip() or "git gave no reason"
        # "in index" is about our way of applying, not about the tree people see.
        return VerdictError(
            f"{patch.name} does not apply: {reason.replace(' in index', ' in the tree')}",
            hint="do the patches before it, or the base, have that file?",
        )
    path, start = failed[1], int(failed[2])
    hunk = next(
        (each for each in hunks(patch.diff) if (each.path, each.start) == (path, start)), None
    )
    if hunk is None:
        return VerdictError(f"{patch.name} does not apply: {path}:{start}", hint="as git has it")
    at = f"{patch.path}:{patch.diff_line + hunk.line - 1}" if patch.diff_line else "encoded mail"
    return VerdictError(
        f"{patch.name} does not apply: {path}, hunk {hunk.number} ({hunk.header}) [{at}]",
        hint=where_to_look(hunk, read_file(path)),
    )


def where_to_look(hunk: Hunk, content: bytes | None) -> str:
    """Say in words where the text of a hunk is in a file, or what is nearest to it."""
    if content is None:
        return f"there is no {hunk.path} in the tree"
    lines = content.split(b"\n")
    offset, _ = _nearest(hunk.after, lines, hunk.start - 1)
    there = tuple(lines[offset : offset + len(hunk.after)])
    if there == hunk.after != hunk.before and not set(there) <= _EVERYWHERE:
        return f"the change seems to be in {hunk.path}:{offset + 1} already"
    offset, share = _nearest(hunk.before, lines, hunk.start - 1)
    if share < _ENOUGH:
        return f"nothing in {hunk.path} is like it"
    same = takewhile(bool, map(eq, hunk.before, lines[offset:]))
    differs = offset + 1 + len(list(same))
    return f"the nearest text is at {hunk.path}:{offset + 1}, differing from line {differs} on"


def _nearest(wanted: Sequence[bytes], lines: Sequence[bytes], near: int) -> tuple[int, float]:
    """Find the place in *lines* where most of the lines *wanted* are, each in its place.

    Braces and empty lines are everywhere, so they only count if there is nothing else.

    :param near: the offset to prefer among equals.
    :return: the offset, and which share of *wanted* stands there.
    """
    telling = [number for number, line in enumerate(wanted) if line.strip() not in _EVERYWHERE]
    counted = telling or range(len(wanted))
    places: dict[bytes, list[int]] = {}
    for number, line in enumerate(lines):
        places.setdefault(line, []).append(number)
    votes = Counter(
        place - number
        for number in counted
        for place in places.get(wanted[number], ())
        if place >= number
    )
    if not votes:
        return 0, 0.0
    offset, count = max(votes.items(), key=lambda vote: (vote[1], -abs(vote[0] - near)))
    return offset, count / len(counted)
