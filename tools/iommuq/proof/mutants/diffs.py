# SPDX-License-Identifier: GPL-2.0-only
"""Faults from a directory of diffs against the tree with all patches.

The operators of `faults` make the faults that the project thought of.  A reviewer who has not
seen the tests makes others, so they measure the tests better.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path

from iommuq.proof.mutants.faults import Edit, Mutant, decode
from iommuq.proof.mutants.trial import Plan, check_functions
from iommuq.queue.csource import Function, changes, is_kernel_source, parse
from iommuq.queue.hunks import Hunk, hunks
from iommuq.queue.steps import Step
from iommuq.system import files, progress
from iommuq.system.errors import UserError, os_errors_as
from iommuq.system.git.objects import Objects

#: The most faults in a directory, and the most bytes of one diff.
MOST, SIZE = 1000, 1 << 16
# The name of a fault is printed in place of an operator.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


def make_diff_plan(
    store: Objects, steps: Sequence[Step], folder: Path, only: Sequence[str] = ()
) -> Plan:
    """Read the faults in a directory, in the order of their file names.

    :param steps: all steps of the queue, with the overlay.
    :param folder: has one diff in each ``*.patch``; text before the diff is ignored.
    :param only: functions to try; empty for all.
    :raises UserError: there is no diff, or a diff does not apply, or changes anything but one C
        file of the kernel, or changes a test.
    """
    with os_errors_as(UserError, folder):
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".patch")
    if not 0 < len(paths) <= MOST:
        raise UserError(f"{folder}: expected 1 to {MOST} files *.patch, got {len(paths)}")
    step = steps[-1]
    texts: dict[str, bytes] = {}
    mutants = []
    with progress.task("Reading faults") as task:
        task.update(total=len(paths))
        for path in paths:
            mutants.append(_mutant(store, step, path, texts))
            task.update(done=len(mutants))
    check_functions(only, mutants, "diff")
    chosen = tuple(mutant for mutant in mutants if not only or mutant.function in only)
    return Plan(step, texts, (), (), chosen, tuple(mutants), ())


def _mutant(store: Objects, step: Step, file: Path, texts: dict[str, bytes]) -> Mutant:
    """Read one fault, and add the text of the file that it changes to *texts*."""
    if not _NAME.fullmatch(file.stem):
        raise UserError(
            f"{file.parent}: {file.name!a}: expected at most 100 letters, digits and ._+- before"
            " .patch"
        )
    diff = files.read_text(file, most=SIZE).encode()
    # A tree of the files that the diff names: an index of all files takes ten times as long.
    named = {each.path for each in hunks(diff) if is_kernel_source(each.path)}
    small = store.replace(store.repo.write_entries({}), store.entries(step.tree, sorted(named)))
    store.read_tree(small)
    done = store.apply(diff)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise UserError(
            f"{file}: does not apply: {said[-1] if said else 'git does not say why'}",
            hint=f"expected a diff of C files of the kernel at {step.label}",
        )
    tree = store.write_tree()
    changed = store.repo.changed(small, tree)
    old, new = ([store.read_file(each, path) for path in changed] for each in (small, tree))
    if len(changed) != 1 or old[0] is None or new[0] is None or old == new:
        raise UserError(
            f"{file}: expected a change of the text of one C file, got {', '.join(changed)}"
        )
    (path,) = changed
    # The overlay has the tests, and the commit does not.
    if store.read_file(step.commit, path) is None:
        raise UserError(f"{file}: changes {path}, which is a test")
    texts[path] = old[0]
    own = changes(store, small, tree, path)[path]
    return _edited(path, file.stem, _function(parse(old[0]).functions, own), old[0], new[0])


def _function(functions: Iterable[Function], own: Sequence[Hunk]) -> str:
    """Return the name of the first function that a diff without context changes, or nothing."""
    for function in functions:
        for hunk in own:
            first, last = hunk.start, hunk.start + len(hunk.before) - 1
            if not hunk.before:
                # Lines are added after this one: the next one must be in the function, too.
                first, last = first + 1, first
            if function.start <= last and first <= function.end:
                return function.name
    return ""


def _common(one: Sequence[bytes], other: Sequence[bytes]) -> int:
    """Return how many lines at the start of two texts are equal."""
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(1 for _ in pairs)


def _edited(path: str, name: str, function: str, old: bytes, new: bytes) -> Mutant:
    """Return the mutant that replaces the lines from the first to the last different one."""
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    first = _common(before, after)
    was, now = before[first:], after[first:]
    tail = _common(was[::-1], now[::-1])
    was, now = was[: len(was) - tail], now[: len(now) - tail]
    start = len(b"".join(before[:first]))
    edit = Edit(start, start + len(b"".join(was)), b"".join(now))
    shown, then = (decode(b"".join(lines).rstrip(b"\n")) for lines in (was, now))
    return Mutant(path, function, name, first + 1, shown, then, edit)
