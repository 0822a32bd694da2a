# SPDX-License-Identifier: GPL-2.0-only
"""Cases: scenarios on machines, and their stored results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from iommuq.firmware import program
from iommuq.firmware.kernels import Kernel
from iommuq.firmware.scenario import Scenario
from iommuq.guests import machine as machines
from iommuq.guests import qemu
from iommuq.guests.machine import Machine
from iommuq.results.store import Status, Store, SuiteRun
from iommuq.suites.kunit import Subject, renamed
from iommuq.system import files
from iommuq.system.files import file_sha256

#: Part of every key; raise it when guests are judged in another way.
_GENERATION = "1"


@dataclass(frozen=True)
class Case:
    """One scenario on one machine."""

    machine: Machine
    scenario: Scenario

    @property
    def name(self) -> str:
        """The name of its results without the check."""
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
        Case(loaded.setdefault(name, machines.load_machine(name)), scenario)
        for scenario in scenarios
        for name in scenario.machines
        if not only or name in only
    ]


def stored(kernel: Kernel, case: Case, subject: Subject, store: Store) -> SuiteRun | None:
    """Return the stored run of a case, if it has a verdict."""
    return answer(run_key(kernel, case), subject, store)


def answer(key: str, subject: Subject, store: Store) -> SuiteRun | None:
    """Return the stored run for a key of `run_key`, if it has a verdict."""
    found = store.find(key)
    if found is None:
        return None
    # Errors after a failure, such as a hang, would occur again.
    failed = any(result.status is Status.FAIL for result in found.results)
    return None if found.has_errors and not failed else renamed(found, subject)


def run_key(kernel: Kernel, case: Case) -> str:
    """Return the content key of all that the result of a case depends on."""
    scenario, machine = case.scenario, case.machine
    # Titles and limits are left out: they change no result.
    steps = scenario.steps(machine.name)
    asked = repr((scenario.region, scenario.kernel_arguments, scenario.alone, steps))
    given = (machine.qemu, machine.cpus, machine.memory, machine.arguments)
    words = (
        _GENERATION, kernel.key, case.name, repr(given), asked, program.key(),
        file_sha256(files.project_root() / "selftests/init"), qemu.full_version(),
    )  # fmt: skip
    return files.hash_of(*words)


def plan(wanted: Sequence[Case]) -> list[list[Case]]:
    """Return the cases by boot, in the order of the boots."""
    shared: dict[object, list[Case]] = {}
    for case in wanted:
        scenario = case.scenario
        key: object = (case.machine.name, scenario.region, scenario.kernel_arguments)
        shared.setdefault((key, scenario.name) if scenario.alone else key, []).append(case)
    return list(shared.values())
