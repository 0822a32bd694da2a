# SPDX-License-Identifier: GPL-2.0-only
"""The record of one call of a command, as it is kept, exported and shown.

To the user this is a run: ``iommuq prove 6.12`` is one, whatever it took from the store.
It is a table of cells, steps of the queue by lanes, each with the results of one suite on
one image.  ``docs/generated/results.schema.json`` is made from these classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, ClassVar

from iommuq.results.known import Verdict
from iommuq.results.store import Status

#: Version of the JSON form.
FORMAT = 2


class State(StrEnum):
    """How far a run came."""

    FINISHED = "finished"
    RUNNING = "running"
    #: Killed, or the machine went down: whatever it has found, it is not all.
    INCOMPLETE = "incomplete"


@dataclass(frozen=True)
class _Form:
    """A class of the JSON form: no key but its own."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True)
class Known(_Form):
    """Why a failure is no surprise.

    :ivar expires: the last day that this counts, ``2027-06-01``.
    """

    reason: str
    link: str
    expires: str


@dataclass(frozen=True)
class Test(_Form):
    """One test at one step.

    :ivar name: without the lane, ``iommu_dma_owner.claim_plain``.
    :ivar status: what was seen.
    :ivar verdict: what it means once known failures are taken into account.
    :ivar duration: seconds; 0 if it was not measured.
    :ivar log: path of the full log, on the machine that ran it.
    :ivar answer: what a firmware check's step answered.
    """

    name: str
    status: Status
    verdict: Verdict
    duration: float = 0.0
    message: str = ""
    log: str = ""
    answer: str = ""
    known: Known | None = None

    # pytest takes any class of this name for tests.
    __test__: ClassVar[bool] = False


@dataclass(frozen=True)
class Splat(_Form):
    """A report of a broken kernel; see `iommuq.results.store.Complaint`."""

    test: str
    kind: str
    title: str
    text: str
    log: str = ""
    line: int = 0
    expected: bool = False


@dataclass(frozen=True)
class Cell(_Form):
    """One step in one lane.

    :ivar step: label of the step.
    :ivar run: id of the run of the suite that the results are of; empty without one.
    :ivar reused: the results were in the store already.
    :ivar failure: why there is no kernel to run; empty if there is one.
    :ivar warnings: all compiler warnings of the kernel, normalised; None if unknown.
    :ivar added: those that the step before did not have.
    """

    step: str
    lane: str
    run: str = ""
    reused: bool = False
    kernel: str = ""
    guest: str = ""
    accelerator: str = ""
    started: float = 0.0
    finished: float | None = None
    failure: str = ""
    tests: tuple[Test, ...] = ()
    splats: tuple[Splat, ...] = ()
    warnings: tuple[str, ...] | None = None
    added: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step(_Form):
    """A step of the queue.

    :ivar label: ``baseline``, ``0001``.
    :ivar subject: of its patch; empty for the baseline.
    :ivar name: file of its patch; empty for the baseline.
    :ivar sha256: of that file.
    :ivar proof: why no test shows what the patch does, if none does.
    :ivar accepted: tests that it may break, and that a later patch fixes.
    """

    label: str
    subject: str = ""
    name: str = ""
    sha256: str = ""
    proof: str = ""
    accepted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Timing(_Form):
    """Something that was done on the way.

    :ivar depth: how many things it was part of.
    :ivar started: seconds since the run began.
    :ivar outcome: empty if it came to its end, else ``failed`` or ``interrupted``.
    """

    title: str
    depth: int
    started: float
    seconds: float
    outcome: str = ""
    log: str = ""


@dataclass(frozen=True)
class Head(_Form):
    """What there is to say of a run as a whole.

    :ivar title: kernel and lanes, in words.
    :ivar kernel: release of the base's kernel.
    :ivar version: of the package or tag that it is from.
    :ivar tool: version of iommuq.
    :ivar versions: of what built and ran it, such as ``gcc``.
    :ivar findings: faults of the queue, one line each.
    :ivar errors: what the infrastructure failed to tell, one line each.
    :ivar error: why the command itself ended early; empty if it did not.
    :ivar coverage: as ``--coverage-json`` writes it; None without coverage.
    :ivar mutants: as ``mutate --json`` writes it; None if there were none.
    """

    title: str = ""
    kernel: str = ""
    version: str = ""
    tool: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    steps: tuple[Step, ...] = ()
    findings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    error: str = ""
    coverage: dict[str, Any] | None = None
    mutants: dict[str, Any] | None = None


@dataclass(frozen=True)
class Record(_Form):
    """One call of a command.

    :ivar command: as it was typed, without ``iommuq``.
    :ivar state: never ``finished`` for one that was killed.
    :ivar started: seconds since the epoch.
    :ivar exit_code: of the command, None if it did not come to its end.
    """

    id: str
    command: str
    base: str
    state: State
    started: float
    finished: float | None = None
    exit_code: int | None = None
    head: Head = Head()
    cells: tuple[Cell, ...] = ()
    timings: tuple[Timing, ...] = ()

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """All steps in order, those that only the cells name included."""
        known = {step.label: step for step in self.head.steps}
        for cell in self.cells:
            known.setdefault(cell.step, Step(cell.step))
        used = {cell.step for cell in self.cells}
        return tuple(step for label, step in known.items() if label in used)

    @cached_property
    def lanes(self) -> tuple[str, ...]:
        """The lanes in order."""
        return tuple(dict.fromkeys(cell.lane for cell in self.cells))

    @property
    def seconds(self) -> float | None:
        """How long it took, None if it did not come to its end."""
        return None if self.finished is None else self.finished - self.started

    def tests(self) -> Iterator[tuple[Cell, Test]]:
        """Yield every test with its cell."""
        for cell in self.cells:
            for test in cell.tests:
                yield cell, test

    def name(self, cell: Cell, test: Test) -> str:
        """Return what a test is called in this run: with its lane where there are several."""
        return f"{cell.lane}.{test.name}" if len(self.lanes) > 1 else test.name
