# SPDX-License-Identifier: GPL-2.0-only
"""The compiler and the linker: their versions, which are part of an image's key, and their use."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from iommuq.system.errors import InfraError, os_errors_as
from iommuq.system.files import hash_of
from iommuq.system.run import run

#: Seconds to compile a program of ours.
_LIMIT = 60.0


def versions() -> tuple[tuple[str, str], ...]:
    """Return (program, first line of its ``--version``) for compiler and linker.

    :raises ToolMissing: one of them is not installed.
    """
    return tuple(
        (tool, run((tool, "--version"), cwd=Path("/"), timeout=30).output.splitlines()[0])
        for tool in ("gcc", "ld")
    )


@cache
def identity() -> str:
    """Return a hash of the versions of compiler and linker.

    :raises ToolMissing: one of them is not installed.
    """
    return hash_of(*(text for _, text in versions()))


def compiled(
    path: Path, flags: Sequence[str], sources: Sequence[Path], *, log: Path | None = None
) -> Path:
    """Return a program or library in the cache; compile it unless it is there.

    :param path: its place, with a hash of flags and sources in the name.
    :raises ToolMissing: there is no compiler.
    :raises CommandFailed: it does not compile.
    :raises InfraError: the cache cannot be written.
    """
    if not path.exists():
        # Other threads may compile it at the same time.
        temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
        hint = "set IOMMUQ_CACHE_DIR to another directory"
        with os_errors_as(InfraError, path.parent, hint=hint):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                argv: list[str | Path] = ["gcc", *flags, "-o", temporary, *sources]
                run(argv, cwd=path.parent, timeout=_LIMIT, log_path=log)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
    return path


# Headers that no kernel tree has: their package is not installed.
_NO_HEADER = re.compile(
    r"fatal error: ((?:gelf|libelf|sys/capability|uuid/uuid|openssl/\S+)\.h): No such file"
)


def missing_header(said: str) -> str | None:
    """Return the header of a package that a compiler did not find; None if there is none."""
    match = _NO_HEADER.search(said)
    return None if match is None else match[1]
