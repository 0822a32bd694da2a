# SPDX-License-Identifier: GPL-2.0-only
"""A run as one HTML file without external files.

Text from patches and logs is not trusted: it is escaped, and a policy allows only our script."""

from __future__ import annotations

import base64
import datetime
import hashlib
import itertools
import json
import re
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from iommuq.report import excerpts, sections
from iommuq.report.excerpts import Excerpt
from iommuq.report.sections import Look, Row
from iommuq.report.view import TEMPLATES, Judged, View, middle, template, visible
from iommuq.results.known import Verdict
from iommuq.results.runs.model import CellRecord, CommandRun, Splat, Test
from iommuq.results.store import Status
from iommuq.system.progress import duration

#: Failures in the first section; the table has all.
_NAMED = 30
#: Rows of the table at first.
_ROWS = 300
#: Characters of a message.
_MESSAGE = 6000
#: Characters of all logs together.
_LOGS = 12 << 20
_SPLATS = 200


def to_html(record: CommandRun, *, below: Path | None = None) -> str:
    """Return a run as HTML.

    :param below: read no log outside of this directory.
    """
    return _Page(record, below).render()


class _Page:
    """The data for the template."""

    def __init__(self, record: CommandRun, below: Path | None) -> None:
        self.record = record
        self.view = View(record)
        self.below = below
        self.cells = {
            (cell.step, record.name(cell, test)): (cell, test) for cell, test in record.tests()
        }
        self.rows = list(self._rows())

    def render(self) -> str:
        page = template(
            TEMPLATES / "run.html.j2",
            escape=True,
            visible=visible,
            soft=soft,
            words=lambda text: visible(" ".join(text.split())),
            duration=duration,
            json=embed,
        )
        style = (TEMPLATES / "run.css").read_text("utf-8")
        script = (TEMPLATES / "run.js").read_text("utf-8")
        logs = self._logs()
        return page.render(
            page=self,
            style=style,
            script=script,
            policy=policy(style, script),
            logs=logs,
            data=self._data(logs),
            sections=sections,
            today=datetime.date.today(),
        )

    @property
    def looks(self) -> list[Look]:
        """The signs that the table has, for its legend."""
        used = {look for row in self.rows for look in row.looks}
        return [look for look in Look if look in used and look.sign]

    def _rows(self) -> Iterator[Row]:
        steps = [step.label for step in self.record.steps]
        for number, row in enumerate(self.view.matrix.rows):
            looks: list[Look] = []
            for at, step in enumerate(steps):
                found = self.cells.get((step, row.name))
                look = Look.NOT_RUN if found is None else self._look(*found)
                if look is Look.OK and at and looks[-1] in (Look.FAILED, Look.EXPECTED, Look.KNOWN):
                    look = Look.FIXED
                looks.append(look)
            yield Row(number, row.suite, row.test, tuple(looks))

    def _look(self, cell: CellRecord, test: Test) -> Look:
        if test.verdict is Verdict.FAILED:
            failed = self.view.judged(cell, test).status is Status.FAIL
            return Look.FAILED if failed else Look.EXPECTED
        look = Look[test.verdict.name]
        return Look.OK_ALONE if look is Look.OK and len(self.record.steps) == 1 else look

    @property
    def sections(self) -> list[tuple[str, int]]:
        """The series of adjacent steps, and their number of steps."""
        names = [step.label.rpartition("/")[0] for step in self.record.steps]
        return [(name, len(list(group))) for name, group in itertools.groupby(names)]

    @property
    def has_sections(self) -> bool:
        """Whether the table has a line for the series."""
        return len(self.record.steps) > 1 and any(name for name, _ in self.sections)

    def facts(self) -> Iterator[tuple[str, str]]:
        record, head = self.record, self.record.head
        kernel = f"Linux {head.kernel}" if head.kernel else ""
        version = f" ({head.version})" if head.version else ""
        yield "Base", f"{record.base} · {kernel}{version}" if kernel else record.base
        ran = dict.fromkeys(f"{cell.lane} on {_guest(cell)}" for cell in record.cells if cell.guest)
        if ran:
            yield "Ran", ", ".join(ran)
        patches = [step for step in record.steps if step.subject]
        if len(record.steps) > 1:
            span = f", {patches[0].label} to {patches[-1].label}" if patches else ""
            yield "Patches", f"{len(patches)}{span}"
        elif record.steps:
            step = record.steps[0]
            yield "At", f"{step.label} {step.subject}".strip()
        yield "Begun", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(record.started))
        if record.seconds is not None:
            reused = sum(cell.reused for cell in record.cells)
            note = f" ({reused} of {len(record.cells)} from the store)" if reused else ""
            yield "Took", duration(record.seconds) + note
        versions = dict(head.versions)
        words = [versions[name] for name in ("gcc", "ld", "qemu") if name in versions]
        if words:
            yield "Tools", ", ".join(words)
        yield "Run", record.id + (f" · iommuq {head.tool}" if head.tool else "")

    def failures(self) -> dict[str, Any]:
        found = list(self.view.failures())
        # Failures come before errors.
        found.sort(key=lambda one: one[2].status is Status.ERROR)
        return {
            "shown": [self._failure(*one) for one in found[:_NAMED]],
            "more": max(0, len(found) - _NAMED),
            "unbuilt": [cell for cell in self.record.cells if cell.failure],
            "findings": self._other_findings(found),
        }

    def _failure(self, cell: CellRecord, test: Test, judged: Judged) -> dict[str, Any]:
        name = self.record.name(cell, test)
        lines = [line for line in test.message.splitlines() if line.strip()]
        steps = [step.label for step in self.record.steps]
        return {
            "name": name,
            "step": cell.step,
            "note": judged.note,
            "lines": [visible(line) for line in lines[:4]],
            "more": max(0, len(lines) - 4),
            "error": judged.status is Status.ERROR,
            "row": self._row_numbers[name],
            "column": steps.index(cell.step),
        }

    @cached_property
    def _row_numbers(self) -> dict[str, int]:
        return {row.name: number for number, row in enumerate(self.view.matrix.rows)}

    def _other_findings(self, found: Sequence[tuple[CellRecord, Test, Judged]]) -> list[str]:
        """Return the findings that name no failing test."""
        names = {self.record.name(cell, test) for cell, test, _ in found}
        return [
            line
            for line in (*self.record.head.findings, *self.record.head.errors)
            if not any(name in line for name in names) and "does not build" not in line
        ]

    def groups(self) -> list[dict[str, Any]]:
        """Return the rows of the table at first, by suite."""
        single = len(self.record.steps) == 1
        budget = _ROWS
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(row.suite, []).append(row)
        found = []
        for suite, rows in groups.items():
            told = [row for row in rows if not row.steady][:budget]
            # A short list of passing tests is shown.
            if single and len(self.rows) <= _ROWS // 3 and self.record.lanes != ("firmware",):
                told = rows
            budget -= len(told)
            found.append(
                {
                    "suite": suite,
                    "rows": told,
                    "hidden": len(rows) - len(told),
                    "steady": all(row.steady for row in rows if row not in told),
                    "first": rows[0].number,
                    "size": len(rows),
                }
            )
        return found

    def message(self, row: Row) -> str:
        """Return the message beside a test in the table of a single step."""
        found = self._first(row)
        if found is None:
            return ""
        cell, test = found
        note = self.view.judged(cell, test).note
        lines = [line for line in test.message.splitlines() if line.strip()]
        return visible(note or (lines[0] if lines else test.answer))

    def seconds(self, row: Row) -> float:
        """Return the duration of a test of a single step, in seconds."""
        found = self._first(row)
        return 0.0 if found is None else found[1].duration

    def _first(self, row: Row) -> tuple[CellRecord, Test] | None:
        name = self.view.matrix.rows[row.number].name
        return self.cells.get((self.record.steps[0].label, name))

    def splats(self) -> list[tuple[CellRecord, Splat]]:
        found = [(cell, splat) for cell in self.record.cells for splat in cell.splats]
        found.sort(key=lambda one: one[1].expected)
        return found[:_SPLATS]

    def _logs(self) -> list[Excerpt]:
        """Return excerpts of the logs; if there are too many, those of failures."""
        tests: dict[str, list[tuple[bool, str]]] = {}
        for _, test in self.record.tests():
            if test.log:
                bad = test.verdict not in (Verdict.OK, Verdict.SKIPPED)
                tests.setdefault(test.log, []).append((not bad, test.name))
        found: dict[str, Excerpt] = {}
        left = _LOGS
        for path in sorted(tests, key=lambda path: min(tests[path])[0]):
            if left <= 0:
                found[path] = Excerpt(path, missing="left out: the page would be too large")
                continue
            names = [name for _, name in sorted(tests[path], key=lambda one: one[0])]
            found[path] = excerpts.read(path, names, self.below)
            left -= excerpts.total([found[path]])
        return [found[path] for path in tests]

    def _data(self, logs: Sequence[Excerpt]) -> dict[str, Any]:
        """Return the data for the page's script."""
        numbers = {log.path: number for number, log in enumerate(logs)}
        steps = [step.label for step in self.record.steps]
        detail: dict[str, dict[str, Any]] = {}
        defaults: dict[tuple[str, str], int] = {}
        for row in self.rows:
            name = self.view.matrix.rows[row.number].name
            for column, step in enumerate(steps):
                found = self.cells.get((step, name))
                if found is None:
                    continue
                cell, test = found
                log = numbers.get(test.log, -1)
                usual = defaults.setdefault((step, cell.lane), log)
                more = self._detail(cell, test, logs[log].where if log >= 0 else {})
                if log != usual:
                    more["g"] = log
                if more:
                    detail[f"{row.number},{column}"] = more
        lanes, base = list(self.record.lanes), self.record.base
        return {
            "steps": [{"label": s.label, "subject": s.subject} for s in self.record.steps],
            "lanes": lanes,
            "suites": [row.suite for row in self.rows],
            "tests": [row.test for row in self.rows],
            "looks": ["".join(row.looks[c].code for row in self.rows) for c in range(len(steps))],
            "legend": {look.code: [look.sign, look.word] for look in Look},
            "logs": [[defaults.get((step, lane), -1) for lane in lanes] for step in steps],
            "where": [self._where(step) for step in steps],
            "detail": detail,
            # The commands that run a test again, by lane; the script completes them.
            "rerun": {
                "kunit": f"iommuq kunit {base} '{{test}}' --at {{step}}",
                "selftest": f"iommuq selftest {base} {{suite}} --at {{step}}",
                "kunit-tree": f"iommuq kunit {base} --tree --at {{step}}",
                "firmware": f"iommuq {self.record.command} --again",
                "vfio": f"iommuq selftest {base} --suite vfio --at {{step}}",
                "foreign": f"iommuq selftest {base} --suite foreign --at {{step}}",
            },
        }

    def _where(self, step: str) -> list[str]:
        found: dict[str, str] = {}
        for cell in self.record.cells:
            if cell.step == step and cell.guest:
                where = f"{cell.lane} on {_guest(cell)}, Linux {cell.kernel}"
                found.setdefault(cell.lane, where)
        return [found.get(lane, lane) for lane in self.record.lanes]

    def _detail(
        self, cell: CellRecord, test: Test, where: dict[str, tuple[int, int]]
    ) -> dict[str, Any]:
        more: dict[str, Any] = {}
        judged = self.view.judged(cell, test)
        if judged.note:
            more["n"] = judged.note
        if test.message:
            text = middle(test.message, _MESSAGE)
            more["m"] = "\n".join(visible(line) for line in text.split("\n"))
        if test.answer:
            more["a"] = visible(test.answer)
        if test.duration >= 0.01:
            more["d"] = round(test.duration, 3)
        if test.known is not None:
            more["k"] = [test.known.reason, test.known.link, test.known.expires]
        if test.name in where and (len(self.rows) < 5000 or test.verdict is not Verdict.OK):
            more["w"] = where[test.name]
        return more


def _guest(cell: CellRecord) -> str:
    guest = {"um": "User-mode Linux", "qemu": "QEMU"}.get(cell.guest, cell.guest)
    return guest if cell.accelerator in ("native", "") else f"{guest} ({cell.accelerator.upper()})"


def soft(text: str) -> Markup:
    """Return a name with possible line breaks after underscores and dots."""
    return Markup(re.sub(r"([_.]+)(?=\w)", r"\1<wbr>", str(escape(visible(text)))))


def embed(data: Any) -> str:
    """Return data as JSON for a ``script`` element, without ``<``, ``>`` and ``&``."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def policy(style: str, script: str) -> str:
    """Return a content security policy that allows only this style and script."""
    return (
        "default-src 'none'; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
