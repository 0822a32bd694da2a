# SPDX-License-Identifier: GPL-2.0-only
"""Run the userspace suites of an image in a guest.

Verdicts are read off what the programs wrote, over a channel of its own; the console
only tells which case a splat fell in.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from iommuq.build.image import Addition, Image
from iommuq.guests.boot import GuestLost, GuestReport, SuiteReport, boot
from iommuq.guests.initramfs import Suite as GuestSuite
from iommuq.guests.initramfs import build as build_initramfs
from iommuq.guests.machine import Machine
from iommuq.results.console import ktap, splats, stacks
from iommuq.results.store import Complaint, Result, Run, Status, Store, new_id
from iommuq.suites.kunit import SPLAT_CASE, Subject
from iommuq.suites.programs import REASON, Suite
from iommuq.system import files, progress
from iommuq.system.errors import InfraError
from iommuq.system.files import project_root

SUITE = "selftest"
#: What the case is called that says whether a program could be built.
BUILDS = "builds"
#: What the case is called that says how a program ended.
ENDS = "ends_well"
_GENERATION = "1"
#: What an exit status of a kselftest means (tools/testing/selftests/kselftest.h).
_SKIPPED = 4


def run_selftests(
    image: Image,
    machine: Machine,
    suites: Sequence[Suite],
    subject: Subject,
    *,
    store: Store | None = None,
    again: bool = False,
) -> Run:
    """Run suites, or take the results from the store if nothing changed.

    :param image: built with the programs as its addition.
    :param again: run even if the store has the results.
    :return: a complete run; what could not be found out is an error in it.
    """
    store = store or Store()
    key = run_key(image, machine, suites)
    found = None if again else store.find(key)
    if found is not None and not found.has_errors:
        results = tuple(
            replace(result, base=subject.base, patch=subject.patch) for result in found.results
        )
        return replace(found, base=subject.base, patch=subject.patch, results=results)
    current = Run(
        new_id(time.time()), subject.base, subject.patch, SUITE, key, subject.kernel,
        machine.guest, image.arch.accelerator, time.time(),
    )  # fmt: skip
    log = files.new_log(f"selftest-{subject.base}-{machine.name}-{subject.patch}")
    reader = _Reader(current, log)
    built = [suite for suite in suites if reader.was_built(suite, image.folder / Addition.FOLDER)]
    store.begin(current)
    if built:
        report = _boot(image, machine, built, log, reader)
        if report is not None:
            current = replace(current, accelerator=report.accelerator)
            reader.current = current
    found_splats = stacks.decoded(reader.splats, image.folder / image.arch.image)
    return store.finish(current, reader.results, splats=found_splats)


def run_key(image: Image, machine: Machine, suites: Sequence[Suite]) -> str:
    """Return the content key of all that decides what the suites say."""
    init = (project_root() / "selftests/init").read_bytes()
    words = [_GENERATION, image.key, repr(machine), repr(suites), hashlib.sha256(init).hexdigest()]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _boot(
    image: Image, machine: Machine, suites: Sequence[Suite], log: Path, reader: _Reader
) -> GuestReport | None:
    programs = {f"/suites/{s.name}": image.folder / Addition.FOLDER / s.name for s in suites}
    guest = [GuestSuite(s.name, (f"/suites/{s.name}",), s.limit, s.needs) for s in suites]
    with progress.step(f"Running selftests on {reader.title} in {machine.name}", log=log):
        try:
            archive = build_initramfs(guest, programs)
            report = boot(machine, image.folder / image.arch.image, archive, log)
        except GuestLost as error:
            report = error.report
            reader.lost(error, [suite.name for suite in suites])
    if not math.isnan(report.boot_seconds):
        spent = (f"{suite.name} {progress.duration(suite.seconds)}" for suite in report.suites)
        booted = progress.duration(report.boot_seconds)
        progress.note(f"{machine.name}: first suite after {booted}; {', '.join(spent)}")
    for suite in report.suites:
        reader.read(report, suite)
    reader.read_console(report)
    return report


class _Reader:
    """Turns what a guest reported into results."""

    def __init__(self, current: Run, log: Path) -> None:
        self.current = current
        self.log = log
        self.results: list[Result] = []
        self.splats: list[Complaint] = []
        self._claimed: list[range] = []

    @property
    def title(self) -> str:
        return f"{self.current.base} {self.current.patch}"

    def add(self, test: str, status: Status, message: str = "", seconds: float = 0.0) -> None:
        """Add a result."""
        run = self.current
        self.results.append(
            Result(run.base, run.patch, SUITE, test, status, seconds, message, str(self.log))
        )

    def was_built(self, suite: Suite, folder: Path) -> bool:
        """Say whether there is a program for a suite, and add the result that says so."""
        test = f"{suite.name}.{BUILDS}"
        if (folder / suite.name).exists():
            self.add(test, Status.PASS)
            return True
        try:
            self.add(test, Status.FAIL, (folder / f"{suite.name}{REASON}").read_text("utf-8"))
        except FileNotFoundError:
            self.add(test, Status.SKIP, "this tree has no such program")
        except OSError as error:
            raise InfraError(f"{folder}: {error.strerror}", hint="remove that image") from error
        return False

    def lost(self, error: GuestLost, names: Iterable[str]) -> None:
        """Add the errors of a guest that ended without a whole report."""
        message = f"{error.what}\n{error.tail}"
        whole = {suite.name for suite in error.report.suites if not suite.trouble}
        for name in names:
            if name not in whole:
                self.add(f"{name}.{ENDS}", Status.ERROR, message)

    def read(self, report: GuestReport, suite: SuiteReport) -> None:
        """Add the results of one program."""
        said = ktap.parse(suite.output)
        placed = report.interleaved(suite)
        parsed, found, promised = (
            ktap.parse(placed),
            splats.find(placed),
            splats.expected(placed),
        )
        blamed, loose = splats.fail_cases(parsed, found, promised)
        self.splats += stacks.complaints(parsed, found, promised, self.log, prefix=f"{suite.name}.")
        splat = {case.name: case.message for case in blamed.tests if case.status is Status.FAIL}
        self._claimed.append(suite.console)
        failed = False
        for case in said.tests:
            status, message = case.status, case.message
            if status is Status.PASS and case.name in splat:
                status, message = Status.FAIL, splat[case.name]
            failed = failed or status is not Status.PASS
            self.add(f"{suite.name}.{case.name}", status, message, case.duration or 0.0)
        test = f"{suite.name}.{ENDS}"
        if any(result.test == test for result in self.results):
            return
        if suite.trouble:
            self.add(test, Status.ERROR, suite.trouble)
        elif said.problems:
            self.add(test, Status.ERROR, "\n".join(said.problems), suite.seconds)
        elif loose:
            text = "\n".join(one.text for one in loose)
            self.add(test, Status.FAIL, text, suite.seconds)
        elif suite.status not in (0, _SKIPPED) and not failed:
            self.add(test, Status.FAIL, f"exit status {suite.status}", suite.seconds)
        else:
            self.add(test, Status.PASS, "", suite.seconds)

    def read_console(self, report: GuestReport) -> None:
        """Add the result that says whether the kernel complained outside of all suites."""
        inside = {number for claimed in self._claimed for number in claimed}
        lines = [line for number, line in enumerate(report.console) if number not in inside]
        found = splats.find(lines)
        self.splats += stacks.complaints(ktap.Report((), ()), found, (), self.log)
        if found:
            self.add(SPLAT_CASE, Status.FAIL, "\n".join(splat.text for splat in found))
        else:
            self.add(SPLAT_CASE, Status.PASS)
