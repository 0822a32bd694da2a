# SPDX-License-Identifier: GPL-2.0-only
"""Write the reports of a run into files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from iommuq.results.runs.archive import is_file, pick, to_json
from iommuq.results.runs.model import CommandRun
from iommuq.system.errors import EXIT_OK, UserError, os_errors_as
from iommuq.system.files import log_dir

STDOUT = "-"


def _html(run: CommandRun, below: Path | None) -> str:
    from iommuq.report.html import to_html

    return to_html(run, below=below)


def _junit(run: CommandRun, _: Path | None) -> str:
    from iommuq.report.junit import to_junit

    return to_junit(run)


def _ktap(run: CommandRun, _: Path | None) -> str:
    from iommuq.report.ktapout import to_ktap

    return to_ktap(run)


def _kcidb(run: CommandRun, _: Path | None) -> str:
    from iommuq.report.kcidb import to_kcidb

    return json.dumps(to_kcidb(run), indent=1) + "\n"


@dataclass(frozen=True)
class Form:
    """A form of a report; *render* makes it of a run, and imports what it needs."""

    summary: str
    render: Callable[[CommandRun, Path | None], str]


#: The forms of `iommuq report`.  A new one needs a file in this room and a line here.
FORMS: Mapping[str, Form] = {
    "html": Form("A self-contained page with the logs.", _html),
    "junit": Form("JUnit XML, for Jenkins.", _junit),
    "ktap": Form("KTAP, for kunit.py parse.", _ktap),
    "json": Form("All data; see docs/generated/results.schema.json.", lambda run, _: to_json(run)),
    "kcidb": Form("The data for KernelCI.", _kcidb),
}


def write_reports(word: str, files: Mapping[str, str]) -> int:
    """Write reports of a run.

    :param word: the run, as for `pick`.
    :param files: path by form, a key of `FORMS`.
    :return: the exit code 0, whatever the verdict on the run.
    :raises UserError: there is no such run, or a file cannot be written.
    """
    record = pick(word)
    # A run from a file is not trusted: it must not read arbitrary files.
    below = log_dir() if is_file(word) else None
    for form, file in files.items():
        text = FORMS[form].render(record, below)
        if file == STDOUT:
            sys.stdout.write(text)
            continue
        with os_errors_as(UserError, file):
            Path(file).write_text(text, encoding="utf-8")
    return EXIT_OK
