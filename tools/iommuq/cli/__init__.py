# SPDX-License-Identifier: GPL-2.0-only
"""The command line: parse arguments, call one function, print.  No logic."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from iommuq import __version__, progress
from iommuq.cli.base import base
from iommuq.cli.bench import bench
from iommuq.cli.clean import clean
from iommuq.cli.completion import PROGRAM, VARIABLE, completion
from iommuq.cli.doctor import doctor
from iommuq.cli.drivers import drivers
from iommuq.cli.firmware import firmware
from iommuq.cli.help import help_
from iommuq.cli.mail import mail
from iommuq.cli.mutate import mutate
from iommuq.cli.prove import prove
from iommuq.cli.queue import queue
from iommuq.cli.report import report
from iommuq.cli.runs import runs
from iommuq.cli.suites import kunit, run, selftest
from iommuq.errors import EXIT_INFRA, EXIT_INTERRUPTED, EXIT_USER, IommuqError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="iommuq")
@click.option("--debug", is_flag=True, help="Log every command, and show tracebacks.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on standard error.")
def cli(debug: bool, quiet: bool) -> None:
    """Apply, build, test and prove a Linux IOMMU patch queue, patch by patch."""
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING, format="%(message)s", stream=sys.stderr
    )
    progress.configure(quiet=quiet)


for _command in (
    *(run, prove, mutate, kunit, selftest, firmware, queue, mail, base, drivers),
    *(report, runs, doctor, bench, clean),
):
    cli.add_command(_command)
for _command in (help_, completion):
    cli.add_command(_command)


def _terminated(_signum: int, _frame: FrameType | None) -> NoReturn:
    # The same way out as Ctrl-C: every process that was started is ended.
    raise KeyboardInterrupt


def main() -> NoReturn:
    """Run the command line and exit with the code that its outcome stands for."""
    debug = "--debug" in sys.argv
    signal.signal(signal.SIGTERM, _terminated)
    # What kernels print, and what people are called, must not depend on the locale.
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = cli.main(prog_name=PROGRAM, complete_var=VARIABLE, standalone_mode=False)
        _flush()
        sys.exit(code if isinstance(code, int) else 0)
    except IommuqError as error:
        if debug:
            raise
        _say(f"iommuq: {error.what}", error.hint)
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(EXIT_USER)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "iommuq"
        _say(f"iommuq: {error.format_message()}", f"{command} --help")
        sys.exit(EXIT_USER)
    except click.ClickException as error:
        _say(f"iommuq: {error.format_message()}", "")
        sys.exit(EXIT_USER)
    except (KeyboardInterrupt, click.Abort):
        if debug:
            raise
        _say("iommuq: interrupted", "")
        sys.exit(EXIT_INTERRUPTED)
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _say(f"iommuq: {where}{error.strerror or error}", "`iommuq doctor` shows room and rights")
        with contextlib.suppress(OSError):
            _flush()
        sys.exit(EXIT_INFRA)


def _flush() -> None:
    """Write out what was printed while errors are still told; at exit they are not."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # What could not be written would be tried once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # Somebody who reads one line and leaves is no error.
        if not isinstance(error, BrokenPipeError):
            raise


def _say(what: str, hint: str) -> None:
    print(what, file=sys.stderr)
    if hint:
        print(f"  ({hint})", file=sys.stderr)
