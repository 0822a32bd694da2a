# SPDX-License-Identifier: GPL-2.0-only
"""Explain why a patch does not apply, and name the nearest text in the tree."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import takewhile
from operator import eq

from iommuq.queue.hunks import Hunk, hunks
from iommuq.queue.model import Patch
from iommuq.system.errors import VerdictError

#: The least share of a hunk's text that a place must have to be named.
_ENOUGH = 0.4
_EVERYWHERE = {b"", b"{", b"}", b"};"}

_FAILED = re.compile(r"^error: patch failed: (.+):(\d+)$", re.MULTILINE)
_FIRST = re.compile(r"^error: (.+)$", re.MULTILINE)


def explain(patch: Patch, said: str, read_file: Callable[[str], bytes | None]) -> VerdictError:
    """Return the error for a patch that git refused.

    :param said: the standard error of git.
    :param read_file: returns the content of a file in the tree; None if it is missing.
    """
    failed = _FAILED.search(said)
    if not failed:
        first = _FIRST.search(said)
        reason = first[1] if first else said.strip() or "git gave no reason"
        return VerdictError(
            f"{patch.name} does not apply: {reason.replace(' in index', ' in the tree')}",
            hint="check that the base, or a patch before it, has that file",
        )
    path, start = failed[1], int(failed[2])
    hunk = next(
        (each for each in hunks(patch.diff) if (each.path, each.start) == (path, start)), None
    )
    if hunk is None:
        return VerdictError(f"{patch.name} does not apply: {path}:{start}", hint="line from git")
    at = f"{patch.path}:{patch.diff_line + hunk.line - 1}" if patch.diff_line else "encoded mail"
    return VerdictError(
        f"{patch.name} does not apply: {path}, hunk {hunk.number} ({hunk.header}) [{at}]",
        hint=where_to_look(hunk, read_file(path)),
    )


def where_to_look(hunk: Hunk, content: bytes | None) -> str:
    """Return a sentence that says where the text of a hunk, or the nearest to it, is."""
    if content is None:
        return f"there is no {hunk.path} in the tree"
    lines = content.split(b"\n")
    offset, _ = _nearest(hunk.after, lines, hunk.start - 1)
    there = tuple(lines[offset : offset + len(hunk.after)])
    if there == hunk.after != hunk.before and not set(there) <= _EVERYWHERE:
        return f"the change is probably in {hunk.path}:{offset + 1} already"
    offset, share = _nearest(hunk.before, lines, hunk.start - 1)
    if share < _ENOUGH:
        return f"no similar text in {hunk.path}"
    same = takewhile(bool, map(eq, hunk.before, lines[offset:]))
    differs = offset + 1 + len(list(same))
    return f"the nearest text is at {hunk.path}:{offset + 1}, differing from line {differs} on"


def _nearest(wanted: Sequence[bytes], lines: Sequence[bytes], near: int) -> tuple[int, float]:
    """Return the offset in *lines* with most of *wanted*, and the share found there."""
    # Braces and empty lines are everywhere, so they count only if there is nothing else.
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
