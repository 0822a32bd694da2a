# SPDX-License-Identifier: GPL-2.0-only
"""The record of one call of a command; users call it a run.

``docs/generated/results.schema.json`` is made from these classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, ClassVar

from iommuq.results.known import Verdict
from iommuq.results.store import Complaint, Status

#: Version of the JSON form.
FORMAT = 2


class State(StrEnum):
    """The state of a run."""

    FINISHED = "finished"
    RUNNING = "running"
    #: Killed: results are missing.
    INCOMPLETE = "incomplete"


@dataclass(frozen=True)
class _Form:
    """A class of the JSON form: unknown keys are errors."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True)
class Known(_Form):
    """Why a test is known to fail; the last day of the entry, ``2027-06-01``."""

    reason: str
    link: str
    expires: str


@dataclass(frozen=True)
class Test(_Form):
    """One test at one step.

    :ivar name: without the lane, ``iommu_dma_owner.claim_plain``.
    :ivar status: the result.
    :ivar verdict: what it means, given the known failures.
    :ivar duration: seconds; 0: not measured.
    :ivar log: path of the full log, on the machine that ran it.
    :ivar answer: answer of a firmware check's step.
    """

    name: str
    status: Status
    verdict: Verdict
    duration: float = 0.0
    message: str = ""
    log: str = ""
    answer: str = ""
    known: Known | None = None

    # Not a class of tests for pytest.
    __test__: ClassVar[bool] = False


@dataclass(frozen=True)
class Splat(_Form, Complaint):
    """A splat, with the fields of a `Complaint`."""


@dataclass(frozen=True)
class CellRecord(_Form):
    """One step in one lane.

    :ivar step: label of the step.
    :ivar run: id of the run of the suite; empty without one.
    :ivar reused: the results were in the store already.
    :ivar image: sha256 of the kernel that was booted; empty: unknown.
    :ivar failure: why there is no kernel to run; empty if there is one.
    :ivar warnings: all compiler warnings of the kernel, normalised; None: unknown.
    :ivar added: warnings that the step before does not have.
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
    image: str = ""


@dataclass(frozen=True)
class StepRecord(_Form):
    """A step of the queue.

    :ivar label: ``baseline``, ``0001``.
    :ivar subject: of its patch; empty for the baseline.
    :ivar name: file of its patch; empty for the baseline.
    :ivar sha256: of that file.
    :ivar proof: the reason if no test proves the patch.
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
    """A task, as in the progress display.

    :ivar depth: number of steps that it is part of.
    :ivar started: seconds since the run began.
    :ivar outcome: empty if it succeeded, else ``failed`` or ``interrupted``.
    """

    title: str
    depth: int
    started: float
    seconds: float
    outcome: str = ""
    log: str = ""


@dataclass(frozen=True)
class Head(_Form):
    """The facts about a run as a whole.

    :ivar title: kernel and lanes.
    :ivar kernel: release of the base's kernel.
    :ivar version: of the package or tag that it is from.
    :ivar tool: version of iommuq.
    :ivar versions: of the tools that built and ran it, such as ``gcc``.
    :ivar findings: faults of the queue, one line each.
    :ivar errors: failures of the infrastructure, one line each.
    :ivar error: why the command ended early; empty if it did not.
    :ivar coverage: as ``--coverage-json`` writes it; None without coverage.
    :ivar mutants: as ``mutate --json`` writes it; None without mutants.
    """

    title: str = ""
    kernel: str = ""
    version: str = ""
    tool: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    steps: tuple[StepRecord, ...] = ()
    findings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    error: str = ""
    coverage: dict[str, Any] | None = None
    mutants: dict[str, Any] | None = None


@dataclass(frozen=True)
class CommandRun(_Form):
    """One call of a command.

    :ivar command: as it was typed, without ``iommuq``.
    :ivar started: seconds since the epoch.
    :ivar exit_code: of the command; None: not finished.
    """

    id: str
    command: str
    base: str
    state: State
    started: float
    finished: float | None = None
    exit_code: int | None = None
    head: Head = Head()
    cells: tuple[CellRecord, ...] = ()
    timings: tuple[Timing, ...] = ()

    @cached_property
    def steps(self) -> tuple[StepRecord, ...]:
        """All steps that have cells, in order."""
        known = {step.label: step for step in self.head.steps}
        for cell in self.cells:
            known.setdefault(cell.step, StepRecord(cell.step))
        used = {cell.step for cell in self.cells}
        return tuple(step for label, step in known.items() if label in used)

    @cached_property
    def lanes(self) -> tuple[str, ...]:
        """The lanes in order."""
        return tuple(dict.fromkeys(cell.lane for cell in self.cells))

    @property
    def seconds(self) -> float | None:
        """Duration in seconds; None: not finished."""
        return None if self.finished is None else self.finished - self.started

    def tests(self) -> Iterator[tuple[CellRecord, Test]]:
        """Yield every test with its cell."""
        for cell in self.cells:
            for test in cell.tests:
                yield cell, test

    def name(self, cell: CellRecord, test: Test) -> str:
        """Return the name of a test, with its lane if there are several."""
        return f"{cell.lane}.{test.name}" if len(self.lanes) > 1 else test.name
