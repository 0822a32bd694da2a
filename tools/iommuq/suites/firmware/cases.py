# SPDX-License-Identifier: GPL-2.0-only
"""What is asked of a kernel: scenarios on machines, and what the store has of them already."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from iommuq.firmware import program
from iommuq.firmware.kernels import Kernel
from iommuq.firmware.scenario import Scenario
from iommuq.guests import machine as machines
from iommuq.guests import qemu
from iommuq.guests.machine import Machine
from iommuq.results.store import Run, Status, Store
from iommuq.suites.kunit import Subject
from iommuq.system import files

#: Part of every key; to be raised when the same guests would be judged otherwise.
_GENERATION = "1"


@dataclass(frozen=True)
class Case:
    """One scenario on one machine."""

    machine: Machine
    scenario: Scenario

    @property
    def name(self) -> str:
        """What its results are called, but for the check."""
        return f"{self.machine.name}.{self.scenario.name}"

    @property
    def checks(self) -> tuple[str, ...]:
        """The names of its checks."""
        return self.scenario.checks(self.machine.name)


def cases(scenarios: Iterable[Scenario], only: Sequence[str] = ()) -> list[Case]:
    """Return the scenarios, each on each of its machines.

    :param only: names of machines; none for all.
    """
    loaded: dict[str, Machine] = {}
    return [
        Case(loaded.setdefault(name, machines.load(name)), scenario)
        for scenario in scenarios
        for name in scenario.machines
        if not only or name in only
    ]


def stored(kernel: Kernel, case: Case, subject: Subject, store: Store) -> Run | None:
    """Return what the store has of a case, if it has a verdict."""
    return answer(run_key(kernel, case), subject, store)


def answer(key: str, subject: Subject, store: Store) -> Run | None:
    """Return what the store has under a key of `run_key`, if it has a verdict."""
    found = store.find(key)
    if found is None:
        return None
    # What could not be found out after a failure, such as a hang, would not be now.
    failed = any(result.status is Status.FAIL for result in found.results)
    return None if found.has_errors and not failed else _renamed(found, subject)


def run_key(kernel: Kernel, case: Case) -> str:
    """Return the content key of all that decides what a case says."""
    init = (files.project_root() / "selftests/init").read_bytes()
    scenario, machine = case.scenario, case.machine
    # Not their words for people, nor limits: those change no result.
    steps = scenario.steps(machine.name)
    asked = repr((scenario.region, scenario.kernel_arguments, scenario.alone, steps))
    given = (machine.qemu, machine.cpus, machine.memory, machine.arguments)
    words = (
        _GENERATION, kernel.key, case.name, repr(given), asked, program.key(),
        hashlib.sha256(init).hexdigest(), qemu.full_version(),
    )  # fmt: skip
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _renamed(found: Run, subject: Subject) -> Run:
    results = tuple(
        replace(result, base=subject.base, patch=subject.patch) for result in found.results
    )
    return replace(found, base=subject.base, patch=subject.patch, results=results)


def plan(wanted: Sequence[Case]) -> list[list[Case]]:
    """Say which cases share a boot: each list is one, in its order."""
    shared: dict[object, list[Case]] = {}
    for case in wanted:
        scenario = case.scenario
        key: object = (case.machine.name, scenario.region, scenario.kernel_arguments)
        shared.setdefault((key, scenario.name) if scenario.alone else key, []).append(case)
    return list(shared.values())
