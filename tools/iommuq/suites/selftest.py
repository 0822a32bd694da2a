# SPDX-License-Identifier: GPL-2.0-only
"""Build the programs of the userspace suites, and run them in a guest.

A program that does not compile leaves a file with the reason; it is no error.  Programs write to a
channel of their own; the console tells which case a splat belongs to."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from iommuq.build.image import Addition, Image
from iommuq.guests.boot import GuestLost, GuestReport, SuiteReport, boot
from iommuq.guests.initramfs import Suite as GuestSuite
from iommuq.guests.initramfs import build as build_initramfs
from iommuq.guests.machine import Machine
from iommuq.queue.inserts import Insert
from iommuq.results.console import ktap, splats, stacks
from iommuq.results.store import Complaint, Result, Status, Store, SuiteRun, new_id
from iommuq.suites.kunit import SPLAT_CASE, Subject, renamed
from iommuq.system import files, progress, tables, toolchain
from iommuq.system.errors import CommandFailed, InfraError, ToolMissing, UserError, VerdictError
from iommuq.system.files import cache_dir, file_sha256, hash_of, project_root
from iommuq.system.run import run, tail
from iommuq.system.tables import Table, require
from iommuq.system.temporary import temporary_folder

#: The programs of the tree.
KERNEL = "tools/testing/selftests/iommu"
_MOCK = "drivers/iommu/iommufd/iommufd_test.h"
#: Suffix of the file that tells why a program does not compile.
REASON = ".failed"
#: Suffix of the file that tells why a tree cannot have a program.
SKIPPED = ".skipped"
#: Part of the key; raise it when the same sources give other programs.
_PROGRAMS_GENERATION = "4"
_BUILD_LIMIT = 600.0
_INPUTS = tables.own_table(__package__, "selftest.toml")["inputs"]
SUITE = "selftest"
#: The case that tells whether a program was built.
BUILDS = "builds"
#: The case that tells how a program ended.
ENDS = "ends_well"
_GENERATION = "1"
#: KSFT_SKIP (tools/testing/selftests/kselftest.h).
_SKIPPED = 4


@dataclass(frozen=True)
class Suite(Table):
    """One program.

    :ivar source: ``kernel`` or ``project``.
    :ivar limit: in seconds.
    :ivar needs: paths that must exist in the guest.
    :ivar program: the program of the tree into which the project inserts its fixtures.
    :ivar fixtures: those of the project, which alone are run.
    :ivar header: a name that ``iommufd_test.h`` of the tree must have.
    """

    name: str
    source: str
    limit: float
    needs: tuple[str, ...] = ()
    program: str = ""
    fixtures: tuple[str, ...] = ()
    header: str = ""

    def __post_init__(self) -> None:
        require(self.source in ("kernel", "project"), "source is neither kernel nor project")
        own = self.source == "project"
        for key in ("program", "fixtures", "header"):
            require(bool(getattr(self, key)) == own, f"{key} is for source project, and must be")

    @property
    def argv(self) -> tuple[str, ...]:
        """The program in the guest, and its arguments."""
        chosen = [word for fixture in self.fixtures for word in ("-f", fixture)]
        return (f"/suites/{self.name}", *chosen)


@dataclass(frozen=True)
class _Document(Table):
    suite: tuple[Suite, ...]


@dataclass(frozen=True)
class _Inserts:
    """What ``selftests/export.toml`` says of the programs; the rest is for mails."""

    insert: tuple[Insert, ...]


def load_suites(root: Path) -> tuple[Suite, ...]:
    """Read ``selftests/suites.toml``.

    :raises UserError: it is missing or malformed.
    """
    return tables.load_toml(_Document, root / "selftests/suites.toml").suite


def choose(suites: Sequence[Suite], names: Sequence[str]) -> tuple[Suite, ...]:
    """Return the suites of these names; all if no name is given.

    :raises UserError: there is no such suite.
    """
    known = {suite.name: suite for suite in suites}
    for name in names:
        if name not in known:
            raise UserError(f"no suite {name!r}; there are {', '.join(known)}")
    return tuple(known[name] for name in names) if names else tuple(suites)


def addition(root: Path) -> Addition:
    """Return the addition to an image that builds all programs.

    :param root: the checkout of the project.
    """
    folder = root / "selftests"
    own = [suite for suite in load_suites(root) if suite.source == "project"]
    inserts = tables.load_toml(_Inserts, folder / "export.toml").insert
    words = [_PROGRAMS_GENERATION, repr(own), repr(inserts)]
    words += [each.lines(folder, numbered=True) for each in inserts]
    key = hash_of(*words)

    def make(source: Path, objects: Path, into: Path, log: Path) -> None:
        kept = cache_dir() / "programs" / _key(source, key)
        if not kept.is_dir():
            with progress.task("Building the selftests", log=log):
                headers = export_headers(source, objects, log)
                _kernel_programs(source, objects, headers, into, log)
                with_fixtures(source, folder, inserts, into / "src")
                for suite in own:
                    _own_program(source, suite, headers, into, log)
            keep(into, kept)
            return
        kept.touch()
        shutil.copytree(kept, into, dirs_exist_ok=True)

    return Addition(key, make)


def with_fixtures(source: Path, folder: Path, inserts: Sequence[Insert], into: Path) -> None:
    """Copy the files of the tree that the project inserts something into, with that.

    A file that is not in the tree, or that does not fit, is left out.
    """
    into.mkdir()
    for each in inserts:
        copy = into / Path(each.file).name
        with contextlib.suppress(FileNotFoundError, VerdictError):
            text = (copy if copy.exists() else source / each.file).read_text("utf-8")
            copy.write_text(each.into(text, folder, numbered=True), "utf-8")


def _key(source: Path, own: str) -> str:
    """Return a hash of the part of a tree that the programs depend on."""
    files = [path for path in _INPUTS if (source / path).is_file()]
    for folder in _INPUTS:
        for where, _, names in os.walk(source / folder):
            files += [str(Path(where, name).relative_to(source)) for name in names]
    words = [own, toolchain.identity()]
    for path in sorted(files):
        file = source / path
        content = str(file.readlink()).encode() if file.is_symlink() else file.read_bytes()
        words += [path, hashlib.sha256(content).hexdigest()]
    return hash_of(*words)


def keep(made: Path, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder("programs", kept.parent) as temporary:
        shutil.copytree(made, temporary, dirs_exist_ok=True)
        with contextlib.suppress(OSError):
            temporary.rename(kept)


def export_headers(source: Path, objects: Path, log: Path) -> Path:
    """Export the tree's headers for userspace, those of x86: UML has none."""
    where = objects.with_name(f"{objects.name}-headers")
    # headers_install needs rsync and copies them once more.
    run_make(["make", "ARCH=x86_64", f"O={where}", "headers"], source, log, check=True)
    return where / "usr/include"


def _kernel_programs(source: Path, objects: Path, headers: Path, into: Path, log: Path) -> None:
    output = objects.with_name(f"{objects.name}-programs")
    # Remove programs of other steps.
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    argv = ["make", "-k", "-C", f"{source}/{KERNEL}", f"OUTPUT={output}"]
    # check=False: a program that is missing afterwards did not compile.
    said = run_make(
        [*argv, f"KHDR_INCLUDES=-isystem {headers}", "LDFLAGS=-static"], source, log, check=False
    )
    for path in sorted((source / KERNEL).glob("*.c")):
        name = path.stem
        if (output / name).exists():
            shutil.copy2(output / name, into / name)
        else:
            (into / f"{name}{REASON}").write_text(reason(said, path.name, source))


def _own_program(source: Path, suite: Suite, headers: Path, into: Path, log: Path) -> None:
    mock = source / _MOCK
    if not mock.exists() or suite.header not in mock.read_text("utf-8"):
        (into / f"{suite.name}{SKIPPED}").write_text(f"{_MOCK} has no {suite.header}")
        return
    argv = ["gcc", "-Wall", "-O2", "-static", "-D_GNU_SOURCE=", "-Wno-unused-function"]
    # This tree's headers first, then harness and utilities of its selftests.
    argv += [
        "-isystem",
        str(headers),
        f"-I{source}/{KERNEL}",
        f"-I{source}/tools/testing/selftests",
    ]
    # Messages quote the argument: pass the name, not the path.
    argv += ["-o", str(into / suite.name), f"{suite.program}.c", "-lcap"]
    said = run_make(argv, into / "src", log, check=False)
    if not (into / suite.name).exists():
        text = reason(said, f"{suite.program}.c", source)
        (into / f"{suite.name}{REASON}").write_text(text)


def run_make(argv: list[str], cwd: Path, log: Path, check: bool) -> str:
    environment = {"LC_ALL": "C.UTF-8", "MAKEFLAGS": "", "MAKELEVEL": ""}
    try:
        done = run(argv, cwd=cwd, env=environment, log_path=log, timeout=_BUILD_LIMIT, watched=True)
    except CommandFailed as error:
        if check:
            raise
        return error.output
    return done.output


def reason(said: str, name: str, source: Path) -> str:
    """Return the first errors of the compiler; raise ToolMissing if a system header is missing."""
    header = toolchain.missing_header(said)
    if header is not None:
        raise ToolMissing(
            f"{header} is not installed, {name} needs it", hint="`iommuq doctor` names the package"
        )
    lines = said.replace(f"{source}/", "").splitlines()
    errors = [line for line in lines if ": error: " in line or ": fatal error: " in line]
    return "\n".join(errors[:10]) or f"{name} was not built:\n{tail(said, 5)}"


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
    return hash_of(*words)


def _boot(
    image: Image, machine: Machine, suites: Sequence[Suite], log: Path, reader: _Reader
) -> GuestReport:
    programs = {f"/suites/{s.name}": image.folder / Addition.FOLDER / s.name for s in suites}
    guest = [GuestSuite(s.name, s.argv, s.limit, s.needs) for s in suites]
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
        status, message = Status.SKIP, "this tree does not have the program"
        for suffix, meaning in ((REASON, Status.FAIL), (SKIPPED, Status.SKIP)):
            try:
                message = (folder / f"{suite.name}{suffix}").read_text("utf-8")
                status = meaning
            except FileNotFoundError:
                continue
            except OSError as error:
                raise InfraError(f"{folder}: {error.strerror}", hint="remove that image") from error
        self.add(test, status, message)
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
        splat, loose = splats.blamed_on(parsed, found, promised)
        self.splats += stacks.complaints(parsed, found, promised, self.log, prefix=f"{suite.name}.")
        failed = False
        for case in said.tests:
            status, message = case.status, case.message
            if case.name in splat:
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
        found = splats.find(report.outside(report.suites))
        self.splats += stacks.complaints(ktap.Report((), ()), found, (), self.log)
        status = Status.FAIL if found else Status.PASS
        self.add(SPLAT_CASE, status, "\n".join(splat.text for splat in found))
