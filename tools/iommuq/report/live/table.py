# SPDX-License-Identifier: GPL-2.0-only
"""Draw the live table on a terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from iommuq.results.known import Verdict
from iommuq.system import progress

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from iommuq.report.live.board import Board, Cell

#: Lines below the table for the progress lines.
_BELOW = 6
#: Minimal width of a terminal for words, in columns.
_WIDE = 72
_STYLES = {
    Verdict.OK: ("green", "✓", "ok "),
    Verdict.SKIPPED: ("yellow", "–", "skip "),
    Verdict.KNOWN: ("yellow", "K", "known "),
    Verdict.FAILED: ("bold red", "✗", "FAIL "),
    Verdict.UNEXPECTED_PASS: ("bold red", "✓!", "PASS! "),
    Verdict.EXPIRED: ("bold red", "K!", "EXPIRED "),
    Verdict.FLAKY: ("bold red", "≈", "FLAKY "),
    Verdict.ERROR: ("bold magenta", "E", "error "),
}


class Table:
    """Draws a board; see `progress.Renderer`."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def render(self, width: int, height: int, *, utf8: bool) -> RenderableType:
        """Return the table.

        :param width: columns of the terminal.
        :param height: lines of the terminal.
        :param utf8: the terminal shows UTF-8.
        """
        from rich.console import Group
        from rich.table import Table as Rich
        from rich.text import Text

        board = self._board
        table = Rich(box=None, padding=(0, 2, 0, 0), show_edge=False, pad_edge=False)
        table.add_column("", no_wrap=True, overflow="ellipsis" if utf8 else "crop")
        for column in board.columns:
            table.add_column(column, no_wrap=True, overflow="ellipsis" if utf8 else "crop")
        first, last = _window(self._finished(), max(3, height - _BELOW))
        if first:
            table.add_row(Text(f"{first} above are done", style="dim"))
        for row in board.rows[first:last]:
            cells = [board.cells.get((row, column)) for column in board.columns]
            table.add_row(
                Text(progress.one_line(row)), *(_show(cell, width, utf8=utf8) for cell in cells)
            )
        if last < len(board.rows):
            table.add_row(Text(f"{len(board.rows) - last} more", style="dim"))
        return Group(self._head(), table)

    def _head(self) -> Text:
        from rich.text import Text

        number, total = self._board.progress
        left = self._board.left()
        rest = f", about {progress.duration(left)} left" if left else ""
        title = progress.one_line(self._board.title)
        return Text(
            f"{title}: {number} of {total}{rest}", style="bold", no_wrap=True, overflow="crop"
        )

    def _finished(self) -> list[bool]:
        open_rows = {row for (row, _), cell in self._board.cells.items() if not cell.done}
        return [row not in open_rows for row in self._board.rows]


def _window(finished: Sequence[bool], room: int) -> tuple[int, int]:
    """Return the range of rows to show: around the first unfinished one if not all fit."""
    if len(finished) <= room:
        return 0, len(finished)
    # Two lines tell the number of hidden rows.
    room = max(1, room - 2)
    at = finished.index(False) if False in finished else len(finished)
    first = max(0, min(at - 1, len(finished) - room))
    return first, first + room


def _show(cell: Cell | None, width: int, *, utf8: bool) -> Text:
    from rich.text import Text

    if cell is None:
        return Text("")
    if cell.doing:
        spent = time.monotonic() - (cell.begin or time.monotonic())
        return Text(f"{cell.doing} {progress.duration(spent)}", style="cyan")
    if not cell.done:
        return Text("·" if utf8 else ".", style="dim")
    if cell.failure:
        return Text(cell.failure, style="bold red")
    text = Text()
    for verdict, number in cell.counts.items():
        style, sign, word = _STYLES[verdict]
        if text:
            text.append(" ")
        if width >= _WIDE:
            text.append(f"{number} {verdict.word}", style=style)
        else:
            text.append(f"{sign if utf8 else word}{number}", style=style)
    return text
