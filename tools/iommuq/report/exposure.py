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
from iommuq.guests import machine as machines
from iommuq.guests import qemu
from iommuq.results.store import Result, Status, Store, SuiteRun
from iommuq.suites.firmware.cases import Case, cases
from iommuq.suites.firmware.subjects import Tested, foreign, queued
from iommuq.system import files, tables
from iommuq.system.progress import note, one_line
from iommuq.system.tables import Table, require

FILE = "docs/generated/exposure.md"
_OPEN = "not run"
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
    lines = [
        "# Exposure",
        "",
        "`iommuq firmware exposure` writes this page: the result of each scenario on each kernel,",
        "on machines whose firmware claims memory for a device. Each cell is a run. *holds*: every",
        "check passed. **FAILS**: the kernel is exposed; the failed checks are below the table.",
        f"*{_OPEN}*, *no verdict* and *skipped* say nothing about the kernel.",
        "",
    ]
    for column in columns:
        days = sorted({_day(run) for run in column.runs if run})
        ran = f", {days[0]}" + (f" to {days[-1]}" if len(days) > 1 else "") if days else ""
        lines.append(f"- {column.title}: {column.version or 'not run yet'}{ran}")
    seen = {run.accelerator for column in columns for run in column.runs if run} - {""}
    lines += [f"- QEMU {version.removeprefix('version ')}, {', '.join(sorted(seen)) or _OPEN}", ""]
    for name in dict.fromkeys(case.machine.name for case in chosen):
        lines += _section(name, chosen, columns)
    lines += ["## The scenarios", ""]
    for one in {case.scenario.name: case.scenario for case in chosen}.values():
        lines += [f"### {one.name}", "", f"{one.title}.", "", one.holds.strip(), ""]
    return "\n".join(lines).rstrip() + "\n"


def _section(name: str, chosen: Sequence[Case], columns: Sequence[Filled]) -> list[str]:
    lines = [f"## {machines.load_machine(name).title} (`{name}`)", ""]
    lines.append("| scenario | " + " | ".join(column.title for column in columns) + " |")
    lines.append("|---" * (len(columns) + 1) + "|")
    failures: list[str] = []
    for number, case in enumerate(chosen):
        if case.machine.name != name:
            continue
        cells = [_cell(column.runs[number]) for column in columns]
        lines.append(f"| {case.scenario.name} | " + " | ".join(cells) + " |")
        for column in columns:
            failures += _failures(case, column, column.runs[number])
    return [*lines, "", *failures, *([""] if failures else [])]


def _day(run: SuiteRun) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(run.started))


def _cell(run: SuiteRun | None) -> str:
    if run is None:
        return _OPEN
    statuses = {result.status for result in run.results}
    if Status.FAIL in statuses:
        return "**FAILS**"
    if Status.ERROR in statuses:
        return "no verdict"
    if statuses == {Status.SKIP}:
        reason = next((result.message for result in run.results), "")
        return f"skipped: {_safe(reason.removeprefix(f'{run.kernel} is '))}"
    return "holds"


def _failures(case: Case, column: Filled, run: SuiteRun | None) -> list[str]:
    failed = [result for result in run.results if result.status is Status.FAIL] if run else []
    if not failed:
        return []
    lines = [f"- {case.scenario.name}, {column.title}:"]
    for result in failed:
        check = result.test.removeprefix(f"{case.name}.")
        lines.append(f"  - {check}: {_reason(result)}")
    return lines


def _reason(result: Result) -> str:
    """Return the first line of a message; of splats, which may be long, the titles."""
    lines = result.message.splitlines()
    titles = [line for line in lines if line.startswith(("WARNING: ", "BUG: ", "Oops", "general"))]
    titles = [_WHO.sub("", title) for title in titles]
    return _safe("; ".join(dict.fromkeys(titles)) or (lines[0] if lines else ""))


def _safe(text: str) -> str:
    return one_line(text).replace("|", "\\|").replace("<", "&lt;")
