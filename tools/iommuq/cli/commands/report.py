# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq report``."""

from __future__ import annotations

from collections.abc import Callable

import click

from iommuq.report.write import FORMS, write_reports


def _forms(command: Callable[..., int]) -> Callable[..., int]:
    """Add an option for each form."""
    for name, form in reversed(tuple(FORMS.items())):
        command = click.option(f"--{name}", metavar="FILE", help=form.summary)(command)
    return command


@click.command()
@click.argument("run", default="last")
@_forms
def report(run: str, **files: str | None) -> int:
    """Write the results of a run into files; '-' is standard output.

    RUN is an id from `iommuq runs list` or its beginning; last and last~1 are the
    newest one and the one before; or a FILE.json that --json wrote.
    """
    wanted = {form: file for form in FORMS if (file := files[form]) is not None}
    if not wanted:
        raise click.UsageError(f"no format given: {', '.join('--' + form for form in FORMS)}")
    if sum(file == "-" for file in wanted.values()) > 1:
        raise click.UsageError("only one format can go to standard output")
    return write_reports(run, wanted)
