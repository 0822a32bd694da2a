# SPDX-License-Identifier: GPL-2.0-only
"""Find the functions that the patches of a queue touch.

Patch by patch, in the tree as it is after that patch: a line number means nothing in
the tree that has all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from iommuq.queue import hunks
from iommuq.queue.csource import Function, Source, parse
from iommuq.queue.steps import Step
from iommuq.system.git.objects import Store

#: Where there are C files that are no part of the kernel.
_NOT_KERNEL = ("Documentation/", "samples/", "scripts/", "tools/", "usr/")


@dataclass(frozen=True)
class Touched:
    """A function that one patch or more touch.

    :ivar path: its file.
    :ivar patches: their labels, in the order of the queue.
    """

    path: str
    name: str
    patches: tuple[str, ...]


def is_kernel_source(path: str) -> bool:
    """Tell whether a file is C of the kernel itself, and not of a program beside it."""
    return path.endswith(".c") and not path.startswith(_NOT_KERNEL)


def touched_functions(store: Store, steps: Sequence[Step]) -> tuple[Touched, ...]:
    """Return the functions that the patches of a queue touch.

    :param store: the objects of the base.
    :param steps: all steps of the queue, the baseline first.
    :return: in the order in which they are first touched; some may be gone in the last
        step's tree.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for before, step in itertools.pairwise(steps):
        for path, changed in _changes(store, before.commit, step.commit).items():
            text = store.read_file(step.commit, path)
            if text is None:
                continue
            for name in _names(parse(text), changed):
                labels = found.setdefault((path, name), [])
                if step.label not in labels:
                    labels.append(step.label)
    return tuple(Touched(path, name, tuple(labels)) for (path, name), labels in found.items())


@dataclass(frozen=True)
class _Change:
    """Lines of the new file that differ from the old.

    :ivar whole: all of them must be a function's to be its own: they are the two that
        met where others were taken out, and these stood between them.
    """

    lines: range
    whole: bool

    def is_in(self, function: Function) -> bool:
        own = range(function.start, function.end + 1)
        inside = [line in own for line in (self.lines[0], self.lines[-1])]
        if self.whole:
            return all(inside)
        return any(inside) or function.start in self.lines


def _changes(store: Store, before: str, after: str) -> dict[str, list[_Change]]:
    """Return path -> what differs, of the kernel's C files."""
    words = ("diff-tree", "-r", "-p", "-U0", "--no-renames", "--no-color", before, after)
    changed: dict[str, list[_Change]] = {}
    for hunk in hunks.hunks(store.git(*words).output.encode()):
        if is_kernel_source(hunk.path):
            count = len(hunk.after) or 2
            lines = range(hunk.new_start, hunk.new_start + count)
            changed.setdefault(hunk.path, []).append(_Change(lines, whole=not hunk.after))
    return changed


def _names(source: Source, changes: Sequence[_Change]) -> Iterator[str]:
    for function in source.functions:
        if any(change.is_in(function) for change in changes):
            yield function.name
