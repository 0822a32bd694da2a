# SPDX-License-Identifier: GPL-2.0-only
"""Run firmware scenarios on a kernel, several guests in parallel.

Scenarios with the same machine, table and kernel arguments share a boot; each has its own run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from iommuq.firmware import override, program, topology
from iommuq.firmware.kernels import Kernel
from iommuq.firmware.scenario import NO_SPLAT, script
from iommuq.guests.boot import GuestLost, GuestReport, SuiteReport, boot
from iommuq.guests.channel import Transcript
from iommuq.guests.initramfs import Suite, build
from iommuq.guests.machine import Machine
from iommuq.results import events
from iommuq.results.console import splats
from iommuq.results.store import Complaint, Result, Status, Store, SuiteRun, new_id
from iommuq.suites.firmware import verdicts
from iommuq.suites.firmware.cases import Case, answer, plan, run_key, stored
from iommuq.suites.firmware.guest import CHECK, own_table, twice
from iommuq.suites.firmware.verdicts import CheckResult, Said
from iommuq.suites.kunit import Subject
from iommuq.system import files as logs
from iommuq.system import groups, progress
from iommuq.system.errors import InfraError
from iommuq.system.files import file_sha256
from iommuq.system.temporary import temporary_folder

SUITE = "firmware"
#: Seconds until the guest's program reports that a step hangs.
STEP_LIMIT = 20
#: Seconds from that report until the guest is ended.
HANG_GRACE = 6.0
#: Seconds without output until a guest is ended.
SILENCE = STEP_LIMIT + 20.0
#: Seconds for one scenario.
LIMIT = 90.0
#: One guest per processor, also if `iommuq prove` runs the scenarios of two steps.
turns = threading.BoundedSemaphore(len(os.sched_getaffinity(0)))
# One lock per set of run keys: of two steps with the same kernel the second waits for the
# results of the first.
_asked: dict[frozenset[str], threading.Lock] = {}
#: MiB that QEMU needs besides its guest's memory.
_OVERHEAD = 300
#: A table of every machine with ACPI.
_ANY_TABLE = "FACP"
# Lines of that script and paths, after the line about the table.
_NEEDS = {
    "group": (1, "/dev/vfio/vfio"),
    "cdev": (2, "/dev/iommu"),
    "faults": (3, "/sys/kernel/debug/fail_page_alloc/require-start"),
}
_DRIVER, _UNIT = 4, 5
_UNITS = {"DMAR": "/sys/class/iommu/dmar0", "IVRS": "/sys/class/iommu/ivhd0"}


def run_scenarios(
    kernel: Kernel,
    wanted: Sequence[Case],
    subject: Subject,
    *,
    store: Store | None = None,
    again: bool = False,
) -> list[SuiteRun]:
    """Run scenarios, or take their results from the store if nothing changed.

    :param again: run even if the store has the results.
    :return: complete runs, one for each case in order; a check without a verdict is an error.
    :raises UserError: the kernel lacks an option that every scenario needs.
    """
    store = store or Store()
    for one in {case.machine.name: case.machine for case in wanted}.values():
        kernel.check(one)
    done: dict[Case, SuiteRun] = {}
    left: list[Case] = []
    for case in wanted:
        found = None if again else stored(kernel, case, subject, store)
        if found is None:
            left.append(case)
        else:
            done[case] = found
            events.done(case.scenario.name, case.machine.name, found)
    if left:
        done |= _Runner(kernel, subject, store, left, again=again).run(left)
    return [done[case] for case in wanted]


def side_by_side(memory: int, largest: int) -> int:
    """Return how many guests may run in parallel.

    :param memory: free memory in MiB.
    :param largest: memory of the largest guest in MiB.
    """
    return max(1, min(len(os.sched_getaffinity(0)), memory // (largest + _OVERHEAD)))


def free_memory() -> int:
    """Return the available memory in MiB; 0: unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(ln.split()[1]) for ln in lines if ln.startswith("MemAvailable:")) >> 10
    except (OSError, StopIteration, ValueError, IndexError):
        return 0


class _Hung:
    """Ends a guest whose step hangs, that is silent, or if *stop* is set."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._state = (0, 0)
        self._since = time.monotonic()

    def __call__(self, transcript: Transcript) -> str:
        """Return why the guest is to be ended; empty: it is not."""
        if self._stop.is_set():
            return "was stopped"
        last = transcript.suites[-1] if transcript.suites else None
        if last is None or last.over:
            return ""
        state = (len(transcript.suites), len(last.output))
        now = time.monotonic()
        if state != self._state:
            self._state, self._since = state, now
        if verdicts.has_hung(last.output):
            return "hangs" if now > self._since + HANG_GRACE else ""
        return "hangs without output" if now > self._since + SILENCE else ""


class _Runner:
    """Runs the cases that are not in the store."""

    def __init__(
        self, kernel: Kernel, subject: Subject, store: Store, wanted: Sequence[Case], *, again: bool
    ) -> None:
        self.kernel = kernel
        self.subject = subject
        self.store = store
        # Computed once: files may be edited while guests run.
        self.keys = {case: run_key(kernel, case) for case in wanted}
        self.steps = program.build()
        self.again = again
        self.runs: dict[Case, SuiteRun] = {}
        self._stop = threading.Event()

    def run(self, wanted: Sequence[Case]) -> dict[Case, SuiteRun]:
        """Run cases, in parallel as far as memory allows."""
        for case in wanted:
            reasons = (self.kernel.missing(need) for need in case.scenario.needs)
            if reason := next(filter(None, reasons), ""):
                skipped = [CheckResult(check, Status.SKIP, reason) for check in case.checks]
                self._record(case, skipped, Path(), time.time(), "")
        batches = plan([case for case in wanted if case not in self.runs])
        if not batches:
            return self.runs
        largest = max(case.machine.memory for case in wanted)
        guests = side_by_side(free_memory(), largest)
        own = {batch[0].machine.name: batch[0].machine for batch in batches if _table(batch)}
        with ThreadPoolExecutor(guests, thread_name_prefix="guest") as pool:
            try:
                list(pool.map(self._read_table, own.values()))
                # The longest first, so that all guests end at about the same time.
                batches.sort(key=lambda batch: -sum(case.scenario.seconds for case in batch))
                list(pool.map(self._run_batch, batches))
            except BaseException:
                # Ctrl-C reaches only this thread: stop the others.
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return self.runs

    def _read_table(self, machine: Machine) -> None:
        own_table(machine, lambda scripts, log: self._boot(machine, scripts, (), b"", log))

    def _boot(
        self,
        machine: Machine,
        scripts: dict[str, Path],
        arguments: Sequence[str],
        before: bytes,
        log: Path,
    ) -> GuestReport:
        files = {program.GUEST_PATH: self.steps}
        files |= {f"/suites/{name}.steps": path for name, path in scripts.items()}
        modules = {f"/lib/modules/{path.name}": path for path in self.kernel.modules}
        suites = [
            Suite(name, (program.GUEST_PATH, f"/suites/{name}.steps", str(STEP_LIMIT)), limit=LIMIT)
            for name in scripts
        ]
        archive = build(suites, files | modules, modules=tuple(modules), before=before)
        machine = replace(machine, arguments=(*machine.arguments, *arguments))
        image, wanted = self.kernel.image, self.kernel.sha256
        if wanted and file_sha256(image) != wanted:
            raise InfraError(f"{image}: has changed since it was opened", hint="run it again")
        foreign = not self.kernel.built
        return twice(
            lambda: boot(machine, image, archive, log, hopeless=_Hung(self._stop), foreign=foreign),
            self._stop.is_set,
        )

    def _check_interrupt(self) -> None:
        """Stop if all processes are being ended: in a proof another thread gets the Ctrl-C."""
        if groups.ending():
            raise KeyboardInterrupt

    def _run_batch(self, batch: list[Case]) -> None:
        """Run cases that share a boot; after one that breaks the kernel the rest boots again."""
        asked = _asked.setdefault(frozenset(self.keys[case] for case in batch), threading.Lock())
        with asked:
            batch = batch if self.again else self._unanswered(batch)
            while batch:
                with turns:
                    if self._stop.is_set():
                        return
                    self._check_interrupt()
                    batch = self._boot_batch(batch)

    def _unanswered(self, batch: list[Case]) -> list[Case]:
        """Return the cases that still have no result in the store."""
        left = []
        for case in batch:
            found = answer(self.keys[case], self.subject, self.store)
            if found is None:
                left.append(case)
            else:
                self.runs[case] = found
                events.done(case.scenario.name, case.machine.name, found)
        return left

    def _boot_batch(self, batch: list[Case]) -> list[Case]:
        """Boot once, and return the cases that need another boot."""
        machine, scenario = batch[0].machine, batch[0].scenario
        started = time.time()
        log = logs.new_log(f"firmware-{self.subject.base}-{machine.name}-{scenario.name}")
        table = self._extended(batch[0])
        names = ", ".join(case.scenario.name for case in batch)
        for case in batch:
            events.busy(case.scenario.name, case.machine.name, "running")
        with (
            progress.task(f"Booting {self.kernel.release} on {machine.name}: {names}", log=log),
            temporary_folder("firmware") as work,
        ):
            scripts = {CHECK: work / "table.steps"}
            scripts[CHECK].write_text(check_script(machine))
            for case in batch:
                path = work / f"{case.scenario.name}.steps"
                path.write_text(script(case.scenario, machine)[0])
                scripts[case.scenario.name] = path
            before = override.archive(machine, table) if table else b""
            lost: GuestLost | None = None
            try:
                report = self._boot(machine, scripts, scenario.kernel_arguments, before, log)
            except GuestLost as error:
                self._check_interrupt()
                if self._stop.is_set():
                    return []
                report, lost = error.report, error
        return self._read(batch, report, lost, table, log, started)

    def _extended(self, case: Case) -> bytes:
        if not _table([case]) or not case.scenario.region:
            return b""
        own = override.find(case.machine)
        if own is None:
            raise InfraError(f"the table of {case.machine.name} is missing", hint="run it again")
        return override.extended(own, case.machine, case.scenario.region)

    def _read(
        self,
        batch: list[Case],
        report: GuestReport,
        lost: GuestLost | None,
        table: bytes,
        log: Path,
        started: float,
    ) -> list[Case]:
        """Record the results of a guest, and return the cases that need another boot."""
        ran = {suite.name: suite for suite in report.suites}
        about_lost = f"{lost.what}\n{lost.tail}" if lost else ""
        said = verdicts.read(ran[CHECK].output if CHECK in ran else ())
        unfit = unfit_for(said, batch[0].machine, table) if CHECK in ran else about_lost
        for number, case in enumerate(batch):
            suite = ran.get(case.scenario.name)
            broke: list[splats.Splat] = []
            if suite is None and not unfit and number > 0:
                # The guest was lost in an earlier case.
                return batch[number:]
            reason = unfit or lacking(said, case.scenario.needs, self.kernel.release)
            if suite is None or reason:
                status = Status.ERROR if unfit or suite is None else Status.SKIP
                message = reason or about_lost or "the guest did not start this scenario"
                found = [CheckResult(check, status, message) for check in case.checks]
            else:
                broke = splats.find(report.interleaved(suite))
                found = self._judge(case, suite, broke, about_lost)
            self._record(case, found, log, started, report.accelerator, broke)
            broken = any(one.check == NO_SPLAT and one.status is not Status.PASS for one in found)
            if broken and not unfit and not reason and number + 1 < len(batch):
                return batch[number + 1 :]
        return []

    def _judge(
        self, case: Case, suite: SuiteReport, broke: Sequence[splats.Splat], about_lost: str
    ) -> list[CheckResult]:
        said = verdicts.read(suite.output)
        first = script(case.scenario, case.machine)[1]
        trouble = about_lost if about_lost and not said.whole else suite.trouble
        texts = [one.text for one in broke]
        name = case.machine.name
        return verdicts.judge(case.scenario, name, said, first, trouble=trouble, splats=texts)

    def _record(
        self,
        case: Case,
        found: Sequence[CheckResult],
        log: Path,
        started: float,
        accelerator: str,
        broke: Sequence[splats.Splat] = (),
    ) -> None:
        subject = self.subject
        current = SuiteRun(
            new_id(started), subject.base, subject.patch, SUITE, self.keys[case],
            subject.kernel, "qemu", accelerator, started, image=self.kernel.sha256,
        )  # fmt: skip
        results = [
            Result(
                subject.base, subject.patch, SUITE, f"{case.name}.{one.check}", one.status, 0.0,
                one.message, str(log) if log != Path() else "", one.answer,
            )
            for one in found
        ]  # fmt: skip
        test = f"{case.name}.{NO_SPLAT}"
        kept = [Complaint(test, s.kind, s.title, s.text, str(log), s.start_line) for s in broke]
        self.store.begin(current)
        self.runs[case] = self.store.finish(current, results, splats=kept)
        events.done(case.scenario.name, case.machine.name, self.runs[case])


def _table(batch: Sequence[Case]) -> bool:
    return bool(topology.table_of(batch[0].machine))


def check_script(machine: Machine) -> str:
    """Return the first script for the guest's program."""
    signature = topology.table_of(machine)
    paths = [path for _, path in _NEEDS.values()]
    paths += ["/sys/bus/pci/drivers/vfio-pci", _UNITS.get(signature, "/sys/bus/pci")]
    lines = [f"table\t{signature or _ANY_TABLE}", *(f"exists\t{path}" for path in paths)]
    return "".join(f"{line}\n" for line in lines)


def unfit_for(said: Said, machine: Machine, table: bytes) -> str:
    """Return why the guest cannot run any scenario; empty if it can.

    :param table: the table that its kernel should use; empty: any.
    """
    if not said.whole:
        return "the guest's first program did not end"
    if table and said.data.get(0) != table:
        own = said.data.get(0) == override.find(machine)
        return (
            f"the kernel {'ignored the table with the regions' if own else 'has another table'}: "
            "is it built with ACPI_TABLE_UPGRADE?"
        )
    reasons = {
        _DRIVER: "the kernel has no vfio-pci: is it built with VFIO_PCI, or is the module missing?",
        _UNIT: f"the kernel has no driver for {machine.title}: is it built in?",
    }
    for number, reason in reasons.items():
        if said.steps.get(number) is None or said.steps[number].word != "yes":
            return reason
    return ""


def lacking(said: Said, needs: Iterable[str], release: str) -> str:
    """Return what a scenario needs and the guest does not have; empty if it has all."""
    for number, path in (_NEEDS[need] for need in needs):
        ended = said.steps.get(number)
        if ended is not None and ended.word == "no":
            return f"{release} has no {path}"
    return ""
