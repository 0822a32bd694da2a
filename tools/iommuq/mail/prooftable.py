# SPDX-License-Identifier: GPL-2.0-only
"""The proof of a series as a table for its cover letter: 75 columns, whatever is in it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from iommuq.proof.matrix import Row
from iommuq.proof.records import Record
from iommuq.results.known import Verdict
from iommuq.system.progress import one_line

#: Columns of a mail.
WIDTH = 75
#: Columns for the names of tests, before the first mark.
NAMES = 44
_INDENT = "  "
_MARKS: Mapping[Verdict | None, str] = {
    Verdict.OK: "p",
    Verdict.FAILED: "F",
    Verdict.KNOWN: "f",
    Verdict.SKIPPED: "s",
    None: ".",
}
_LEGEND = {"p": "passes", "F": "fails", "f": "fails, as is known", "s": "skipped", ".": "not run"}


def table(record: Record, labels: Sequence[str]) -> str:
    """Make the table of a series.

    :param record: the proof of the whole queue.
    :param labels: of the patches of the series, in order.
    :return: text, no line of which is longer than `WIDTH`.
    """
    matrix = record.matrix
    names = [column.label for column in matrix.columns]
    shown = [names.index(label) for label in labels if label in names]
    if not shown:
        return ""
    # The state before the first patch is what it is compared with.
    at = [max(0, shown[0] - 1), *shown]
    changed = [row for row in matrix.rows if len({_mark(row, each) for each in at}) > 1]
    quiet = [row for row in matrix.rows if row not in changed]
    passing = sum(_mark(row, at[-1]) == "p" for row in quiet)
    lines = [f"Proof: Linux {record.kernel} ({record.version})"]
    for each in record.ran:
        lines.append(f"  {each.lane}: {each.title}; guest {each.guest}, {each.accelerator}")
    lines.append("")
    heads = ["-", *(str(number) for number in range(1, len(shown) + 1))]
    for part in _parts(len(at)):
        lines += _block(changed, at[part], heads[part])
        lines.append("")
    marks = {_mark(row, each) for row in changed for each in at}
    said = [f"{mark} {text}" for mark, text in _LEGEND.items() if mark in marks]
    lines.append("; ".join(["- is the tree before the first patch", *said]) + ".")
    lines.append(f"{passing} more tests pass at each of these steps.")
    return "\n".join(wrapped for line in lines for wrapped in _fold(line)) + "\n"


def _parts(columns: int) -> list[slice]:
    """Return which columns stand in a table together."""
    width = (WIDTH - NAMES) // 3
    return [slice(begin, begin + width) for begin in range(0, columns, width)]


def _mark(row: Row, at: int) -> str:
    return _MARKS.get(row.cells[at], "?")


def _block(rows: Sequence[Row], at: Sequence[int], heads: Sequence[str]) -> list[str]:
    lines = []
    group = None
    for row in rows:
        above, _, name = one_line(row.name).rpartition(".")
        if above != group:
            group = above
            marks = "".join(f"{head:>3}" for head in heads)
            lines += _beside(above, marks)
        marks = "".join(f"{_mark(row, each):>3}" for each in at)
        lines += _beside(f"{_INDENT}{name}", marks)
    return lines


def _beside(name: str, marks: str) -> list[str]:
    """Put marks beside a name, or below one that is too long."""
    if len(name) <= NAMES:
        return [f"{name:<{NAMES}}{marks}"]
    return [name[:WIDTH], f"{'':<{NAMES}}{marks}"]


def _fold(line: str) -> list[str]:
    if len(line) <= WIDTH:
        return [line]
    return textwrap.wrap(line, WIDTH, subsequent_indent="    ", break_on_hyphens=False)
