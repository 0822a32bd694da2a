# SPDX-License-Identifier: GPL-2.0-only
"""Write ``docs/generated/calibration.md``: what the emulated IOMMU of each machine does."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path

from iommuq.firmware import calibration, packages
from iommuq.firmware.calibration import Calibration, Row
from iommuq.guests import qemu
from iommuq.report.view import TEMPLATES, template
from iommuq.results.store import Result, Status, Store, SuiteRun
from iommuq.suites.firmware.calibrate import calibrate, stored
from iommuq.system import files
from iommuq.system.errors import InfraError, UserError
from iommuq.system.progress import note, one_line

FILE = "docs/generated/calibration.md"
_BLANKS = re.compile(r"\n{3,}")


def write_calibration(
    into: Path | None, kernel: str | None, *, again: bool, stored_only: bool
) -> None:
    """Measure all machines, and write the page.

    :param into: by default ``docs/generated/calibration.md``.
    :param kernel: an image or a package; by default that of the table.
    :param again: measure even if the store has the answers.
    :param stored_only: use stored answers only; boot nothing.
    :raises InfraError: a row has no answer; nothing is written.
    :raises UserError: *stored_only*, and the store does not have all.
    """
    wanted = calibration.load()
    tested = packages.find(kernel or wanted.kernel)
    if stored_only:
        runs = stored(tested, wanted.machines, Store())
        for name in wanted.machines:
            if name not in runs:
                raise UserError(f"{name} was not measured", hint="run it without --stored")
    else:
        runs = calibrate(wanted, tested, wanted.machines, again=again)
    text = render(wanted, runs, qemu.full_version())
    path = into or files.project_root() / FILE
    path.write_text(text, encoding="utf-8")
    note(f"{path} written")


def render(wanted: Calibration, runs: Mapping[str, SuiteRun], version: str) -> str:
    """Return the page; *version* is that of QEMU.

    :raises InfraError: a row has no answer.
    """
    found: dict[str, Result] = {}
    for run in runs.values():
        for result in run.results:
            if result.status is not Status.PASS:
                what = f"{result.test}: {one_line(result.message)}"
                raise InfraError(what, hint=f"full log: {result.log}")
            found[result.test] = result

    def cell(row: Row, name: str) -> str:
        return found[f"{name}.{row.name}"].answer if name in row.machines else ""

    def answers(row: Row) -> list[tuple[str, list[str]]]:
        """Return the answers that were measured, in the order of the table."""
        by_answer: dict[str, list[str]] = {}
        for name in row.machines:
            by_answer.setdefault(cell(row, name), []).append(f"`{name}`")
        return [(answer, by_answer[answer]) for answer in row.means if answer in by_answer]

    def seen(name: str) -> list[tuple[Row, str]]:
        rows = [row for row in wanted.row if name in row.machines]
        pairs = [(row, _safe(found[f"{name}.{row.name}"].message)) for row in rows]
        return [(row, more) for row, more in pairs if more]

    days = sorted({_day(run) for run in runs.values()})
    page = template(TEMPLATES / "calibration.md.j2").render(
        version=version.removeprefix("version "),
        accelerators=sorted({run.accelerator for run in runs.values()} - {""}),
        kernel=", ".join(sorted({run.kernel for run in runs.values()})),
        days=days[:1] + days[1:][-1:],
        machines=wanted.machines,
        measured=[row for row in wanted.row if row.machines],
        unmeasured=[row for row in wanted.row if not row.machines],
        cell=cell,
        answers=answers,
        seen=seen,
    )
    lines = (line.rstrip() for line in page.splitlines())
    return _BLANKS.sub("\n\n", "\n".join(lines)).rstrip() + "\n"


def _day(run: SuiteRun) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(run.started))


def _safe(text: str) -> str:
    return one_line(text).replace("<", "&lt;")
