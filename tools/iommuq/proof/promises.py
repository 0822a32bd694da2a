# SPDX-License-Identifier: GPL-2.0-only
"""What each patch of a queue promises to mend: ``patches/<base>/proof.toml``.

    [[patch]]
    name = "resv-direct/0001"          # section and number, or the file's name
    fixes = ["kunit.iommu_dma_owner.claim_direct_refused"]

    [[patch]]
    name = "resv-direct/0002"
    reason = "takes out what 0001 made needless; nothing behaves differently"

A patch of a series may break a test that a later one mends.  It says so, with the reason,
and the test must pass at the end of the queue, or be listed there as a known failure:

    [[patch]]
    name = "resv-direct/0001"
    fixes = ["kunit.iommu_dma_owner.claim_direct_refused"]
    breaks = ["kunit.iommu_set_domain.must_succeed_blocking_direct_untrusted"]
    because = "the refusal does not look at the flags; follow-up/0009 does"

A patch that later ones need may be proven by what happens without it at the end of the queue:

    [[patch]]
    name = "follow-up/0001"
    reason = "needed by the next one"
    needed_by = ["firmware.q35-amd.late-joiner-bridge.alias_still_translates"]

A base that some suites have nothing to say about names those that there are, above all that:

    suites = ["kunit"]

Tests are named as the table of `iommuq prove` names them, the suite first.  A patch that
is not in the file is unproven.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from iommuq.bases.providers.job import Table, require
from iommuq.proof.matrix import Change, Column, Matrix
from iommuq.queue.model import BASELINE, Queue, named_step
from iommuq.results.known import Verdict
from iommuq.system import tables
from iommuq.system.errors import UserError

#: What the file is called.
NAME = "proof.toml"
#: What may become of a test that a patch breaks; an entry of the list that is past its date is not.
_SETTLED = (Verdict.OK, Verdict.KNOWN)


@dataclass(frozen=True)
class Promise(Table):
    """What one patch is proven by.

    :ivar name: the patch, as `queue.model.named_step` takes it.
    :ivar fixes: tests that fail before it and pass after it.
    :ivar reason: why there are none.
    :ivar breaks: tests that pass before it, fail after it, and pass in the end or are known
        failures there; or that it takes away.
    :ivar because: why it may.
    :ivar needed_by: tests that pass at the end of the queue, and would not without it.
    """

    name: str
    fixes: tuple[str, ...] = ()
    reason: str = ""
    breaks: tuple[str, ...] = ()
    because: str = ""
    needed_by: tuple[str, ...] = ()

    @property
    def proof(self) -> tuple[str, ...]:
        """The tests that fail if it is taken out of the whole queue."""
        return self.fixes + self.needed_by

    @property
    def named(self) -> tuple[str, ...]:
        """All tests that it names."""
        return self.fixes + self.breaks + self.needed_by

    def __post_init__(self) -> None:
        require(bool(self.fixes) != bool(self.reason.strip()), "wants either fixes or a reason")
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

    :ivar path: the file; it need not exist if there are none.
    :ivar promises: by label of the patch.
    :ivar suites: what there is to prove with on this base; empty for everything.
    """

    path: Path
    promises: dict[str, Promise]
    suites: tuple[str, ...] = ()

    @property
    def exists(self) -> bool:
        """Whether there is a file at all."""
        return self.path.exists()

    @property
    def proofs(self) -> dict[str, tuple[str, ...]]:
        """By label of the patch, the tests that fail if it is taken out of the whole queue."""
        return {label: promise.proof for label, promise in self.promises.items()}

    def may_break(self, label: str) -> frozenset[str]:
        """Return the tests that a patch may break, by their full names."""
        promise = self.promises.get(label)
        return frozenset(() if promise is None else promise.breaks)


def load(queue: Queue) -> ProofFile:
    """Read the promises of a queue; without a file there are none.

    :raises UserError: it is malformed, or names a patch that is not in the queue or is
        part of the baseline, or one patch twice, or a suite that is not run.
    """
    path = queue.folder / NAME
    if not path.exists():
        return ProofFile(path, {})
    promises: dict[str, Promise] = {}
    document = tables.load(_Document, path)
    for promise in document.patch:
        label = named_step(queue, promise.name)
        if label in (None, BASELINE):
            raise UserError(
                f"{path}: no patch {promise.name!r} in the queue",
                hint="there are " + (", ".join(patch.label for patch in queue.sent) or "none"),
            )
        if label in promises:
            raise UserError(f"{path}: {promise.name} is there twice")
        promises[label] = promise
    _check_suites(path, document)
    return ProofFile(path, promises, document.suites)


def _check_suites(path: Path, document: _Document) -> None:
    """Refuse a promise that would never be judged, as one on a suite that is misspelt."""
    # Here and not above: the lanes are made of what judges them.
    from iommuq.proof.lanes import names

    for suite in document.suites:
        if suite not in names():
            raise UserError(f"{path}: no suite {suite!r}; there are {', '.join(names())}")
    suites = document.suites or names()
    for promise in document.patch:
        for test in promise.named:
            if test.partition(".")[0] not in suites:
                raise UserError(
                    f"{path}: {promise.name}: {test} is of no suite that it is proven with",
                    hint=f"they are {', '.join(suites)}",
                )


def broken_promises(
    file: ProofFile, matrix: Matrix, queue: Queue, lanes: Collection[str]
) -> list[str]:
    """Hold a table against the promises.

    :param matrix: with full names of tests.
    :param lanes: the suites that were run; promises on others cannot be judged.
    :return: what is not proven, one line each.
    """
    found = []
    changes = {change.column.label: change for change in matrix.changes}
    known = {row.name for row in matrix.rows}
    # What mends a break may come after the steps that were asked for.
    whole = matrix.columns[-1].label == queue.sent[-1].label if queue.sent else True
    for patch in queue.sent:
        promise = file.promises.get(patch.label)
        if promise is None:
            found.append(f"{patch.label}: {file.path.name} does not say what proves it")
            continue
        change = changes.get(patch.label)
        if change is None or change.column.note:
            # That it has no kernel, or was not asked for, is said elsewhere.
            continue
        for test in promise.fixes:
            if test.partition(".")[0] in lanes and test not in change.fixed:
                why = _why(test, change, known, matrix)
                found.append(f"{patch.label}: does not fix {test}{why}")
        for test in promise.breaks:
            if test.partition(".")[0] not in lanes:
                continue
            if test in change.gone:
                # Renamed, or taken away: why is what "because" is for.
                continue
            if test not in change.broke:
                found.append(f"{patch.label}: does not break {test}, and says it would")
            elif whole and matrix.columns[-1].verdicts.get(test) not in _SETTLED:
                found.append(f"{patch.label}: breaks {test}, which nothing mends")
        if whole and not matrix.columns[-1].note:
            found += _in_need(promise, matrix.columns[-1], lanes, patch.label)
    return found


def _in_need(promise: Promise, last: Column, lanes: Collection[str], label: str) -> list[str]:
    """Say which tests that need a patch do not pass at the end of the queue."""
    verdicts = {
        test: last.verdicts.get(test)
        for test in promise.needed_by
        if test.partition(".")[0] in lanes
    }
    return [
        f"{label}: is needed by {test}: {verdict.value if verdict else 'not run'} at the end"
        for test, verdict in verdicts.items()
        if verdict is not Verdict.OK
    ]


def _why(test: str, change: Change, known: Collection[str], matrix: Matrix) -> str:
    """Say why a test is not fixed by a patch, as far as the table tells."""
    if test not in known:
        return ", which no step has"
    row = next(row for row in matrix.rows if row.name == test)
    at = [column.label for column in matrix.columns].index(change.column.label)
    before, after = (
        "not run" if cell is None else cell.value for cell in (row.cells[at - 1], row.cells[at])
    )
    return f": {before} before, {after} after"
