# SPDX-License-Identifier: GPL-2.0-only
"""Read console logs as text, invalid bytes included."""

from __future__ import annotations

import re

# Colours, cursor movements and titles, as firmware and kselftest print them.
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")

#: Prefix of printk: "[    1.234567] "; with CONFIG_PRINTK_CALLER "[    1.234567][    T1] ".
STAMP = r"\[ *(\d+\.\d{6})\](?:\[ *[TC]\d+\])*"
_STAMPED = re.compile(rf"(?:<\d+>)?{STAMP} ?")


def clean_line(line: str) -> str:
    """Return a console line without terminal sequences and its end; escape control bytes."""
    line = _ANSI.sub("", line.rstrip("\r\n"))
    if line.isprintable():
        return line
    return "".join(
        char if char == "\t" or char.isprintable() else char.encode("unicode_escape").decode()
        for char in line
    )


def split_stamp(line: str) -> tuple[float | None, str]:
    """Split the prefix of printk from a clean line.

    :return: the time in seconds or None, and the text.
    """
    match = _STAMPED.match(line)
    if match is None:
        return None, line
    return float(match[1]), line[match.end() :]
