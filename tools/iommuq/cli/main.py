# SPDX-License-Identifier: GPL-2.0-only
"""The command line: run a command, and map its errors to exit codes."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click
from click.shell_completion import shell_complete

from iommuq import __version__
from iommuq.cli.commands import COMMANDS
from iommuq.cli.lazy import LazyGroup
from iommuq.system import progress
from iommuq.system.errors import (
    EXIT_INFRA,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_UNREAD,
    EXIT_USER,
    EXIT_VERDICT,
    IommuqError,
)
from iommuq.system.git.command import leave_hook


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


# What else than OSError and MemoryError is for want of memory or processes.
_SHORT = ("can't start new thread", "failed to map segment", "Too many open files")
# Characters of a line of an error: a path may have 4096, a name in a file any number.
_LONGEST = 5000


def _terminated(_signum: int, _frame: FrameType | None) -> NoReturn:
    # Like Ctrl-C: all started processes are ended.
    raise KeyboardInterrupt


def run(command: click.Command, program: str, variable: str) -> NoReturn:
    """Run a command line, and exit with its exit code.

    :param program: name of the program.
    :param variable: environment variable by which shells request completions.
    """
    # What is opened next must not get the number of a closed standard stream.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115
    # Without the user's own rights a new directory cannot be used.
    os.umask(os.umask(0) & 0o077)
    leave_hook()
    signal.signal(signal.SIGTERM, _terminated)
    # Output of kernels and names of people may not be printable in the locale.
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    code = 0
    try:
        request = os.environ.get(variable)
        if request:
            code = shell_complete(command, {}, program, variable, request)
        else:
            # Not command.main(), which makes exit code 1 of a closed pipe.
            with command.make_context(program, sys.argv[1:]) as context:
                found = command.invoke(context)
                code = found if isinstance(found, int) else 0
    except BaseException as error:
        code = _report(error, program)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            if code in (EXIT_OK, EXIT_VERDICT):
                code = _report(error, program)
            # Python tries again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _report(error: BaseException, program: str) -> int:
    """Say what is wrong, and return the exit code."""
    code, what, hint = _explain(error)
    with contextlib.suppress(OSError):
        if "--debug" in sys.argv:
            traceback.print_exception(error)
        elif code == EXIT_INTERRUPTED and sys.stderr.isatty():
            print(file=sys.stderr)  # after the terminal's ^C
        if what:
            print(f"{program}: {_short(what)}", file=sys.stderr)
        if hint:
            print(f"  ({_short(hint)})", file=sys.stderr)
    return code


def _short(text: str) -> str:
    line = progress.one_line(text)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"


def _explain(error: BaseException) -> tuple[int, str, str]:
    """Return the exit code of an error, what it is, and what to do."""
    if isinstance(error, IommuqError):
        return error.exit_code, error.what, error.hint
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code, "", ""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return EXIT_USER, "", ""
    if isinstance(error, click.ClickException):
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else ""
        return EXIT_USER, error.format_message(), f"{path} --help" if path else ""
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return EXIT_INTERRUPTED, "interrupted", ""
    # rich makes exit(1) of it.
    piped = isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError)
    if piped or (isinstance(error, BrokenPipeError) and _unread()):
        return EXIT_UNREAD, "", ""
    log = _keep(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        what = f"{where}{error.strerror or error}"
    else:
        what = f"{type(error).__name__}: {error}"
    if isinstance(error, (OSError, MemoryError)) or any(words in what for words in _SHORT):
        return EXIT_INFRA, what, f"`iommuq doctor` shows room and rights{log and f'; {log}'}"
    return EXIT_INFRA, f"internal error: {what}", f"send {log} to the list in MAINTAINERS"


def _unread() -> bool:
    """Tell whether the reader of standard output or standard error has ended."""
    poll = select.poll()
    for number in (1, 2):
        poll.register(number, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _keep(error: BaseException) -> str:
    """Write a traceback into a log, and return its path; empty if that fails."""
    with contextlib.suppress(Exception):
        from iommuq.system.files import new_log

        log = new_log("traceback")
        log.write_text("".join(traceback.format_exception(error)), errors="backslashreplace")
        return str(log)
    return ""
