# SPDX-License-Identifier: GPL-2.0-only
"""The errors of iommuq with their exit codes; only ``iommuq.cli`` exits."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

EXIT_OK = 0
EXIT_VERDICT = 1
EXIT_USER = 2
EXIT_INFRA = 3
EXIT_INTERRUPTED = 130
#: As a shell reports SIGPIPE: the reader of the output ended.
EXIT_UNREAD = 141


class IommuqError(Exception):
    """Base of all errors with an exit code.

    :param what: the error and its place, in one line.
    :param hint: what to do next, in one line; may be empty.
    """

    exit_code = EXIT_INFRA

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what} ({self.hint})" if self.hint else self.what


class UserError(IommuqError):
    """A bad argument or a malformed file of the user's."""

    exit_code = EXIT_USER


class VerdictError(IommuqError):
    """The code under test failed: it does not apply, build or pass."""

    exit_code = EXIT_VERDICT


class InfraError(IommuqError):
    """A tool is missing, a guest was lost, the disk is full, and the like."""


class ToolMissing(InfraError):
    """A required program is not installed."""


class DiskFull(InfraError):
    """No space is left on the device."""


class ObjectsLost(InfraError):
    """A repository lacks an object, or has a damaged one."""

    def __init__(self, git_dir: Path) -> None:
        super().__init__(f"{git_dir}: an object is missing or damaged", hint="fetch the base again")


class CommandFailed(InfraError):
    """A program ended with an unexpected exit status."""

    def __init__(self, what: str, *, hint: str = "", returncode: int = 1, output: str = "") -> None:
        super().__init__(what, hint=hint)
        self.returncode = returncode
        self.output = output


class CommandTimeout(InfraError):
    """A program exceeded its time limit and was killed."""


class TooMuchOutput(InfraError):
    """A program exceeded its output limit and was killed."""


@contextlib.contextmanager
def os_errors_as(
    kind: type[IommuqError], path: str | os.PathLike[str], *, hint: str = ""
) -> Iterator[None]:
    """Raise an `OSError` of the block as a *kind* that names *path*, or as `DiskFull`."""
    try:
        yield
    except OSError as error:
        what = f"{path}: {error.strerror or error}"
        if issubclass(kind, InfraError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(what, hint="`iommuq doctor` shows the room") from error
        raise kind(what, hint=hint) from error
