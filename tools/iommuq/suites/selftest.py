# SPDX-License-Identifier: GPL-2.0-only
"""Run the userspace suites of an image in a guest.

Programs write to a channel of their own; the console tells which case a splat belongs to."""

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
from iommuq.results.store import Complaint, Result, Status, Store, SuiteRun, new_id
from iommuq.suites.kunit import SPLAT_CASE, Subject, renamed
from iommuq.suites.programs import REASON, Suite
from iommuq.system import files, progress
from iommuq.system.errors import InfraError
from iommuq.system.files import file_sha256, project_root

SUITE = "selftest"
#: The case that tells whether a program was built.
BUILDS = "builds"
#: The case that tells how a program ended.
ENDS = "ends_well"
_GENERATION = "1"
#: KSFT_SKIP (tools/testing/selftests/kselftest.h).
_SKIPPED = 4


def run_selftests(
    image: Image,
    machine: Machine,
    suites: Sequence[Suite],
    subject: Subject,
    *,
    store: Store | None = None,
    again: bool = False,
) -> SuiteRun:
    """Run suites, or take the results from the store if nothing changed.

    :param image: built with the programs as its addition.
    :param again: run even if the store has the results.
    :return: a complete run; a test without a verdict is an error in it.
    """
    store = store or Store()
    key = run_key(image, machine, suites)
    found = None if again else store.find(key)
    if found is not None and not found.has_errors:
        return renamed(found, subject)
    current = SuiteRun(
        new_id(time.time()), subject.base, subject.patch, SUITE, key, subject.kernel,
        machine.guest, image.arch.accelerator, time.time(), image=image.check(),
    )  # fmt: skip
    log = files.new_log(f"selftest-{subject.base}-{machine.name}-{subject.patch}")
    reader = _Reader(current, log)
    built = [suite for suite in suites if reader.was_built(suite, image.folder / Addition.FOLDER)]
    store.begin(current)
    if built:
        report = _boot(image, machine, built, log, reader)
        current = replace(current, accelerator=report.accelerator)
    found_splats = stacks.decoded(reader.splats, image.folder / image.arch.image)
    return store.finish(current, reader.results, splats=found_splats)


def run_key(image: Image, machine: Machine, suites: Sequence[Suite]) -> str:
    """Return the content key of all that the results depend on."""
    init = file_sha256(project_root() / "selftests/init")
    words = [_GENERATION, image.key, repr(machine), repr(suites), init]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _boot(
    image: Image, machine: Machine, suites: Sequence[Suite], log: Path, reader: _Reader
) -> GuestReport:
    programs = {f"/suites/{s.name}": image.folder / Addition.FOLDER / s.name for s in suites}
    guest = [GuestSuite(s.name, (f"/suites/{s.name}",), s.limit, s.needs) for s in suites]
    title = f"{reader.current.base} {reader.current.patch}"
    with progress.task(f"Running selftests on {title} in {machine.name}", log=log):
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

    def __init__(self, current: SuiteRun, log: Path) -> None:
        self.current = current
        self.log = log
        self.results: list[Result] = []
        self.splats: list[Complaint] = []
        self._claimed: list[range] = []

    def add(self, test: str, status: Status, message: str = "", seconds: float = 0.0) -> None:
        run = self.current
        self.results.append(
            Result(run.base, run.patch, SUITE, test, status, seconds, message, str(self.log))
        )

    def was_built(self, suite: Suite, folder: Path) -> bool:
        """Return whether there is a program for a suite, and add a result for it."""
        test = f"{suite.name}.{BUILDS}"
        if (folder / suite.name).exists():
            self.add(test, Status.PASS)
            return True
        try:
            self.add(test, Status.FAIL, (folder / f"{suite.name}{REASON}").read_text("utf-8"))
        except FileNotFoundError:
            self.add(test, Status.SKIP, "this tree does not have the program")
        except OSError as error:
            raise InfraError(f"{folder}: {error.strerror}", hint="remove that image") from error
        return False

    def lost(self, error: GuestLost, names: Iterable[str]) -> None:
        """Add errors for the suites that a lost guest did not finish."""
        message = f"{error.what}\n{error.tail}"
        whole = {suite.name for suite in error.report.suites if not suite.trouble}
        for name in names:
            if name not in whole:
                self.add(f"{name}.{ENDS}", Status.ERROR, message)

    def read(self, report: GuestReport, suite: SuiteReport) -> None:
        """Add the results of one program."""
        said = ktap.parse(suite.output)
        placed = report.interleaved(suite)
        parsed, found = ktap.parse(placed), splats.find(placed)
        promised = splats.expected(placed)
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
        """Add the result for splats outside of all suites."""
        inside = {number for claimed in self._claimed for number in claimed}
        lines = [line for number, line in enumerate(report.console) if number not in inside]
        found = splats.find(lines)
        self.splats += stacks.complaints(ktap.Report((), ()), found, (), self.log)
        status = Status.FAIL if found else Status.PASS
        self.add(SPLAT_CASE, status, "\n".join(splat.text for splat in found))
