# SPDX-License-Identifier: GPL-2.0-only
"""Checks of what a patch does to the files, without building anything."""

from __future__ import annotations

import re
from collections import Counter

from iommuq.checks.model import REGISTRY, Finding, Status, Subject
from iommuq.queue.hunks import hunks

_INCLUDE = re.compile(rb'^\s*#\s*include\s+([<"][^>"]+[>"])', re.MULTILINE)


@REGISTRY.add("applies", "applies in its place, alone")
def applies(subject: Subject) -> list[Finding]:
    """The patch makes its tree of the one before it, and nothing is left as it was.

    A queue whose patch does not apply ends before any check, with the place of the
    hunk; what is seen here is that it is not empty.
    """
    tree = subject.need_tree()
    if tree.before == tree.after:
        return [Finding(Status.FAIL, "it changes nothing")]
    return []


@REGISTRY.add("includes", "headers that are included twice")
def includes(subject: Subject) -> list[Finding]:
    """No file includes a header twice that included it once before."""
    tree = subject.need_tree()
    found = []
    for change in subject.changes:
        if not change.path.endswith((".c", ".h")):
            continue
        before, after = (
            Counter(_INCLUDE.findall(tree.store.read_file(each, change.path) or b""))
            for each in (tree.before, tree.after)
        )
        found += [
            Finding(Status.WARN, f"{name.decode('utf-8', 'replace')} twice", change.path)
            for name, count in after.items()
            if count > 1 and count > before[name]
        ]
    return found


@REGISTRY.add("blanks", "blanks at the end of lines, and conflict markers")
def blanks(subject: Subject) -> list[Finding]:
    """What a patch adds has no blanks at the end, and no markers of a conflict."""
    found = []
    for hunk in hunks(subject.patch.diff):
        for number in hunk.added:
            line = hunk.after[number]
            if line != line.rstrip():
                found.append(Finding(Status.WARN, "blanks at the end of a line", hunk.path))
            if re.match(rb"(?:<{7}|>{7})(?: |$)", line):
                found.append(Finding(Status.FAIL, "a marker of a conflict", hunk.path))
    return list(dict.fromkeys(found))
