# SPDX-License-Identifier: GPL-2.0-only
"""Guests that only say what they found: what firmware scenarios are tried on without QEMU."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from iommuq.firmware import program, scenario
from iommuq.firmware.kernels import Kernel
from iommuq.firmware.tables import dmar, ivrs
from iommuq.guests import machine as machines
from iommuq.guests import qemu
from iommuq.guests.boot import GuestLost, GuestReport, SuiteReport
from iommuq.guests.initramfs import Initramfs, Suite
from iommuq.guests.machine import Machine
from iommuq.results.store import Result, Status, SuiteRun
from iommuq.suites.firmware import run as firmware
from iommuq.suites.firmware.cases import Case, cases
from iommuq.suites.kunit import Subject

TABLES = {
    "DMAR": dmar.Dmar((dmar.Drhd(0xFED90000, flags=1),)).encode(),
    "IVRS": ivrs.Ivrs((ivrs.Ivhd(0x10, 0x10, 0xFED80000),)).encode(),
}
KERNEL = Kernel("k", "6.1.0-toy", "", Path("/nowhere/bzImage"), (), None, "key")
SUBJECT = Subject("k", "as-is", "6.1.0-toy")
WARN = "WARNING: CPU: 0 PID: 9 at drivers/iommu/iommu.c:1 iommu_x+0x1/0x2"


class Guests:
    """Stands in for QEMU: every scenario goes well unless a test says otherwise."""

    def __init__(self) -> None:
        self.boots: list[tuple[str, list[str]]] = []
        #: What is said in a scenario; None if the guest is lost in it.
        self.plays: dict[str, list[str] | None] = {}
        self.console: dict[str, str] = {}
        self.tables = dict(TABLES)
        self.ignores_override = False
        self.answers: dict[str, str] = {}
        self.before: bytes = b""
        self._lock = threading.Lock()
        self._batch = threading.local()

    def build(
        self,
        suites: Iterable[Suite],
        files: dict[str, Path],
        *,
        modules: Iterable[str] = (),
        before: bytes = b"",
    ) -> Initramfs:
        self._batch.scripts = {
            path.removeprefix("/suites/").removesuffix(".steps"): file.read_text().splitlines()
            for path, file in files.items()
            if path.endswith(".steps")
        }
        self._batch.before = before
        del modules
        return Initramfs(Path("/nowhere/x.cpio"), tuple(suites))

    def boot(
        self, machine: Machine, image: Path, archive: Initramfs, log: Path, **_options: object
    ) -> GuestReport:
        del image, log
        names = [suite.name for suite in archive.suites]
        with self._lock:
            self.boots.append((machine.name, names))
        reports: list[SuiteReport] = []
        console: list[str] = []
        for name in names:
            lines = self._play(machine, name)
            start = len(console)
            if name in self.console:
                console.append(self.console[name])
            where = range(start, len(console))
            if lines is None:
                half = ("step 0 ok",)
                reports.append(SuiteReport(name, None, "did not end", half, 0.0, where))
                report = GuestReport(tuple(reports), "tcg", 1.0, tuple(console))
                raise GuestLost("guest lost: it panicked", hint="", tail="oh no", report=report)
            reports.append(SuiteReport(name, 0, "", tuple(lines), 1.0, where))
        return GuestReport(tuple(reports), "tcg", 1.0, tuple(console))

    def _play(self, machine: Machine, name: str) -> list[str] | None:
        script = self._batch.scripts[name]
        if name == "table":
            signature = script[0].split("\t")[1]
            table = self.tables.get(signature, b"")
            before: bytes = self._batch.before
            if before and not self.ignores_override:
                at = before.index(signature.encode() + b"", before.index(b".aml"))
                table = before[at : at + int.from_bytes(before[at + 4 : at + 8], "little")]
            lines = [f"bytes 0 {table.hex()}", "step 0 ok"] if table else ["step 0 ENOENT"]
            for number, line in enumerate(script[1:], 1):
                path = line.split("\t")[1]
                lines.append(f"step {number} {self.answers.get(path, 'yes')} {path}")
            return [*lines, "end"]
        if name in self.plays:
            return self.plays[name]
        return well(name, machine.name)


def well(name: str, machine: str) -> list[str]:
    """Return what the program says when all is as it should be."""
    found = scenario.load_scenario(name)
    _, first = scenario.script(found, machines.load_machine(machine))
    words = ["ok"] * first + [step.expected[0] for step in found.steps(machine)]
    return [*(f"step {number} {word}" for number, word in enumerate(words)), "end"]


def put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guests:
    """Return the guests that are booted instead of QEMU's from now on."""
    made = Guests()
    (tmp_path / "steps").write_text("#!/bin/sh\n")
    monkeypatch.setattr(program, "build", lambda: tmp_path / "steps")
    monkeypatch.setattr(qemu, "full_version", lambda: "version 7.2.0")
    monkeypatch.setattr(firmware, "build", made.build)
    monkeypatch.setattr(firmware, "boot", made.boot)
    return made


def of(name: str, *on: str) -> list[Case]:
    return cases([scenario.load_scenario(name)], on)


def statuses(run: SuiteRun) -> dict[str, Status]:
    return {result.test.rpartition(".")[2]: result.status for result in run.results}


def made_run(
    case: Case, subject: Subject, special: dict[str, tuple[Status, str]] | None = None
) -> SuiteRun:
    """Return a run in which all is well but for some checks."""
    results = []
    for check in case.scenario.checks(case.machine.name):
        status, message = (special or {}).get(check, (Status.PASS, ""))
        test = case.scenario.test(case.machine.name, check)
        results.append(Result(subject.base, subject.patch, "firmware", test, status, 0.0, message))
    return SuiteRun(
        case.name, subject.base, subject.patch, "firmware", "key", subject.kernel, "qemu", "tcg",
        1e9, 1e9 + 5, tuple(results),
    )  # fmt: skip
