# SPDX-License-Identifier: GPL-2.0-only
"""Format the reports of checks: as text, a table, JSON, and for b4."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from iommuq.checks.model import Finding, Report, Status
from iommuq.system.progress import one_line


def as_lines(report: Report) -> list[str]:
    """Return a report as text: its line, then the lines of each finding."""
    lines = [f"{report.status.value:<5} {one_line(report.subject):<16} {report.check}"]
    for finding in report.findings:
        lines.append(f"      {finding.status.value}: {_text(finding)}")
        if finding.answer:
            lines.append(f"            answered: {one_line(finding.answer)}")
    return lines


def as_table(reports: Sequence[Report]) -> str:
    """Return a table: a row for each check, a column for each patch and each series."""
    subjects = list(dict.fromkeys(report.subject for report in reports))
    checks = list(dict.fromkeys(report.check for report in reports))
    cells = {(report.check, report.subject): report.status.value for report in reports}
    first = max((len(check) for check in checks), default=0)
    heads = [one_line(subject).rpartition("/")[::2] for subject in subjects]
    width = 2 + max([4, *(len(part) for head in heads for part in head)])
    rows = []
    for parts in zip(*heads, strict=True):
        if any(parts):
            rows.append((" " * first + "".join(f"{part:>{width}}" for part in parts)).rstrip())
    for check in checks:
        row = "".join(f"{cells.get((check, subject), '-'):>{width}}" for subject in subjects)
        rows.append(f"{check:<{first}}{row}")
    return "\n".join(rows)


def as_json(reports: Iterable[Report]) -> str:
    """Return reports as JSON."""
    data = [
        {
            "check": report.check,
            "subject": report.subject,
            "status": report.status.value,
            "findings": [asdict(finding) for finding in report.findings],
        }
        for report in reports
    ]
    return json.dumps(data, indent=2)


def as_b4(reports: Iterable[Report]) -> str:
    """Return reports in the form of b4's review-*-check-cmd: a JSON array.

    b4 has no status for skipped checks, so they become warnings.
    """
    data = []
    for report in reports:
        status = "warn" if report.status is Status.SKIP else report.status.value
        texts = [f"{each.status.value}: {_text(each)}" for each in report.findings]
        summary = texts[0] if texts else "passed"
        if len(texts) > 1:
            summary += f" (and {len(texts) - 1} more)"
        data.append(
            {
                "tool": f"iommuq {report.check}",
                "status": status,
                "summary": summary,
                "url": "",
                "details": "\n".join(texts),
            }
        )
    return json.dumps(data)


def as_b4_lines(reports: Iterable[Report]) -> str:
    """Return reports in the form of b4's prep-perpatch-check-cmd: a line for each finding.

    A line is a warning, a line with ``ERROR:`` a failure, no line a pass.
    """
    lines = []
    for report in reports:
        for finding in report.findings:
            kind = {"fail": "ERROR", "warn": "WARNING", "skip": "SKIPPED"}[finding.status.value]
            lines.append(f"{report.check}: {kind}: {_text(finding)}\n")
    return "".join(lines)


def _text(finding: Finding) -> str:
    where = f" [{finding.where}]" if finding.where else ""
    return one_line(f"{finding.text}{where}")
