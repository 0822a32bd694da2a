# SPDX-License-Identifier: GPL-2.0-only
"""The versions of compiler and linker, which are part of the key of an image."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

from iommuq.system.run import run


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
    return hashlib.sha256("\n".join(text for _, text in versions()).encode()).hexdigest()


# Headers that no kernel tree has: their package is not installed.
_NO_HEADER = re.compile(
    r"fatal error: ((?:gelf|libelf|sys/capability|openssl/\S+)\.h): No such file"
)


def missing_header(said: str) -> str | None:
    """Return the header of a package that a compiler did not find; None if there is none."""
    match = _NO_HEADER.search(said)
    return None if match is None else match[1]
