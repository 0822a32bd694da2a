# SPDX-License-Identifier: GPL-2.0-only
"""The tests that each patch of a queue must fix: ``patches/<base>/proof.toml``.

`Promise` has the keys of a ``[[patch]]``.  ``suites = […]`` at the top limits the suites.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from iommuq.defaults import SUITES
from iommuq.proof.matrix import Change, Matrix
from iommuq.queue.model import BASELINE, Queue, named_step
from iommuq.results.known import Verdict
from iommuq.system import tables
from iommuq.system.errors import UserError
from iommuq.system.tables import Table, require

#: The name of the file.
NAME = "proof.toml"
#: The valid verdicts, in the end, of a test that a patch breaks.
_SETTLED = (Verdict.OK, Verdict.KNOWN)


@dataclass(frozen=True)
class Promise(Table):
    """The promise of one patch.  Tests are named ``<suite>.<test>``.

    :ivar name: the patch, as `queue.model.named_step` takes it.
    :ivar fixes: tests that fail before it and pass after it.
    :ivar reason: why there are none.
    :ivar breaks: tests that pass before it, fail after it or are removed, and pass or are
        known failures at the end of the queue.
    :ivar because: why it may break them.
    :ivar needed_by: tests that pass at the end of the queue only with it.
    """

    name: str
    fixes: tuple[str, ...] = ()
    reason: str = ""
    breaks: tuple[str, ...] = ()
    because: str = ""
    needed_by: tuple[str, ...] = ()

    @property
    def proof(self) -> tuple[str, ...]:
        """The tests that fail if it is removed from the whole queue."""
        return self.fixes + self.needed_by

    @property
    def named(self) -> tuple[str, ...]:
        """All tests that it names."""
        return self.fixes + self.breaks + self.needed_by

    def __post_init__(self) -> None:
        require(bool(self.fixes) != bool(self.reason.strip()), "needs either fixes or a reason")
        require(bool(self.breaks) == bool(self.because.strip()), "wants breaks with because")
        tests = self.named
        require(len(set(tests)) == len(tests), "names a test twice")
        for test in tests:
            require("." in test and "*" not in test, f"{test!r} is not <suite>.<test>")


@dataclass(frozen=True)
class _Document(Table):
    suites: tuple[str, ...] = ()
    patch: tuple[Promise, ...] = ()


@dataclass(frozen=True)
class ProofFile:
    """All promises of a queue.

    :ivar path: the file, which may not exist.
    :ivar promises: by label of the patch.
    :ivar suites: the suites for this base; empty for all.
    """

    path: Path
    promises: dict[str, Promise]
    suites: tuple[str, ...] = ()

    @property
    def exists(self) -> bool:
        """Whether the file exists."""
        return os.path.lexists(self.path)

    @property
    def proofs(self) -> dict[str, tuple[str, ...]]:
        """The tests that fail without a patch, by its label."""
        return {label: promise.proof for label, promise in self.promises.items()}

    def may_break(self, label: str) -> frozenset[str]:
        """Return the tests that a patch may break, by their full names."""
        promise = self.promises.get(label)
        return frozenset(() if promise is None else promise.breaks)


def load_promises(queue: Queue) -> ProofFile:
    """Read the promises of a queue; without a file there are none.

    :raises UserError: it is malformed, or names an unknown patch or one of the baseline, a
        patch twice, or an unknown suite.
    """
    path = queue.folder / NAME
    if not os.path.lexists(path):
        return ProofFile(path, {})
    promises: dict[str, Promise] = {}
    document = tables.load_toml(_Document, path)
    for promise in document.patch:
        label = named_step(queue, promise.name)
        if label in (None, BASELINE):
            raise UserError(
                f"{path}: no patch {promise.name!r} in the queue",
                hint="there are " + (", ".join(patch.label for patch in queue.sent) or "none"),
            )
        if label in promises:
            raise UserError(f"{path}: {promise.name} is listed twice")
        promises[label] = promise
    _check_suites(path, document)
    return ProofFile(path, promises, document.suites)


def _check_suites(path: Path, document: _Document) -> None:
    """Raise an error for unknown suites, which would never be judged."""
    for suite in document.suites:
        if suite not in SUITES:
            raise UserError(f"{path}: no suite {suite!r}; there are {', '.join(SUITES)}")
    suites = document.suites or tuple(SUITES)
    for promise in document.patch:
        for test in promise.named:
            if test.partition(".")[0] not in suites:
                raise UserError(
                    f"{path}: {promise.name}: {test} is in no suite of this base",
                    hint=f"the suites are {', '.join(suites)}",
                )


def broken_promises(
    file: ProofFile,
    matrix: Matrix,
    queue: Queue,
    lanes: Collection[str],
    lacks: Collection[str] = (),
) -> list[str]:
    """Compare a table with the promises.

    :param matrix: with full names of tests.
    :param lanes: the suites that were run; promises on others are ignored.
    :param lacks: how the names of tests begin that the kernels cannot have.
    :return: the broken promises, one line each.
    """
    found = []
    changes = {change.column.label: change for change in matrix.changes}
    known = {row.name for row in matrix.rows}
    # Breaks are judged only if the last patch was tested, as a later one may fix them.
    last = matrix.columns[-1]
    whole = last.label == queue.sent[-1].label if queue.sent else True
    for patch in queue.sent:
        promise = file.promises.get(patch.label)
        if promise is None:
            found.append(f"{patch.label}: no entry in {file.path.name}")
            continue
        change = changes.get(patch.label)
        if change is None or change.column.note:
            continue  # It was not tested, or does not build.
        for test in promise.fixes:
            if test.startswith(tuple(lacks)):
                continue
            if test.partition(".")[0] in lanes and test not in change.fixed:
                why = _why(test, change, known, matrix)
                found.append(f"{patch.label}: does not fix {test}{why}")
        for test in promise.breaks:
            if test.partition(".")[0] not in lanes or test in change.gone:
                continue
            if test not in change.broke:
                found.append(f"{patch.label}: does not break {test}, but {file.path.name} says so")
            elif whole and last.verdicts.get(test) not in _SETTLED:
                found.append(f"{patch.label}: breaks {test}, and no later patch fixes it")
        for test in promise.needed_by if whole and not last.note else ():
            verdict = last.verdicts.get(test)
            if test.partition(".")[0] in lanes and verdict is not Verdict.OK:
                how = verdict.value if verdict else "not run"
                found.append(f"{patch.label}: is needed by {test}: {how} at the end")
    return found


def _why(test: str, change: Change, known: Collection[str], matrix: Matrix) -> str:
    """Return why a test is not fixed by a patch: its verdicts before and after."""
    if test not in known:
        return ": no step has this test"
    row = next(row for row in matrix.rows if row.name == test)
    at = [column.label for column in matrix.columns].index(change.column.label)
    before, after = (
        "not run" if cell is None else cell.value for cell in (row.cells[at - 1], row.cells[at])
    )
    return f": {before} before, {after} after"
