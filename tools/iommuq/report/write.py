# SPDX-License-Identifier: GPL-2.0-only
"""Write the reports of a run into files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from iommuq.results.runs.document import is_file, pick
from iommuq.results.runs.model import Record
from iommuq.system.errors import EXIT_OK, UserError
from iommuq.system.files import log_dir

STDOUT = "-"


def write_reports(word: str, files: Mapping[str, str]) -> int:
    """Write a run in some forms.

    :param word: the run, as `pick` takes it.
    :param files: path by form: ``html``, ``junit``, ``ktap``, ``json``, ``kcidb``.
    :return: the exit code, 0: what the run itself came to is in the reports.
    :raises UserError: there is no such run, or a file cannot be written.
    """
    record = pick(word)
    # A file may come from anybody: it must not name what we may read and they may not.
    below = log_dir() if is_file(word) else None
    for form, file in files.items():
        text = _text(form, record, below)
        if file == STDOUT:
            sys.stdout.write(text)
            continue
        try:
            Path(file).write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{file}: {error.strerror}") from error
    return EXIT_OK


def _text(form: str, record: Record, below: Path | None) -> str:
    # Each form has libraries of its own, and most are not needed.
    def html() -> str:
        from iommuq.report.html import to_html

        return to_html(record, below=below)

    def junit() -> str:
        from iommuq.report.junit import to_junit

        return to_junit(record)

    def ktap() -> str:
        from iommuq.report.ktapout import to_ktap

        return to_ktap(record)

    def as_json() -> str:
        from iommuq.results.runs.document import to_json

        return to_json(record)

    def kcidb() -> str:
        from iommuq.report.kcidb import to_kcidb

        return json.dumps(to_kcidb(record), indent=1) + "\n"

    forms: dict[str, Callable[[], str]] = {
        "html": html, "junit": junit, "ktap": ktap, "json": as_json, "kcidb": kcidb,
    }  # fmt: skip
    return forms[form]()
