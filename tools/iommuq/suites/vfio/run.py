# SPDX-License-Identifier: GPL-2.0-only
"""Run the programs of selftests/vfio, in one guest for each machine, several in parallel."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from iommuq.firmware import override, program, topology
from iommuq.firmware.kernels import Kernel
from iommuq.firmware.scenario import script
from iommuq.guests import machine as machines
from iommuq.guests import qemu
from iommuq.guests.boot import GuestLost, GuestReport, SuiteReport, boot
from iommuq.guests.initramfs import Suite, build
from iommuq.guests.machine import Machine
from iommuq.results.console import ktap, splats, stacks
from iommuq.results.store import Complaint, Result, Status, Store, SuiteRun, new_id
from iommuq.suites.firmware import run as firmware
from iommuq.suites.firmware import verdicts as scenarios
from iommuq.suites.firmware.guest import CHECK, asked, own_table, twice
from iommuq.suites.kunit import SPLAT_CASE, Subject, renamed
from iommuq.suites.selftest import BUILDS, ENDS, REASON
from iommuq.suites.vfio import verdicts
from iommuq.suites.vfio.programs import FOLDER
from iommuq.suites.vfio.suite import CONTROL, MARKED, PLACE, Program, VfioSuite
from iommuq.suites.vfio.verdicts import Judged
from iommuq.system import files as logs
from iommuq.system import progress
from iommuq.system.files import file_sha256, hash_of, project_root
from iommuq.system.temporary import temporary_folder

SUITE = "vfio"
#: Part of every key; raise it when guests are judged in another way.
_GENERATION = "1"
#: The first programs of the guest: which table it has, and the devices.
_GUEST = "guest"
#: Seconds for each of them.
_LIMIT = 90.0
#: The result of a tree without the programs.
NONE = "all"


@dataclass(frozen=True)
class Built:
    """What is run.

    :ivar folder: that of the programs; None: the tree has none.
    :ivar key: the key of the programs; empty: the tree has none.
    """

    kernel: Kernel
    folder: Path | None
    key: str


def run_key(kernel: Kernel, programs: str, suite: VfioSuite, names: Sequence[str]) -> str:
    """Return the content key of all that the results depend on.

    :param programs: their key; empty: the tree has none.
    :param names: of the machines.
    """
    if not programs:
        return hash_of(_GENERATION, SUITE, *names)
    found = [_machine(name, suite) for name in names]
    given = [(each.qemu, each.cpus, each.memory, each.arguments, each.huge_pages) for each in found]
    root = project_root()
    words = (
        _GENERATION, SUITE, kernel.key, programs, repr(given), *names, program.key(),
        file_sha256(root / PLACE), file_sha256(root / "selftests/init"), qemu.full_version(),
    )  # fmt: skip
    return hash_of(*words)


def run_vfio(
    tested: Built,
    suite: VfioSuite,
    names: Sequence[str],
    subject: Subject,
    *,
    store: Store | None = None,
    again: bool = False,
) -> SuiteRun:
    """Run all programs on some machines, or take the results from the store.

    :param names: of the machines.
    :param again: run even if the store has the results.
    :return: a complete run; a test without a verdict is an error in it.
    :raises UserError: the kernel lacks an option that the machines need.
    """
    store = store or Store()
    kernel = tested.kernel
    key = run_key(kernel, tested.key, suite, names)
    found = None if again else store.find(key)
    if found is not None and not found.has_errors:
        return renamed(found, subject)
    started = time.time()
    current = SuiteRun(
        new_id(started), subject.base, subject.patch, SUITE, key, subject.kernel,
        "qemu", "", started, image=kernel.sha256,
    )  # fmt: skip
    store.begin(current)
    if tested.folder is None:
        message = f"this tree has no {FOLDER}"
        results = [
            Result(subject.base, subject.patch, SUITE, f"{name}.{NONE}", Status.SKIP, 0.0, message)
            for name in names
        ]
        return store.finish(current, results)
    guests = [Guest(tested, tested.folder, suite, _machine(name, suite), subject) for name in names]
    return run_guests(guests, kernel, current, store)


def run_guests(
    guests: Sequence[Guest],
    kernel: Kernel,
    current: SuiteRun,
    store: Store,
    results: Sequence[Result] = (),
) -> SuiteRun:
    """Run guests side by side, as many as memory allows, and complete a run.

    :param current: the run, which has begun.
    :param results: what there is already.
    :raises UserError: the kernel lacks an option that a machine needs.
    """
    for guest in guests:
        kernel.check(guest.machine)
    if guests:
        largest = max(guest.machine.memory for guest in guests)
        limit = firmware.side_by_side(firmware.free_memory(), largest)
        with ThreadPoolExecutor(min(limit, len(guests)), thread_name_prefix=current.suite) as pool:
            list(pool.map(Guest.run, guests))
    ran = next((guest.accelerator for guest in guests if guest.accelerator), "")
    complaints = [one for guest in guests for one in guest.splats]
    return store.finish(
        replace(current, accelerator=ran),
        [*results, *(result for guest in guests for result in guest.results)],
        splats=stacks.decoded(complaints, kernel.image),
    )


def _machine(name: str, suite: VfioSuite) -> Machine:
    return replace(machines.load_machine(name), huge_pages=suite.huge_pages)


class Guest:
    """The guest of one machine, and the results of all programs in it.

    :cvar suite_name: the name of the suite in results.
    :cvar title: the same, in words.
    :cvar foreign: the programs are others': QEMU runs in a sandbox, if there can be one.
    """

    suite_name: ClassVar[str] = SUITE
    title: ClassVar[str] = "selftests/vfio"
    foreign: ClassVar[bool] = False

    def __init__(
        self, tested: Built, built: Path, suite: VfioSuite, machine: Machine, subject: Subject
    ) -> None:
        self.kernel = tested.kernel
        self.built = built
        self.suite = suite
        self.machine = machine
        self.subject = subject
        self.results: list[Result] = []
        self.splats: list[Complaint] = []
        self.accelerator = ""
        self.log = logs.new_log(f"{self.suite_name}-{subject.base}-{machine.name}-{subject.patch}")

    def add(self, test: str, status: Status, message: str = "", seconds: float = 0.0) -> None:
        """Add a result; the test is named without the machine."""
        subject, name = self.subject, f"{self.machine.name}.{test}"
        log = str(self.log)
        self.results.append(
            Result(
                subject.base, subject.patch, self.suite_name, name, status, seconds, message, log
            )
        )  # fmt: skip

    def run(self) -> None:
        """Boot, run what was built, and judge it."""
        wanted = self.wanted()
        machine, scenario = self.machine, self.suite.guest
        table = override.extended(
            own_table(machine, asked(self.kernel, machine)), machine, scenario.region
        )
        title = f"{self.subject.base} {self.subject.patch}"
        lost: GuestLost | None = None
        with (
            firmware.turns,
            progress.task(f"Running {self.title} on {title} in {machine.name}", log=self.log),
            temporary_folder("vfio") as work,
        ):
            scripts = {CHECK: firmware.check_script(machine), _GUEST: script(scenario, machine)[0]}
            paths = {program.GUEST_PATH: program.build()}
            guest = []
            for name, text in scripts.items():
                path = work / f"{name}.steps"
                path.write_text(text)
                paths[f"/suites/{path.name}"] = path
                words = (program.GUEST_PATH, f"/suites/{path.name}", str(firmware.STEP_LIMIT))
                guest.append(Suite(name, words, limit=_LIMIT))
            for each in wanted:
                paths[f"/suites/{each.name}"] = self.path(each)
            guest += self.runs(wanted)
            modules = {f"/lib/modules/{path.name}": path for path in self.kernel.modules}
            before = override.archive(machine, table)
            archive = build(guest, paths | modules, modules=tuple(modules), before=before)
            arguments = (*machine.arguments, *scenario.kernel_arguments)
            given = replace(machine, arguments=arguments)
            try:
                report = twice(
                    lambda: boot(
                        given, self.kernel.image, archive, self.log, foreign=self.foreign
                    )
                )  # fmt: skip
            except GuestLost as error:
                report, lost = error.report, error
        self.accelerator = report.accelerator
        self._read(report, lost, table, wanted)

    def wanted(self) -> list[Program]:
        """Return the programs to run; add a result for each other one."""
        listed = {each.name for each in self.suite.program}
        found = [each for each in self.suite.program if self._was_built(each)]
        for name in sorted({path.name.removesuffix(REASON) for path in self.built.iterdir()}):
            if name not in listed:
                self.add(f"{name}.{BUILDS}", Status.SKIP, f"not run: {PLACE} does not list it")
        return found

    def path(self, program: Program) -> Path:
        """Return where a program is that was built."""
        return self.built / program.name

    def judged(
        self, program: Program, device: str, suite: SuiteReport, placed: Sequence[str]
    ) -> list[Judged]:
        """Return the results of one run of a program."""
        return verdicts.judge(self.suite, program, device, suite, placed)

    def _was_built(self, wanted: Program) -> bool:
        """Return whether there is a program, and add a result for it."""
        test = f"{wanted.name}.{BUILDS}"
        if (self.built / wanted.name).exists():
            self.add(test, Status.PASS)
            return True
        reason = self.built / f"{wanted.name}{REASON}"
        if reason.exists():
            self.add(test, Status.FAIL, reason.read_text("utf-8"))
        else:
            self.add(test, Status.SKIP, "this tree does not have the program")
        return False

    def runs(self, wanted: Iterable[Program]) -> list[Suite]:
        """Return each program with each device, as suites of the guest."""
        places = topology.devices(self.machine)
        return [
            Suite(
                f"{each.name}.{device}",
                (f"/suites/{each.name}", places[device].address),
                each.limit,
            )
            for device in (CONTROL, MARKED)
            for each in wanted
        ]

    def _read(
        self, report: GuestReport, lost: GuestLost | None, table: bytes, wanted: Sequence[Program]
    ) -> None:
        """Judge what the guest reported."""
        ran = {suite.name: suite for suite in report.suites}
        about_lost = f"{lost.what}\n{lost.tail}" if lost else ""
        self._read_console(report)
        unfit, skip = self._prepared(report, about_lost, table)
        for each in wanted:
            for device in (CONTROL, MARKED):
                name = f"{each.name}.{device}"
                suite = ran.get(name)
                if unfit or skip or suite is None:
                    status = Status.ERROR if unfit or not skip else Status.SKIP
                    why = unfit or skip or about_lost or "the guest did not start this program"
                    self.add(f"{name}.{ENDS}", status, why)
                    continue
                placed = report.interleaved(suite)
                if suite.trouble and about_lost:
                    suite = replace(suite, trouble=about_lost)
                for one in self.judged(each, device, suite, placed):
                    self.add(one.test, one.status, one.message, one.seconds)
                self.splats += stacks.complaints(
                    ktap.parse(placed), splats.find(placed), splats.expected(placed), self.log,
                    prefix=f"{self.machine.name}.{name}.",
                )  # fmt: skip

    def _read_console(self, report: GuestReport) -> None:
        """Add the result for splats outside of all programs."""
        found = splats.find(report.outside(report.suites))
        self.splats += stacks.complaints(ktap.Report((), ()), found, (), self.log)
        status = Status.FAIL if found else Status.PASS
        self.add(SPLAT_CASE, status, "\n".join(splat.text for splat in found))

    def _prepared(self, report: GuestReport, about_lost: str, table: bytes) -> tuple[str, str]:
        """Add the results of the guest's scenario; return why no program has a verdict.

        :return: a reason for errors and one for skips; empty without one.
        """
        ran = {suite.name: suite for suite in report.suites}
        scenario, machine = self.suite.guest, self.machine
        check, prepared = ran.get(CHECK), ran.get(_GUEST)
        said = scenarios.read(check.output if check else ())
        unfit = firmware.unfit_for(said, machine, table) if check else about_lost
        skip = firmware.lacking(said, scenario.needs, self.kernel.release)
        if unfit or skip or prepared is None:
            return unfit or ("" if skip else about_lost or "the guest did not start"), skip
        broke = [splat.text for splat in splats.find(report.interleaved(prepared))]
        first = script(scenario, machine)[1]
        said = scenarios.read(prepared.output)
        trouble = about_lost if about_lost and not said.whole else prepared.trouble
        found = scenarios.judge(scenario, machine.name, said, first, trouble=trouble, splats=broke)
        for one in found:
            self.add(f"{_GUEST}.{one.check}", one.status, one.message)
        bad = [one for one in found if one.status is not Status.PASS]
        return (f"{_GUEST}.{bad[0].check}: {bad[0].message}" if bad else ""), ""
