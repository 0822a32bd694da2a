# SPDX-License-Identifier: GPL-2.0-only
"""Run the programs of others in the guests of the vfio suite."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from iommuq.firmware import program as guest_program
from iommuq.firmware import topology
from iommuq.firmware.kernels import Kernel
from iommuq.guests import qemu
from iommuq.guests.boot import SuiteReport
from iommuq.guests.initramfs import Suite as GuestSuite
from iommuq.results.store import Result, Status, Store, SuiteRun, new_id
from iommuq.suites.foreign import verdicts
from iommuq.suites.foreign.programs import Built
from iommuq.suites.foreign.table import DEVICE, PLACE, Foreign
from iommuq.suites.foreign.table import Program as ForeignProgram
from iommuq.suites.kunit import Subject, renamed
from iommuq.suites.selftest import BUILDS
from iommuq.suites.vfio.run import Built as Tested
from iommuq.suites.vfio.run import Guest, run_guests
from iommuq.suites.vfio.suite import CONTROL, MARKED, Program, VfioSuite
from iommuq.suites.vfio.verdicts import Judged
from iommuq.system.files import file_sha256, hash_of, project_root

SUITE = "foreign"
#: Part of every key; raise it when guests are judged in another way.
_GENERATION = "2"


@dataclass(frozen=True)
class _Job:
    """A program that was built, as the guest has it."""

    foreign: ForeignProgram
    path: Path


def run_key(kernel: Kernel, built: Sequence[Built], names: Sequence[str]) -> str:
    """Return the content key of all that the results depend on.

    :param names: of the machines.
    """
    root = project_root()
    words = (
        _GENERATION, SUITE, kernel.key, *names, *(f"{one.suite.name} {one.key}" for one in built),
        guest_program.key(), file_sha256(root / PLACE), file_sha256(root / "selftests/init"),
        *(file_sha256(root / "selftests/machines" / f"{name}.toml") for name in names),
        qemu.full_version(),
    )  # fmt: skip
    return hash_of(*words)


def run_foreign(
    kernel: Kernel,
    found: Foreign,
    built: Sequence[Built],
    names: Sequence[str],
    subject: Subject,
    *,
    store: Store | None = None,
    again: bool = False,
) -> SuiteRun:
    """Run what was built on some machines, or take the results from the store.

    :param names: of the machines.
    :param again: run even if the store has the results.
    :return: a complete run.  What could not be had is skipped, a build that failed is an error.
    :raises UserError: the kernel lacks an option that the machines need.
    """
    store = store or Store()
    key = run_key(kernel, built, names)
    kept = None if again else store.find(key)
    if kept is not None and not kept.has_errors:
        return renamed(kept, subject)
    started = time.time()
    current = SuiteRun(
        new_id(started), subject.base, subject.patch, SUITE, key, subject.kernel,
        "qemu", "", started, image=kernel.sha256,
    )  # fmt: skip
    results = [_of_build(one, subject) for one in built]
    jobs = {
        f"{one.suite.name}.{each.name}": _Job(each, one.paths[each.name])
        for one in built
        for each in one.suite.program
        if each.name in one.paths
    }
    store.begin(current)
    guests = [_Guest(kernel, found, name, jobs, subject) for name in names if jobs]
    return run_guests(guests, kernel, current, store, results)


def _of_build(built: Built, subject: Subject) -> Result:
    status = Status.ERROR if built.failed else Status.SKIP if built.skipped else Status.PASS
    name = f"{built.suite.name}.{BUILDS}"
    message = built.failed or built.skipped
    return Result(subject.base, subject.patch, SUITE, name, status, 0.0, message)


class _Guest(Guest):
    """The guest of one machine, with programs of others."""

    suite_name: ClassVar[str] = SUITE
    title: ClassVar[str] = "suites of others"
    foreign: ClassVar[bool] = True

    def __init__(
        self, kernel: Kernel, found: Foreign, name: str, jobs: Mapping[str, _Job], subject: Subject
    ) -> None:
        listed = tuple(Program(each, job.foreign.limit) for each, job in jobs.items())
        suite = VfioSuite(found.guest, listed, found.refused, ("EINVAL",))
        super().__init__(Tested(kernel, Path(), ""), Path(), suite, found.machine(name), subject)
        self.jobs = jobs

    def wanted(self) -> list[Program]:
        return list(self.suite.program)

    def path(self, program: Program) -> Path:
        return self.jobs[program.name].path

    def runs(self, wanted: Iterable[Program]) -> list[GuestSuite]:
        places = topology.devices(self.machine)
        found = []
        for device in (CONTROL, MARKED):
            for each in wanted:
                job = self.jobs[each.name].foreign
                place = places[job.marked if device == MARKED else job.control].address
                words = [f"/suites/{each.name}"]
                words += [word.replace(DEVICE, place) for word in job.arguments]
                if job.endless:
                    words = ["/bin/timeout", str(job.endless), *words]
                found.append(GuestSuite(f"{each.name}.{device}", tuple(words), each.limit))
        return found

    def judged(
        self, program: Program, device: str, suite: SuiteReport, placed: Sequence[str]
    ) -> list[Judged]:
        job = self.jobs[program.name].foreign
        status, message = verdicts.judge(job, device, suite, placed, self.suite.refused)
        return [Judged(f"{program.name}.{device}", status, message, suite.seconds)]
