# SPDX-License-Identifier: GPL-2.0-only
"""Console logs that are kept for tests."""

from __future__ import annotations

from pathlib import Path


def read_lines(path: Path) -> list[str]:
    """Return the lines of a console log; invalid UTF-8 becomes backslash escapes.

    :raises OSError: it cannot be read.
    """
    text = path.read_bytes().decode("utf-8", "backslashreplace")
    # Not splitlines(), which also splits at form feeds and the like.
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return lines
