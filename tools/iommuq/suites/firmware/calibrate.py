# SPDX-License-Identifier: GPL-2.0-only
"""Measure what the emulated IOMMU of each machine does: the rows of a calibration.

A guest runs twice: the program drives the IOMMU, and then a kernel's driver does."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from iommuq.firmware import calibration, program
from iommuq.firmware.calibration import Calibration, Row
from iommuq.firmware.kernels import Kernel
from iommuq.guests import machine as machines
from iommuq.guests import qemu
from iommuq.guests.boot import GuestLost, GuestReport, boot
from iommuq.guests.initramfs import Suite, build
from iommuq.guests.machine import Machine
from iommuq.results.store import Result, Status, Store, SuiteRun, new_id
from iommuq.suites.firmware import run as firmware
from iommuq.suites.firmware.guest import twice
from iommuq.system import files as logs
from iommuq.system import progress
from iommuq.system.files import file_sha256, hash_of, project_root

SUITE = "calibration"
#: The step in the results.
AS_IT_IS = "as-is"
#: Part of every key; raise it when guests are judged in another way.
_GENERATION = "1"
#: Seconds for the program: each of some 60 writes takes 0.1 s, or more on a busy host.
_LIMIT = 180.0
_ROW = re.compile(r"row (\S+) (\S+)(?: (.*))?")
_BROKEN = "broken "
_BOTH = {False: "own", True: "kernel"}


@dataclass(frozen=True)
class Answer:
    """One measured row: a word, and what was seen."""

    word: str
    more: str = ""


@dataclass(frozen=True)
class Measured:
    """What a guest's program measured.

    :ivar trouble: why it did not end; empty: it did.
    """

    answers: Mapping[str, Answer]
    trouble: str = ""


def read(lines: Iterable[str], trouble: str = "") -> Measured:
    """Parse the program's output, without unknown lines.

    :param trouble: why the program did not end well, from the guest's init.
    """
    answers: dict[str, Answer] = {}
    whole, reason = False, ""
    for line in lines:
        if match := _ROW.fullmatch(line):
            answers.setdefault(match[1], Answer(match[2], (match[3] or "").strip()))
        elif line.startswith(_BROKEN):
            reason = line.removeprefix(_BROKEN)
        elif line == "end":
            whole = True
    if whole and not reason:
        return Measured(answers)
    return Measured(answers, reason or trouble or "the guest's program did not end")


def judge(
    rows: Sequence[Row], name: str, measured: Measured, release: str, log: str
) -> list[Result]:
    """Return one result for each row of a machine: a pass has the answer."""
    found = []
    for row in rows:
        if name not in row.machines:
            continue
        test = f"{name}.{row.name}"
        answer = _answer(row, measured.answers)
        if answer is None:
            why = measured.trouble or "the guest's program did not measure it"
            status, message, word = Status.ERROR, why, ""
        elif answer.word not in row.means:
            message = f"{answer.word} ({answer.more}) is none of {', '.join(row.means)}"
            status, word = Status.ERROR, ""
        else:
            status, message, word = Status.PASS, answer.more, answer.word
        found.append(Result(release, AS_IT_IS, SUITE, test, status, 0.0, message, log, answer=word))
    return found


def _answer(row: Row, answers: Mapping[str, Answer]) -> Answer | None:
    if row.bit is None:
        return answers.get(row.name)
    register = answers.get(row.register)
    try:
        value = None if register is None else int(register.more, 16)
    except ValueError:
        value = None
    if value is None:
        return None
    return Answer("yes" if value >> row.bit & 1 else "no", f"{row.register} {value:#018x}")


def run_key(kernel: Kernel, machine: Machine) -> str:
    """Return the content key of all that the answers for a machine depend on."""
    given = (machine.qemu, machine.cpus, machine.memory, machine.arguments)
    words = (
        _GENERATION, SUITE, kernel.key, machine.name, repr(given), program.calibration_key(),
        file_sha256(project_root() / "selftests/init"), qemu.full_version(),
        file_sha256(project_root() / calibration.PLACE),
    )  # fmt: skip
    return hash_of(*words)


def stored(kernel: Kernel, names: Sequence[str], store: Store) -> dict[str, SuiteRun]:
    """Return the stored runs without errors, by machine."""
    found = {name: store.find(run_key(kernel, machines.load_machine(name))) for name in names}
    return {name: run for name, run in found.items() if run is not None and not run.has_errors}


def calibrate(
    wanted: Calibration,
    kernel: Kernel,
    names: Sequence[str],
    *,
    store: Store | None = None,
    again: bool = False,
) -> dict[str, SuiteRun]:
    """Measure some machines, or take the answers from the store.

    :param again: measure even if the store has the answers.
    :return: complete runs by machine; a row without an answer is an error in it.
    :raises UserError: the kernel lacks an option that the machines need.
    """
    store = store or Store()
    done = {} if again else stored(kernel, names, store)
    left = [machines.load_machine(name) for name in names if name not in done]
    for machine in left:
        kernel.check(machine)
    if left:
        largest = max(machine.memory for machine in left)
        limit = firmware.side_by_side(firmware.free_memory(), largest)

        def one(machine: Machine) -> SuiteRun:
            return _measure(wanted, kernel, machine, store)

        with ThreadPoolExecutor(min(limit, len(left)), thread_name_prefix="calibrate") as pool:
            done |= dict(zip((each.name for each in left), pool.map(one, left), strict=True))
    return {name: done[name] for name in names}


def _measure(wanted: Calibration, kernel: Kernel, machine: Machine, store: Store) -> SuiteRun:
    started = time.time()
    current = SuiteRun(
        new_id(started), kernel.release, AS_IT_IS, SUITE, run_key(kernel, machine),
        kernel.release, "qemu", "", started, image=kernel.sha256,
    )  # fmt: skip
    store.begin(current)
    answers: dict[str, Answer] = {}
    troubles, ran = [], ""
    log = Path()
    for driver in _BOTH:
        log = logs.new_log(f"calibration-{machine.name}-{_BOTH[driver]}")
        task = f"Measuring {machine.name}{', with its driver' if driver else ''}"
        with firmware.turns, progress.task(task, log=log):
            report, trouble = _boot(kernel, machine, driver, log)
        suite = report.suites[0] if report.suites else None
        found = read(suite.output if suite else (), trouble or (suite.trouble if suite else ""))
        answers |= {name: found.answers[name] for name in found.answers if name not in answers}
        troubles += [found.trouble] if found.trouble else []
        ran = ran or report.accelerator
    both = Measured(answers, "; ".join(troubles))
    results = judge(wanted.row, machine.name, both, kernel.release, str(log))
    return store.finish(replace(current, accelerator=ran), results)


def _boot(kernel: Kernel, machine: Machine, driver: bool, log: Path) -> tuple[GuestReport, str]:
    """Boot once; return the report, and why the guest was lost."""
    argv = (program.CALIBRATE_PATH, *calibration.command(machine, driver=driver))
    modules = {f"/lib/modules/{path.name}": path for path in kernel.modules}
    paths = {program.CALIBRATE_PATH: program.build_calibration(), **modules}
    archive = build([Suite(SUITE, argv, limit=_LIMIT)], paths, modules=tuple(modules))
    given = replace(machine, arguments=calibration.arguments(machine, driver=driver))
    foreign = not kernel.built
    try:
        return twice(lambda: boot(given, kernel.image, archive, log, foreign=foreign)), ""
    except GuestLost as error:
        return error.report, f"{error.what}\n{error.tail}"
