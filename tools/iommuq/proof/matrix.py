# SPDX-License-Identifier: GPL-2.0-only
"""Verdicts by test and step, and the changes of each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from iommuq.results.known import Verdict
from iommuq.system.progress import one_line

#: The most tests that a line under the table names.
NAMES = 5

_PASSING = (Verdict.OK, Verdict.UNEXPECTED_PASS)
_FAILING = (Verdict.FAILED, Verdict.KNOWN)


@dataclass(frozen=True)
class Column:
    """One step.

    :ivar subject: of the patch; empty for the baseline.
    :ivar verdicts: by test, named ``suite.case``.
    :ivar note: the reason for no verdicts, such as ``does not build``.
    """

    label: str
    subject: str = ""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One test, and its verdict at each step; None if it was not run."""

    suite: str
    test: str
    cells: tuple[Verdict | None, ...]

    @property
    def name(self) -> str:
        """The full name of the test."""
        return f"{self.suite}.{self.test}" if self.suite else self.test


@dataclass(frozen=True)
class Change:
    """The tests that changed at one step, compared with the last step before that ran them.

    :ivar unknown: tests that passed or failed before, and have no verdict now.
    :ivar gone: tests that passed before, and are skipped or missing in a kernel that builds.
    :ivar since: the label of the step before, if steps without a kernel are between; or empty.
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
    """Make the table of some steps, in order."""
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
        # Steps that do not build are skipped.
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
    """Return the table with one row for all unchanged tests of a group.

    A group has the same name up to the last dot.  Only tests that pass, or are skipped, at
    every step are folded.
    """
    groups: dict[tuple[str, str, tuple[Verdict | None, ...]], list[Row]] = {}
    for number, row in enumerate(matrix.rows):
        group = row.test.rpartition(".")[0]
        steady = len(set(row.cells)) == 1 and row.cells[0] in (Verdict.OK, Verdict.SKIPPED)
        name = group if steady and group else f"{number}"
        groups.setdefault((row.suite, name, row.cells), []).append(row)
    rows = [
        Row(suite, f"{group}.* ({len(of)})", cells) if len(of) > 1 else of[0]
        for (suite, group, cells), of in groups.items()
    ]
    return Matrix(matrix.columns, tuple(rows), matrix.changes)


def names(tests: Sequence[str]) -> str:
    """Return the number of tests and the first names, such as ``2 (a, b)``."""
    if not tests:
        return "none"
    shown = [one_line(test) for test in tests[:NAMES]]
    if len(tests) > NAMES:
        shown.append("…")
    return f"{len(tests)} ({', '.join(shown)})"
