# SPDX-License-Identifier: GPL-2.0-only
"""The table of verdicts: tests down, steps of the queue across, and what each step did."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from iommuq.results.known import Verdict
from iommuq.system.progress import one_line

if TYPE_CHECKING:
    from rich.table import Table

#: Tests that a line under the table lists by name.
NAMES = 5
#: Columns that the names of tests keep, however narrow the terminal is.
MIN_NAMES = 20

_INDENT = "  "


@dataclass(frozen=True)
class _Cell:
    """How a verdict is shown: on a terminal, in plain text, and in the legend."""

    sign: str
    style: str
    word: str
    legend: str = ""


_CELLS: Mapping[Verdict | None, _Cell] = {
    Verdict.OK: _Cell("✓", "green", "pass"),
    Verdict.FAILED: _Cell("✗", "bold red", "FAIL"),
    Verdict.SKIPPED: _Cell("–", "yellow", "skip", "skipped"),
    Verdict.KNOWN: _Cell("K", "yellow", "known", "fails, as is known"),
    Verdict.FLAKY: _Cell("≈", "bold red", "FLAKY", "passed and failed on the same kernel"),
    Verdict.ERROR: _Cell("E", "bold magenta", "error", "no verdict: the infrastructure failed"),
    Verdict.UNEXPECTED_PASS: _Cell("✓!", "bold red", "PASS!", "passes, but is listed as failing"),
    Verdict.EXPIRED: _Cell("K!", "bold red", "EXPIRED", "listed as failing, but past its date"),
    None: _Cell("·", "dim", "-"),
}

_PASSING = (Verdict.OK, Verdict.UNEXPECTED_PASS)
_FAILING = (Verdict.FAILED, Verdict.KNOWN)


@dataclass(frozen=True)
class Column:
    """One step.

    :ivar subject: the patch's subject; empty for the baseline.
    :ivar verdicts: by test, named ``suite.case``.
    :ivar note: why there are no verdicts, such as ``does not build``.
    """

    label: str
    subject: str = ""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One test, and its verdict at each step, None where it was not run."""

    suite: str
    test: str
    cells: tuple[Verdict | None, ...]

    @property
    def name(self) -> str:
        """The full name of the test."""
        return f"{self.suite}.{self.test}" if self.suite else self.test


@dataclass(frozen=True)
class Change:
    """What one step did to the tests, compared with the last step before that ran them.

    Only a pass and a failure are compared: an error is neither.

    :ivar unknown: tests that passed or failed before, and have no verdict now.
    :ivar gone: tests that passed before, and are skipped or not there now though there is
        a kernel.
    :ivar since: the label of the step that it is compared with, if that is not the one
        before, which has no kernel.
    """

    column: Column
    fixed: tuple[str, ...]
    broke: tuple[str, ...]
    unknown: tuple[str, ...]
    gone: tuple[str, ...] = ()
    since: str = ""


@dataclass(frozen=True)
class Matrix:
    """The whole table; `build` makes it."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    changes: tuple[Change, ...]


def build(columns: Sequence[Column]) -> Matrix:
    """Make the table of some steps.

    :param columns: the steps in order, the first one being what the others are built on.
    """
    # A dict is an ordered set: tests keep the order in which they ran first.
    tests = list(dict.fromkeys(test for column in columns for test in column.verdicts))
    rows = []
    for test in tests:
        suite, _, case = test.partition(".")
        cells = tuple(column.verdicts.get(test) for column in columns)
        rows.append(Row(suite if case else "", case or test, cells))
    suites = list(dict.fromkeys(row.suite for row in rows))
    rows.sort(key=lambda row: suites.index(row.suite))
    changes = tuple(_change(rows, columns[: number + 1]) for number in range(1, len(columns)))
    return Matrix(tuple(columns), tuple(rows), changes)


def _change(rows: Sequence[Row], columns: Sequence[Column]) -> Change:
    """Compare the last of some steps with those before it."""
    number, column = len(columns) - 1, columns[-1]
    earliest = number - 1
    fixed, broke, unknown, gone = [], [], [], []
    for row in rows:
        at = number - 1
        # What a step without a kernel did is seen in the first one after it that has one.
        while at > 0 and row.cells[at] is None and columns[at].note:
            at -= 1
        before, after = row.cells[at], row.cells[number]
        if before is not None:
            earliest = min(earliest, at)
        if before in _FAILING and after in _PASSING:
            fixed.append(row.name)
        elif before in _PASSING and after in _FAILING:
            broke.append(row.name)
        elif before in (*_PASSING, *_FAILING) and after in (None, Verdict.ERROR):
            unknown.append(row.name)
        if before in _PASSING and after in (None, Verdict.SKIPPED) and not column.note:
            gone.append(row.name)
    since = columns[earliest].label if earliest < number - 1 else ""
    return Change(column, tuple(fixed), tuple(broke), tuple(unknown), tuple(gone), since)


def fold(matrix: Matrix) -> Matrix:
    """Return the table with one row for all tests of a group that no step changes.

    A group is what has the same name up to the last dot.  Only tests that pass, or are
    skipped, at every step are folded; what each step did is told in full.
    """
    groups: dict[tuple[str, str, tuple[Verdict | None, ...]], list[Row]] = {}
    for number, row in enumerate(matrix.rows):
        group = row.test.rpartition(".")[0]
        steady = len(set(row.cells)) == 1 and row.cells[0] in (Verdict.OK, Verdict.SKIPPED)
        # A row that stays has a group of its own.
        name = group if steady and group else f"{number}"
        groups.setdefault((row.suite, name, row.cells), []).append(row)
    rows = [
        Row(suite, f"{group}.* ({len(of)})", cells) if len(of) > 1 else of[0]
        for (suite, group, cells), of in groups.items()
    ]
    return Matrix(matrix.columns, tuple(rows), matrix.changes)


def describe(change: Change) -> str:
    """Say in one line what a step did."""
    column = change.column
    head = f"{column.label} {one_line(column.subject)}".rstrip()
    head += f" (compared with {change.since}): " if change.since and not column.note else ": "
    if column.note:
        return head + one_line(column.note)
    parts = [f"fixes {names(change.fixed)}", f"breaks {names(change.broke)}"]
    if change.unknown:
        parts.append(f"no verdict on {names(change.unknown)}")
    return head + ", ".join(parts)


def names(tests: Sequence[str]) -> str:
    """Say how many tests there are, and name some."""
    if not tests:
        return "none"
    shown = [one_line(test) for test in tests[:NAMES]]
    if len(tests) > NAMES:
        shown.append("…")
    return f"{len(tests)} ({', '.join(shown)})"


def _legend(matrix: Matrix) -> list[_Cell]:
    """Return the cells of the table that do not speak for themselves."""
    used = {cell for row in matrix.rows for cell in row.cells}
    return [cell for verdict, cell in _CELLS.items() if cell.legend and verdict in used]


@dataclass(frozen=True)
class _Layout:
    """How the table is laid out in a width.

    :ivar names: columns for the names of tests.
    :ivar cell: columns for each step, space to its left included.
    :ivar chunks: steps of each of the tables that it is split into.
    """

    lines: tuple[tuple[str, Row | None], ...]
    names: int
    cell: int
    chunks: tuple[range, ...]


def _lay_out(matrix: Matrix, width: int | None, widest: int) -> _Layout:
    """Lay the table out.

    :param widest: columns of the widest cell below the labels.
    """
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
    """Return the two lines over a column: the series of the patch, and its number there."""
    section, _, number = one_line(column.label).rpartition("/")
    return section, number


def _grouped(matrix: Matrix) -> Iterator[tuple[str, Row | None]]:
    """Yield the first column of each line, with its row, or None for a suite's heading."""
    suite = ""
    for row in matrix.rows:
        if row.suite != suite:
            suite = row.suite
            if suite:
                yield one_line(suite), None
        yield (_INDENT if row.suite else "") + one_line(row.test), row


def to_text(matrix: Matrix, width: int | None = None) -> str:
    """Return the table in plain words, for files and mail.

    :param width: columns of the output; by default there is no limit.
    """
    used = (_CELLS[cell].word for row in matrix.rows for cell in row.cells)
    layout = _lay_out(matrix, width, max(map(len, used), default=0))
    names, cell = layout.names, layout.cell
    out: list[str] = []
    for chunk in layout.chunks:
        for parts in zip(*(_heading(matrix.columns[step]) for step in chunk), strict=True):
            if any(parts):
                out.append((" " * names + "".join(f"{part:>{cell}}" for part in parts)).rstrip())
        for name, row in layout.lines:
            shown = name if len(name) <= names else name[: names - 2] + ".."
            cells = [] if row is None else [_CELLS[row.cells[step]] for step in chunk]
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
        # Names of tests are for copying.
        break_long_words=False,
        break_on_hyphens=False,
    )


def show(matrix: Matrix, stream: TextIO | None = None) -> None:
    """Write the table: with colours to a terminal, in plain words to all else.

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
    # Here and not above: loading it takes longer than a run that is answered from the store.
    from rich.console import Console
    from rich.text import Text

    # NO_COLOR is heeded by rich.  The size is that of the process's terminal.
    console = Console(file=out, force_terminal=True, highlight=False)
    layout = _lay_out(matrix, console.width, max(len(cell.sign) for cell in _CELLS.values()))
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

    # Widths are given: rich would rather cut the labels than the names.
    table = Table(box=None, pad_edge=False, padding=0)
    table.add_column("", width=layout.names, no_wrap=True, overflow="ellipsis")
    for step in chunk:
        label = Text("\n".join(_heading(matrix.columns[step])).strip())
        table.add_column(label, justify="right", width=layout.cell, no_wrap=True)
    for name, row in layout.lines:
        if row is None:
            table.add_row(Text(name, style="bold"))
        else:
            cells = (_CELLS[row.cells[step]] for step in chunk)
            table.add_row(Text(name), *(Text(cell.sign, style=cell.style) for cell in cells))
    return table
