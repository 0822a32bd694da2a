# SPDX-License-Identifier: GPL-2.0-only
"""Print the table of verdicts: tests down, steps of the queue across."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from iommuq.proof.matrix import Change, Column, Matrix, Row, names
from iommuq.results.known import Verdict
from iommuq.system.progress import one_line

if TYPE_CHECKING:
    from rich.table import Table

#: Minimal width of the names of tests, in columns.
MIN_NAMES = 20

_INDENT = "  "


@dataclass(frozen=True)
class Mark:
    """A verdict on a terminal, in plain text, and in the legend."""

    sign: str
    style: str
    word: str
    legend: str = ""


MARKS: Mapping[Verdict | None, Mark] = {
    Verdict.OK: Mark("✓", "green", "pass"),
    Verdict.FAILED: Mark("✗", "bold red", "FAIL"),
    Verdict.SKIPPED: Mark("–", "yellow", "skip", "skipped"),
    Verdict.KNOWN: Mark("K", "yellow", "known", "known failure"),
    Verdict.FLAKY: Mark("≈", "bold red", "FLAKY", "passed and failed on the same kernel"),
    Verdict.ERROR: Mark("E", "bold magenta", "error", "no verdict: the infrastructure failed"),
    Verdict.UNEXPECTED_PASS: Mark("✓!", "bold red", "PASS!", "passes, but is listed as failing"),
    Verdict.EXPIRED: Mark("K!", "bold red", "EXPIRED", "listed as failing, but past its date"),
    None: Mark("·", "dim", "-"),
}


def describe(change: Change) -> str:
    """Return what a step changed, in one line."""
    column = change.column
    head = f"{column.label} {one_line(column.subject)}".rstrip()
    head += f" (compared with {change.since}): " if change.since and not column.note else ": "
    if column.note:
        return head + one_line(column.note)
    parts = [f"fixes {names(change.fixed)}", f"breaks {names(change.broke)}"]
    if change.unknown:
        parts.append(f"no verdict on {names(change.unknown)}")
    return head + ", ".join(parts)


def _legend(matrix: Matrix) -> list[Mark]:
    """Return the cells of the table that need an explanation."""
    used = {cell for row in matrix.rows for cell in row.cells}
    return [cell for verdict, cell in MARKS.items() if cell.legend and verdict in used]


@dataclass(frozen=True)
class _Layout:
    """The layout of the table for a width: columns for names and each step, steps by part."""

    lines: tuple[tuple[str, Row | None], ...]
    names: int
    cell: int
    chunks: tuple[range, ...]


def _lay_out(matrix: Matrix, width: int | None, widest: int) -> _Layout:
    """Return the layout; *widest* is the width of the widest cell below the labels."""
    lines = tuple(_grouped(matrix))
    names = max((len(name) for name, _ in lines), default=0)
    total = len(matrix.columns)
    parts = (part for column in matrix.columns for part in _heading(column))
    cell = 2 + max([widest, *map(len, parts)])
    fit = max(total, 1)
    if width is not None:
        fit = min(fit, max(1, (width - min(names, MIN_NAMES)) // cell))
        names = min(names, max(MIN_NAMES, width - cell * fit))
    chunks = tuple(range(start, min(start + fit, total)) for start in range(0, total, fit))
    return _Layout(lines, names, cell, chunks)


def _heading(column: Column) -> tuple[str, str]:
    """Return the two lines of a column's heading: series, and number of the patch."""
    section, _, number = one_line(column.label).rpartition("/")
    return section, number


def _grouped(matrix: Matrix) -> Iterator[tuple[str, Row | None]]:
    """Yield the first column of each line and its row; None: heading of a suite."""
    suite = ""
    for row in matrix.rows:
        if row.suite != suite:
            suite = row.suite
            if suite:
                yield one_line(suite), None
        yield (_INDENT if row.suite else "") + one_line(row.test), row


def to_text(matrix: Matrix, width: int | None = None) -> str:
    """Return the table as plain text, for files and mail.

    :param width: columns of the output; None: no limit.
    """
    used = (MARKS[cell].word for row in matrix.rows for cell in row.cells)
    layout = _lay_out(matrix, width, max(map(len, used), default=0))
    names, cell = layout.names, layout.cell
    out: list[str] = []
    for chunk in layout.chunks:
        for parts in zip(*(_heading(matrix.columns[step]) for step in chunk), strict=True):
            if any(parts):
                out.append((" " * names + "".join(f"{part:>{cell}}" for part in parts)).rstrip())
        for name, row in layout.lines:
            shown = name if len(name) <= names else name[: names - 2] + ".."
            cells = [] if row is None else [MARKS[row.cells[step]] for step in chunk]
            words = "".join(f"{each.word:>{cell}}" for each in cells)
            out.append(f"{shown:<{names}}{words}".rstrip())
        out.append("")
    out += [f"{each.word}: {each.legend}" for each in _legend(matrix) if each.word != "skip"]
    for change in matrix.changes:
        out += _wrap(describe(change), width)
    return "\n".join(out) + "\n"


def _wrap(text: str, width: int | None) -> list[str]:
    if width is None:
        return [text]
    return textwrap.wrap(
        text,
        max(width, MIN_NAMES),
        subsequent_indent=_INDENT,
        # Names of tests stay whole, for copying.
        break_long_words=False,
        break_on_hyphens=False,
    )


def show(matrix: Matrix, stream: TextIO | None = None) -> None:
    """Write the table: with colours to a terminal, else as plain text.

    :param stream: by default standard output.
    """
    out = sys.stdout if stream is None else stream
    encoding = getattr(out, "encoding", None) or "ascii"
    fancy = encoding.lower().startswith("utf") and os.environ.get("TERM", "dumb") != "dumb"
    if out.isatty() and fancy:
        _show_rich(matrix, out)
    else:
        text = to_text(matrix)
        out.write(text.encode(encoding, "backslashreplace").decode(encoding))
    out.flush()


def _show_rich(matrix: Matrix, out: TextIO) -> None:
    # Imported here: it takes long.
    from rich.console import Console
    from rich.text import Text

    console = Console(file=out, force_terminal=True, highlight=False)
    layout = _lay_out(matrix, console.width, max(len(cell.sign) for cell in MARKS.values()))
    for chunk in layout.chunks:
        console.print(_table(matrix, layout, chunk))
    for cell in _legend(matrix):
        console.print(Text.assemble((cell.sign, cell.style), f" {cell.legend}"))
    for change in matrix.changes:
        style = "red" if change.broke or change.column.note else ""
        for line in _wrap(describe(change), console.width):
            console.print(Text(line, style=style), soft_wrap=True)


def _table(matrix: Matrix, layout: _Layout, chunk: range) -> Table:
    from rich.table import Table
    from rich.text import Text

    # Fixed widths: rich would cut the labels, not the names.
    table = Table(box=None, pad_edge=False, padding=0)
    table.add_column("", width=layout.names, no_wrap=True, overflow="ellipsis")
    for step in chunk:
        label = Text("\n".join(_heading(matrix.columns[step])).strip())
        table.add_column(label, justify="right", width=layout.cell, no_wrap=True)
    for name, row in layout.lines:
        if row is None:
            table.add_row(Text(name, style="bold"))
        else:
            cells = (MARKS[row.cells[step]] for step in chunk)
            table.add_row(Text(name), *(Text(cell.sign, style=cell.style) for cell in cells))
    return table
