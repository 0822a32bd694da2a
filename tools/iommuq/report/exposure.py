# SPDX-License-Identifier: GPL-2.0-only
"""Write ``docs/generated/exposure.md``: the result of each scenario on each kernel."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from iommuq.bases.basefile import load_spec
from iommuq.bases.sources import is_cached
from iommuq.firmware import packages, scenario
from iommuq.guests import qemu
from iommuq.report.view import TEMPLATES, template
from iommuq.results.store import Result, Status, Store, SuiteRun
from iommuq.suites.firmware.cases import Case, cases
from iommuq.suites.firmware.subjects import Tested, foreign, queued
from iommuq.system import files, tables
from iommuq.system.progress import note, one_line
from iommuq.system.tables import Table, require

FILE = "docs/generated/exposure.md"
# Parts of the title of a splat that differ from run to run.
_WHO = re.compile(r"CPU: \d+ PID: \d+ at |, CPU#\d+: \S+")


@dataclass(frozen=True)
class Column(Table):
    """One kernel of the table: a package, or a base and a step of its queue."""

    title: str
    package: str = ""
    base: str = ""
    at: str | None = None

    def __post_init__(self) -> None:
        require(bool(self.package) != bool(self.base), "either package or base is needed")
        require(self.base or self.at is None, "at is a step of a base")


@dataclass(frozen=True)
class _Document(Table):
    column: tuple[Column, ...]


@dataclass(frozen=True)
class Filled:
    """A column with its runs.

    :ivar version: name and version of the kernel; empty: not available here.
    :ivar runs: one for each case; None: not run.
    """

    title: str
    version: str
    runs: tuple[SuiteRun | None, ...]


def load_columns() -> tuple[Column, ...]:
    """Read ``selftests/exposure.toml``.

    :raises UserError: it is missing or malformed.
    """
    return tables.load_toml(_Document, files.project_root() / "selftests/exposure.toml").column


def write_exposure(into: Path | None, *, stored_only: bool) -> None:
    """Run all scenarios on all kernels, and write the page.

    :param into: by default ``docs/generated/exposure.md``.
    :param stored_only: use stored runs only; build and run nothing.
    """
    chosen = cases(scenario.choose([]))
    columns = [_fill(column, chosen, stored_only) for column in load_columns()]
    path = into or files.project_root() / FILE
    path.write_text(render(chosen, columns, qemu.full_version()), encoding="utf-8")
    note(f"{path} written")


def _fill(column: Column, chosen: Sequence[Case], stored_only: bool) -> Filled:
    nothing = Filled(column.title, "", (None,) * len(chosen))
    if column.base:
        if stored_only and not is_cached(load_spec(column.base)):
            return nothing
        tested: Tested = queued(column.base, column.at)
    else:
        tested = foreign(packages.find(column.package))
    if stored_only:
        runs: Sequence[SuiteRun | None] = tested.stored(chosen, Store())
    else:
        runs = tested.run(chosen)
    return Filled(column.title, tested.title, tuple(runs))


def render(chosen: Sequence[Case], columns: Sequence[Filled], version: str) -> str:
    """Return the page; *version* is that of QEMU."""
    machines: dict[str, list[tuple[Case, list[SuiteRun | None]]]] = {}
    for number, case in enumerate(chosen):
        runs = [column.runs[number] for column in columns]
        machines.setdefault(case.machine.name, []).append((case, runs))
    page = template(
        TEMPLATES / "exposure.md.j2", cell=_cell, day=_day, failed=_failed, reason=_reason
    )
    text = page.render(
        columns=columns,
        version=version.removeprefix("version "),
        accelerators=sorted({run.accelerator for one in columns for run in one.runs if run} - {""}),
        machines=machines,
        scenarios={case.scenario.name: case.scenario for case in chosen}.values(),
        zip=zip,
    )
    return text.rstrip() + "\n"


def _day(run: SuiteRun) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(run.started))


def _cell(run: SuiteRun | None) -> str:
    if run is None:
        return "not run"
    statuses = {result.status for result in run.results}
    if Status.FAIL in statuses:
        return "**FAILS**"
    if Status.ERROR in statuses:
        return "no verdict"
    if statuses == {Status.SKIP}:
        reason = next((result.message for result in run.results), "")
        return f"skipped: {_safe(reason.removeprefix(f'{run.kernel} is '))}"
    return "holds"


def _failed(run: SuiteRun | None) -> list[Result]:
    return [result for result in run.results if result.status is Status.FAIL] if run else []


def _reason(result: Result) -> str:
    """Return the first line of a message; of splats, which may be long, the titles."""
    lines = result.message.splitlines()
    titles = [line for line in lines if line.startswith(("WARNING: ", "BUG: ", "Oops", "general"))]
    titles = [_WHO.sub("", title) for title in titles]
    return _safe("; ".join(dict.fromkeys(titles)) or (lines[0] if lines else ""))


def _safe(text: str) -> str:
    return one_line(text).replace("|", "\\|").replace("<", "&lt;")
