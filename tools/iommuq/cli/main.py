# SPDX-License-Identifier: GPL-2.0-only
"""The command line: run a command, and map its errors to exit codes."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from iommuq import __version__
from iommuq.cli.commands import COMMANDS
from iommuq.cli.lazy import LazyGroup
from iommuq.system import progress
from iommuq.system.errors import EXIT_INFRA, EXIT_INTERRUPTED, EXIT_USER, IommuqError
from iommuq.system.git.command import leave_hook
from iommuq.system.logtext import escape


@click.group(
    cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="iommuq")
@click.option("--debug", is_flag=True, help="Log every command, and show tracebacks.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on standard error.")
def cli(debug: bool, quiet: bool) -> None:
    """Apply, build, test and prove a Linux IOMMU patch queue, patch by patch."""
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING, format="%(message)s", stream=sys.stderr
    )
    progress.configure(quiet=quiet)


def _terminated(_signum: int, _frame: FrameType | None) -> NoReturn:
    # Like Ctrl-C: all started processes are ended.
    raise KeyboardInterrupt


def run(command: click.Command, program: str, variable: str) -> NoReturn:
    """Run a command line, and exit with its exit code.

    :param program: name of the program.
    :param variable: environment variable by which shells request completions.
    """
    debug = "--debug" in sys.argv
    leave_hook()
    signal.signal(signal.SIGTERM, _terminated)
    # Output of kernels and names of people may not be printable in the locale.
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = command.main(prog_name=program, complete_var=variable, standalone_mode=False)
        _flush()
        sys.exit(code if isinstance(code, int) else 0)
    except IommuqError as error:
        if debug:
            raise
        _say(f"{program}: {error.what}", error.hint)
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(EXIT_USER)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else program
        _say(f"{program}: {error.format_message()}", f"{path} --help")
        sys.exit(EXIT_USER)
    except click.ClickException as error:
        _say(f"{program}: {error.format_message()}", "")
        sys.exit(EXIT_USER)
    except (KeyboardInterrupt, click.Abort):
        if debug:
            raise
        _say(f"{program}: interrupted", "")
        sys.exit(EXIT_INTERRUPTED)
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        what = f"{program}: {where}{error.strerror or error}"
        _say(what, "`iommuq doctor` shows room and rights")
        with contextlib.suppress(OSError):
            _flush()
        sys.exit(EXIT_INFRA)


def _flush() -> None:
    """Flush standard output while errors can still be reported."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python tries again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # A closed pipe is no error, as with `| head`.
        if not isinstance(error, BrokenPipeError):
            raise


def _say(what: str, hint: str) -> None:
    print(*map(escape, what.split("\n")), sep="\n", file=sys.stderr)
    if hint:
        print(*map(escape, f"  ({hint})".split("\n")), sep="\n", file=sys.stderr)
