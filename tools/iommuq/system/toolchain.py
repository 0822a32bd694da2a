# SPDX-License-Identifier: GPL-2.0-only
"""What identifies the compiler: a kernel built by another one is another kernel."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

from iommuq.system.run import run

#: The variables that change what the kernel's Makefiles call.
_COMPILER = ("gcc", "--version")
_LINKER = ("ld", "--version")


def versions() -> tuple[tuple[str, str], ...]:
    """Return what compiler and linker call themselves, by program.

    :raises ToolMissing: one of them is not installed.
    """
    return tuple(
        (argv[0], run(argv, cwd=Path("/"), timeout=30).output.splitlines()[0])
        for argv in (_COMPILER, _LINKER)
    )


@cache
def identity() -> str:
    """Return a hash of the versions of compiler and linker.

    :raises ToolMissing: one of them is not installed.
    """
    return hashlib.sha256("\n".join(text for _, text in versions()).encode()).hexdigest()


# Headers that no tree has: of those the package is missing, whatever is being built.
_NO_HEADER = re.compile(
    r"fatal error: ((?:gelf|libelf|sys/capability|openssl/\S+)\.h): No such file"
)


def missing_header(said: str) -> str | None:
    """Return the header that a compiler missed, if it belongs to a package of its own."""
    match = _NO_HEADER.search(said)
    return None if match is None else match[1]
