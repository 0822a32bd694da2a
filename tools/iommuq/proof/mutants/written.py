# SPDX-License-Identifier: GPL-2.0-only
"""Faults that somebody has written: each is a diff, against the tree with all patches.

Operators make the faults that their author thought of.  Those of a person who has not seen the
tests say more about the tests.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from iommuq.proof.mutants.faults import Edit, Mutant, decode
from iommuq.proof.mutants.trial import Plan
from iommuq.queue.csource import Function, changes, is_kernel_source, parse
from iommuq.queue.hunks import Hunk
from iommuq.queue.steps import Step
from iommuq.system import progress
from iommuq.system.errors import UserError, os_errors_as
from iommuq.system.git.objects import Objects

#: The most faults of a folder, and the most bytes of one.
MOST, SIZE = 1000, 1 << 16
# The name of a fault is printed, and stands for its operator.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


def make_written_plan(
    store: Objects, steps: Sequence[Step], folder: Path, only: Sequence[str] = ()
) -> Plan:
    """Read the faults of a folder, in the order of the names of their files.

    :param steps: all steps of the queue, with the overlay.
    :param folder: has a ``*.patch`` for each fault; what is before its diff is not read.
    :param only: functions to try; empty for all.
    :raises UserError: there is no fault, or one does not apply, or changes anything else than
        one C file of the kernel, or is in the tests.
    """
    with os_errors_as(UserError, folder):
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".patch")
    if not 0 < len(paths) <= MOST:
        raise UserError(f"{folder}: has {len(paths)} faults (*.patch); 1 to {MOST} are expected")
    step = steps[-1]
    texts: dict[str, bytes] = {}
    mutants = []
    with progress.task("Reading faults") as task:
        task.update(total=len(paths))
        for path in paths:
            mutants.append(_mutant(store, step, path, texts))
            task.update(done=len(mutants))
    names = sorted({mutant.function for mutant in mutants} - {""})
    for name in only:
        if name not in names:
            raise UserError(
                f"no fault changes a function {name!r}", hint=f"there are {', '.join(names)}"
            )
    chosen = tuple(mutant for mutant in mutants if not only or mutant.function in only)
    return Plan(step, texts, (), (), chosen, tuple(mutants), ())


def _read(file: Path) -> bytes:
    """Read a diff; what is no file, such as a pipe, is not waited for."""
    if not _NAME.fullmatch(file.stem):
        raise UserError(
            f"{file.parent}: {file.name!a} is no name of a fault: letters, digits, ._+-"
        )
    with os_errors_as(UserError, file):
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UserError(f"{file}: is not a file")
            diff = stream.read(SIZE + 1)
    if len(diff) > SIZE:
        raise UserError(f"{file}: is larger than {SIZE} bytes")
    return diff


def _mutant(store: Objects, step: Step, file: Path, texts: dict[str, bytes]) -> Mutant:
    """Read one fault, and add the text of the file that it changes to *texts*."""
    diff = _read(file)
    store.read_tree(step.tree)
    done = store.apply(diff)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise UserError(
            f"{file}: does not apply: {said[-1] if said else 'git does not say why'}",
            hint=f"a fault is a diff against {step.label}",
        )
    tree = store.write_tree()
    changed = store.repo.changed(step.tree, tree)
    old, new = (
        [store.read_file(each, path) for path in changed if is_kernel_source(path)]
        for each in (step.tree, tree)
    )
    if len(changed) != 1 or len(old) != 1 or old[0] is None or new[0] is None:
        raise UserError(
            f"{file}: a fault changes one C file of the kernel, not {', '.join(changed) or 'none'}"
        )
    (path,) = changed
    if old[0] == new[0]:
        raise UserError(f"{file}: changes the mode of {path}, and nothing in it")
    # Without the tests, which are laid over the tree.
    if store.read_file(step.commit, path) is None:
        raise UserError(f"{file}: {path} is a file of the tests, and not of the kernel")
    texts[path] = old[0]
    hunks = changes(store, step.tree, tree, path)[path]
    function = _function(parse(old[0]).functions, hunks)
    return _edited(path, file.stem, function, old[0], new[0])


def _function(functions: Iterable[Function], hunks: Iterable[Hunk]) -> str:
    """Return the name of the first function that loses or gets a line; empty if none does."""
    lines: set[int] = set()
    for hunk in hunks:
        # A line that is only added is told by the lines around it, which both have to be inside.
        lines |= set(range(hunk.start, hunk.start + len(hunk.before)))
        if not hunk.before:
            lines.add(-hunk.start)
    for function in functions:
        for line in lines:
            inside = function.start <= abs(line) <= function.end - (line < 0)
            if inside:
                return function.name
    return ""


def _edited(path: str, name: str, function: str, old: bytes, new: bytes) -> Mutant:
    """Return the mutant that makes one text of another: from the first to the last other line."""
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    least = min(len(before), len(after))
    first = next((at for at in range(least) if before[at] != after[at]), least)
    same = next((at for at in range(least - first) if before[-1 - at] != after[-1 - at]), None)
    tail = least - first if same is None else same
    was, now = before[first : len(before) - tail], after[first : len(after) - tail]
    start = sum(map(len, before[:first]))
    edit = Edit(start, start + sum(map(len, was)), b"".join(now))
    shown, then = (decode(b"".join(lines).rstrip(b"\n")) for lines in (was, now))
    return Mutant(path, function, name, first + 1, shown, then, edit)
