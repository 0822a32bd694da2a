# SPDX-License-Identifier: GPL-2.0-only
"""The proof of a series as a table for its cover letter, at most 75 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from iommuq.proof.matrix import Row
from iommuq.proof.records import ProofRecord
from iommuq.results.known import Verdict
from iommuq.system.progress import one_line

#: Columns of a mail.
WIDTH = 75
#: Columns for the names of tests, before the first mark.
NAMES = 44
_MARKS: Mapping[Verdict | None, str] = {
    Verdict.OK: "p",
    Verdict.FAILED: "F",
    Verdict.KNOWN: "f",
    Verdict.SKIPPED: "s",
    None: ".",
}
_LEGEND = {"p": "passes", "F": "fails", "f": "known failure", "s": "skipped", ".": "not run"}


def table(record: ProofRecord, labels: Sequence[str]) -> str:
    """Return the table of a series, in lines of at most `WIDTH` columns.

    :param record: the proof of the whole queue.
    :param labels: of the patches of the series, in order.
    """
    matrix = record.matrix
    names = [column.label for column in matrix.columns]
    shown = [names.index(label) for label in labels if label in names]
    if not shown:
        return ""
    # The first column is the tree before the first patch.
    at = [max(0, shown[0] - 1), *shown]
    changed = [row for row in matrix.rows if len({_mark(row, each) for each in at}) > 1]
    quiet = [row for row in matrix.rows if row not in changed]
    passing = sum(_mark(row, at[-1]) == "p" for row in quiet)
    lines = [f"Proof: Linux {record.kernel} ({record.version})"]
    for each in record.ran:
        lines.append(f"  {each.lane}: {each.title}; guest {each.guest}, {each.accelerator}")
    lines.append("")
    heads = ["-", *(str(number) for number in range(1, len(shown) + 1))]
    width = (WIDTH - NAMES) // 3
    for begin in range(0, len(at), width):
        part = slice(begin, begin + width)
        lines += [*_block(changed, at[part], heads[part]), ""]
    marks = {_mark(row, each) for row in changed for each in at}
    said = [f"{mark} {text}" for mark, text in _LEGEND.items() if mark in marks]
    lines.append("; ".join(["- is the tree before the first patch", *said]) + ".")
    lines.append(f"{passing} more tests pass at each of these steps.")
    return "\n".join(wrapped for line in lines for wrapped in _fold(line)) + "\n"


def _mark(row: Row, at: int) -> str:
    return _MARKS.get(row.cells[at], "?")


def _block(rows: Sequence[Row], at: Sequence[int], heads: Sequence[str]) -> list[str]:
    lines = []
    group = None
    for row in rows:
        above, _, name = one_line(row.name).rpartition(".")
        if above != group:
            group = above
            lines += _beside(above, "".join(f"{head:>3}" for head in heads))
        marks = "".join(f"{_mark(row, each):>3}" for each in at)
        lines += _beside(f"  {name}", marks)
    return lines


def _beside(name: str, marks: str) -> list[str]:
    """Put marks beside a name, or below a long one."""
    if len(name) <= NAMES:
        return [f"{name:<{NAMES}}{marks}"]
    return [name[:WIDTH], f"{'':<{NAMES}}{marks}"]


def _fold(line: str) -> list[str]:
    if len(line) <= WIDTH:
        return [line]
    return textwrap.wrap(line, WIDTH, subsequent_indent="    ", break_on_hyphens=False)
