# SPDX-License-Identifier: GPL-2.0-only
"""Write the reports of a run into files."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from iommuq.results.runs.document import is_file, pick, to_json
from iommuq.results.runs.model import CommandRun
from iommuq.system.errors import EXIT_OK, UserError
from iommuq.system.files import log_dir

STDOUT = "-"


def write_reports(word: str, files: Mapping[str, str]) -> int:
    """Write reports of a run.

    :param word: the run, as for `pick`.
    :param files: path by form: ``html``, ``junit``, ``ktap``, ``json``, ``kcidb``.
    :return: the exit code 0, whatever the verdict on the run.
    :raises UserError: there is no such run, or a file cannot be written.
    """
    record = pick(word)
    # A run from a file is not trusted: it must not read arbitrary files.
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


def _text(form: str, record: CommandRun, below: Path | None) -> str:
    # Imported here: each form needs other libraries.
    match form:
        case "html":
            from iommuq.report.html import to_html

            return to_html(record, below=below)
        case "junit":
            from iommuq.report.junit import to_junit

            return to_junit(record)
        case "ktap":
            from iommuq.report.ktapout import to_ktap

            return to_ktap(record)
        case "json":
            return to_json(record)
        case "kcidb":
            from iommuq.report.kcidb import to_kcidb

            return json.dumps(to_kcidb(record), indent=1) + "\n"
    raise ValueError(form)
