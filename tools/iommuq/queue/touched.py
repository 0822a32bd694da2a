# SPDX-License-Identifier: GPL-2.0-only
"""Find the functions that the patches of a queue touch, each in the tree after its patch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from iommuq.queue import hunks
from iommuq.queue.csource import Function, parse
from iommuq.queue.steps import Step
from iommuq.system.git.objects import Objects

#: Directories with C files that are not part of the kernel.
_NOT_KERNEL = ("Documentation/", "samples/", "scripts/", "tools/", "usr/")


@dataclass(frozen=True)
class Touched:
    """A function that patches touch.

    :ivar path: its file.
    :ivar patches: their labels, in the order of the queue.
    """

    path: str
    name: str
    patches: tuple[str, ...]


def is_kernel_source(path: str) -> bool:
    """Return whether a file is C of the kernel itself, not of a program in its tree."""
    return path.endswith(".c") and not path.startswith(_NOT_KERNEL)


def touched_functions(store: Objects, steps: Sequence[Step]) -> tuple[Touched, ...]:
    """Return the functions that the patches of a queue touch.

    :param steps: all steps of the queue, the baseline first.
    :return: in the order of the first touch; the last tree may lack some of them.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for before, step in itertools.pairwise(steps):
        for path, changed in _changes(store, before.commit, step.commit).items():
            text = store.read_file(step.commit, path)
            if text is None:
                continue
            for function in parse(text).functions:
                if not any(change.is_in(function) for change in changed):
                    continue
                labels = found.setdefault((path, function.name), [])
                if step.label not in labels:
                    labels.append(step.label)
    return tuple(Touched(path, name, tuple(labels)) for (path, name), labels in found.items())


@dataclass(frozen=True)
class _Lines:
    """Changed lines of the new file; *whole*: the two lines around a pure removal."""

    lines: range
    whole: bool

    def is_in(self, function: Function) -> bool:
        own = range(function.start, function.end + 1)
        inside = [line in own for line in (self.lines[0], self.lines[-1])]
        if self.whole:
            return all(inside)
        return any(inside) or function.start in self.lines


def _changes(store: Objects, before: str, after: str) -> dict[str, list[_Lines]]:
    """Return the changes of the kernel's C files by path."""
    words = ("diff-tree", "-r", "-p", "-U0", "--no-renames", "--no-color", before, after)
    changed: dict[str, list[_Lines]] = {}
    for hunk in hunks.hunks(store.git(*words).output.encode()):
        if is_kernel_source(hunk.path):
            count = len(hunk.after) or 2
            lines = range(hunk.new_start, hunk.new_start + count)
            changed.setdefault(hunk.path, []).append(_Lines(lines, whole=not hunk.after))
    return changed
