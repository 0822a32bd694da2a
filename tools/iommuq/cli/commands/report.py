# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq report``."""

from __future__ import annotations

import click

_FORMS = ("html", "junit", "ktap", "json", "kcidb")


@click.command()
@click.argument("run", default="last")
@click.option("--html", metavar="FILE", help="A self-contained page with the logs.")
@click.option("--junit", metavar="FILE", help="JUnit XML, for Jenkins.")
@click.option("--ktap", metavar="FILE", help="KTAP, for kunit.py parse.")
@click.option("--json", metavar="FILE", help="All data; see docs/generated/results.schema.json.")
@click.option("--kcidb", metavar="FILE", help="The data for KernelCI.")
def report(run: str, **files: str | None) -> int:
    """Write the results of a run into files; '-' is standard output.

    RUN is an id from `iommuq runs list` or its beginning; last and last~1 are the
    newest one and the one before; or a FILE.json that --json wrote.
    """
    wanted = {form: file for form in _FORMS if (file := files[form]) is not None}
    if not wanted:
        raise click.UsageError(f"no format given: {', '.join('--' + form for form in _FORMS)}")
    if sum(file == "-" for file in wanted.values()) > 1:
        raise click.UsageError("only one format can go to standard output")
    # Not at the top: slow to import.
    from iommuq.report.write import write_reports

    return write_reports(run, wanted)
