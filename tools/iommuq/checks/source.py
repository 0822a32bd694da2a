# SPDX-License-Identifier: GPL-2.0-only
"""Checks of the files that a patch changes, without a build."""

from __future__ import annotations

import re
from collections import Counter

from iommuq.checks.model import REGISTRY, Finding, Status, Subject
from iommuq.queue.hunks import hunks

_INCLUDE = re.compile(rb'^\s*#\s*include\s+([<"][^>"]+[>"])', re.MULTILINE)


@REGISTRY.add("applies", "applies in its place, alone")
def applies(subject: Subject) -> list[Finding]:
    """The patch changes its tree.  One that does not apply is an error before any check."""
    tree = subject.need_tree()
    if tree.before == tree.after:
        return [Finding(Status.FAIL, "no change")]
    return []


@REGISTRY.add("includes", "headers that are included twice")
def includes(subject: Subject) -> list[Finding]:
    """The patch does not include a header a second time."""
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
    """Added lines have no trailing blanks and no conflict markers."""
    found = []
    for hunk in hunks(subject.patch.diff):
        for number in hunk.added:
            line = hunk.after[number]
            if line != line.rstrip():
                found.append(Finding(Status.WARN, "blanks at the end of a line", hunk.path))
            if re.match(rb"(?:<{7}|>{7})(?: |$)", line):
                found.append(Finding(Status.FAIL, "a conflict marker", hunk.path))
    return list(dict.fromkeys(found))
