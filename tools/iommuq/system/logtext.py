# SPDX-License-Identifier: GPL-2.0-only
"""Read console logs as text, invalid bytes included."""

from __future__ import annotations

import re

# Colours, cursor movements and titles, as firmware and kselftest print them.
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")

#: Prefix of printk: "[    1.234567] "; with CONFIG_PRINTK_CALLER "[    1.234567][    T1] ".
STAMP = r"\[ *(\d+\.\d{6})\](?:\[ *[TC]\d+\])*"
_STAMPED = re.compile(rf"(?:<\d+>)?{STAMP} ?")


#: Characters of a line, lines of a log: the rest is dropped.
LINE, LINES = 8 << 10, 200_000


class _Escapes(dict[int, str]):
    """Each character that is no tab and not printable, with its escape sequence."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        shown = char == "\t" or char.isprintable()
        self[code] = char if shown else char.encode("unicode_escape").decode()
        return self[code]


_escapes = _Escapes()


def escape(text: str) -> str:
    """Return text with its control and direction characters, line ends and surrogates escaped.

    For all that is not of the project: no terminal, page or mail acts on what is left.
    """
    return text if text.isprintable() else text.translate(_escapes)


def cut(line: str) -> str:
    """Return a line without what exceeds `LINE`, marked."""
    return line if len(line) <= LINE else f"{line[:LINE]}… {len(line) - LINE} characters left out"


def lines_of(text: str) -> list[str]:
    """Return the lines of a log, `LINES` at most, each cut."""
    return [cut(line) for line in text.removesuffix("\n").split("\n", LINES)[:LINES]]


def clean_line(line: str) -> str:
    """Return a console line without terminal sequences and its end; escape control bytes."""
    return escape(_ANSI.sub("", line.rstrip("\r\n")))


def split_stamp(line: str) -> tuple[float | None, str]:
    """Split the prefix of printk from a clean line.

    :return: the time in seconds or None, and the text.
    """
    match = _STAMPED.match(line)
    if match is None:
        return None, line
    return float(match[1]), line[match.end() :]
