# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq report``."""

from __future__ import annotations

import click

_FORMS = ("html", "junit", "ktap", "json", "kcidb")


@click.command()
@click.argument("run", default="last")
@click.option("--html", metavar="FILE", help="A page that needs nothing else, logs included.")
@click.option("--junit", metavar="FILE", help="JUnit XML, as Jenkins reads it.")
@click.option("--ktap", metavar="FILE", help="KTAP, as the kernel's kunit.py parse reads it.")
@click.option("--json", metavar="FILE", help="All of it, by docs/generated/results.schema.json.")
@click.option("--kcidb", metavar="FILE", help="What can be submitted to KernelCI.")
def report(run: str, **files: str | None) -> int:
    """Write what a run found into files, '-' being standard output.

    RUN is as `iommuq runs list` shows it, or the begin of that; last and last~1 are the
    newest one and the one before; and a FILE.json is what --json wrote.
    """
    wanted = {form: file for form in _FORMS if (file := files[form]) is not None}
    if not wanted:
        raise click.UsageError(f"say what to write: {', '.join('--' + form for form in _FORMS)}")
    if sum(file == "-" for file in wanted.values()) > 1:
        raise click.UsageError("only one of them can go to standard output")
    # Here and not above: --help and a bad argument need none of it.
    from iommuq.report.write import write_reports

    return write_reports(run, wanted)
