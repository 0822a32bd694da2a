# SPDX-License-Identifier: GPL-2.0-only
"""Read console logs as text, with whatever bytes a dying kernel left in them."""

from __future__ import annotations

import re
from pathlib import Path

# Colours, cursor movements and titles: firmware and kselftest print some.
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")

#: What printk puts before a line: "[    1.234567] ", and with CONFIG_PRINTK_CALLER
#: "[    1.234567][    T1] ".
STAMP = r"\[ *(\d+\.\d{6})\](?:\[ *[TC]\d+\])*"
_STAMPED = re.compile(rf"(?:<\d+>)?{STAMP} ?")


def clean_line(line: str) -> str:
    """Return a console line without terminal sequences, its end, and raw control bytes.

    What cannot be shown, a NUL say, becomes a backslash escape.
    """
    line = _ANSI.sub("", line.rstrip("\r\n"))
    if line.isprintable():
        return line
    return "".join(
        char if char == "\t" or char.isprintable() else char.encode("unicode_escape").decode()
        for char in line
    )


def read_lines(path: Path) -> list[str]:
    """Read a console log; bytes that are no UTF-8 become backslash escapes.

    :return: its lines, numbered as in an editor.
    :raises OSError: it cannot be read.
    """
    text = path.read_bytes().decode("utf-8", "backslashreplace")
    # Not splitlines(): that ends lines at form feeds and the like, too.
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return lines


def split_stamp(line: str) -> tuple[float | None, str]:
    """Split what printk puts before a clean line from its text.

    :return: the time in seconds, or None without one, and the text.
    """
    match = _STAMPED.match(line)
    if match is None:
        return None, line
    return float(match[1]), line[match.end() :]
