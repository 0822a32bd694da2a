# SPDX-License-Identifier: GPL-2.0-only
"""Live progress of each step and suite: a table, plain lines, or JSON (``docs/live.md``).

The remaining time is estimated from earlier durations.  At the end of a run of one lane come its
failures, with their messages, and the verdict.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TextIO

from iommuq.build.workspace import Workspace
from iommuq.proof.lanes import Lane
from iommuq.queue.steps import Step
from iommuq.report.matrix import MARKS
from iommuq.results.events import Judge, listen
from iommuq.results.known import Verdict, sum_up
from iommuq.results.runs.archive import plain_verdict
from iommuq.results.store import Result, SuiteRun
from iommuq.suites.selftest import BUILDS
from iommuq.system import progress
from iommuq.system.errors import EXIT_INTERRUPTED, EXIT_OK, InfraError, IommuqError, UserError
from iommuq.system.files import state_dir, write_json
from iommuq.system.tables import load_json

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

FILE = "durations.json"
#: Largest number of entries in the file.
MOST = 4000
#: Lines below the table for the progress lines.
_BELOW = 6
#: Minimal width of a terminal for words, in columns.
_WIDE = 72
#: Version of the JSON form.
FORMAT = 1
#: Printed lines of a failing test's message; the log has all.
_MESSAGE_LINES = 12


def load_durations() -> dict[str, float]:
    """Return durations in seconds by name: ``<what>/<which>``; empty: the file is unreadable."""
    data = load_json(dict[str, Any], state_dir() / FILE) or {}
    return {
        name: float(value)
        for name, value in data.items()
        if isinstance(value, int | float) and math.isfinite(value) and value >= 0
    }


def expect(past: Mapping[str, float], name: str) -> float | None:
    """Return the expected duration in seconds: the last one, or the median of its kind.

    :return: None: unknown.
    """
    if name in past:
        return past[name]
    kind = name.rpartition("/")[0] + "/"
    same = [seconds for other, seconds in past.items() if other.startswith(kind)]
    return median(same) if same else None


def save(new: Mapping[str, float]) -> None:
    """Store durations in seconds by name; an unwritable file is no error."""
    if not new:
        return
    kept = load_durations()
    for name, seconds in new.items():
        # The newest are at the end.
        kept.pop(name, None)
        kept[name] = round(seconds, 3)
    with contextlib.suppress(InfraError):
        write_json(state_dir() / FILE, dict(list(kept.items())[-MOST:]))


#: A cell that took less seconds was answered from the store.
WORKED = 1.0


@dataclass
class Cell:
    """One row in one column.

    :ivar doing: ``building``, ``running``; empty before and after.
    :ivar counts: number of tests by verdict; empty until it is done.
    :ivar failure: why there are no tests.
    :ivar begin: time of its begin, by the monotonic clock.
    :ivar seconds: its duration; None until it is done.
    """

    doing: str = ""
    counts: Mapping[Verdict, int] = field(default_factory=dict)
    failure: str = ""
    begin: float | None = None
    seconds: float | None = None

    @property
    def done(self) -> bool:
        """Whether it has a result."""
        return self.seconds is not None

    @property
    def words(self) -> str:
        """Its result as text."""
        if self.failure:
            return self.failure
        return ", ".join(f"{number} {verdict.word}" for verdict, number in self.counts.items())


class Board:
    """All cells, by names of rows and columns; a `progress.Renderer`.

    :ivar kind: prefix of the names of durations.
    """

    def __init__(
        self, title: str, kind: str, rows: Sequence[str], columns: Sequence[str], judge: Judge
    ) -> None:
        self.title = title
        self.kind = kind
        self.rows = list(rows)
        self.columns = list(columns)
        self.judge = judge
        self.cells = {(row, column): Cell() for row in rows for column in columns}
        self._past = load_durations()
        self._lock = threading.Lock()

    def busy(self, row: str, column: str, doing: str) -> None:
        """Set what a cell is doing."""
        with self._lock:
            cell = self.cells.get((row, column))
            if cell is not None:
                cell.doing = doing
                cell.begin = cell.begin or time.monotonic()

    def done(
        self, row: str, column: str, counts: Mapping[Verdict, int], failure: str = ""
    ) -> Cell | None:
        """Set the result of a cell, and return the cell."""
        with self._lock:
            cell = self.cells.get((row, column))
            if cell is not None:
                cell.doing, cell.counts, cell.failure = "", counts, failure
                cell.seconds = time.monotonic() - (cell.begin or time.monotonic())
            return cell

    def keep(self, wanted: Iterable[tuple[str, str]]) -> None:
        """Remove all other cells."""
        kept = set(wanted)
        with self._lock:
            self.cells = {place: cell for place, cell in self.cells.items() if place in kept}

    @property
    def progress(self) -> str:
        """Number of cells with a result, of all cells, and the estimated time that is left."""
        cells = list(self.cells.values())
        left = self.left()
        rest = f", about {progress.duration(left)} left" if left else ""
        return f"{sum(cell.done for cell in cells)} of {len(cells)}{rest}"

    def left(self) -> float | None:
        """Return the estimated remaining seconds.

        :return: None: a duration is unknown, or all cells so far came from the store.
        """
        now = time.monotonic()
        total, worked = 0.0, False
        with self._lock:
            cells = list(self.cells.items())
        for (row, column), cell in cells:
            spent = cell.seconds if cell.seconds is not None else now - (cell.begin or now)
            worked = worked or spent >= WORKED
            if cell.done:
                continue
            expected = expect(self._past, self._name(row, column))
            if expected is None:
                return None
            total += max(0.0, expected - spent)
        return total if worked else None

    def _name(self, row: str, column: str) -> str:
        return f"{self.kind}/{column}/{row.replace('/', ':')}"

    def remember(self) -> None:
        """Store the durations of the cells that did not come from the store."""
        took = {
            self._name(row, column): cell.seconds
            for (row, column), cell in self.cells.items()
            if cell.seconds is not None and cell.seconds >= WORKED
        }
        save(took)

    def render(self, width: int, height: int, *, utf8: bool) -> RenderableType:
        """Return the table.

        :param width: columns of the terminal.
        :param height: lines of the terminal.
        :param utf8: the terminal shows UTF-8.
        """
        from rich.console import Group
        from rich.table import Table as Rich
        from rich.text import Text

        table = Rich(box=None, padding=(0, 2, 0, 0), show_edge=False, pad_edge=False)
        table.add_column("", no_wrap=True, overflow="ellipsis" if utf8 else "crop")
        for column in self.columns:
            table.add_column(column, no_wrap=True, overflow="ellipsis" if utf8 else "crop")
        unfinished = {row for (row, _), cell in self.cells.items() if not cell.done}
        finished = [row not in unfinished for row in self.rows]
        first, last = _window(finished, max(3, height - _BELOW))
        if first:
            table.add_row(Text(f"{first} above are done", style="dim"))
        for row in self.rows[first:last]:
            cells = [self.cells.get((row, column)) for column in self.columns]
            table.add_row(
                Text(progress.one_line(row)), *(_show(cell, width, utf8=utf8) for cell in cells)
            )
        if last < len(self.rows):
            table.add_row(Text(f"{len(self.rows) - last} more", style="dim"))
        head = f"{progress.one_line(self.title)}: {self.progress}"
        return Group(Text(head, style="bold", no_wrap=True, overflow="crop"), table)


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
        mark = MARKS[verdict]
        if text:
            text.append(" ")
        if width >= _WIDE:
            text.append(f"{number} {verdict.word}", style=mark.style)
        elif utf8:
            text.append(f"{mark.sign}{number}", style=mark.style)
        else:
            word = "ok" if verdict is Verdict.OK else mark.word
            text.append(f"{word} {number}", style=mark.style)
    return text


class _Output:
    """Writes to a board, a stream of JSON, both or neither."""

    def __init__(self) -> None:
        self.board: Board | None = None
        self.stream: TextIO | None = None
        self.lock = threading.Lock()

    def _elsewhere(self, row: str, column: str) -> bool:
        """Return whether the table has no such cell: a suite may report cells of its own."""
        return self.board is not None and (row, column) not in self.board.cells

    def busy(self, row: str, column: str, doing: str) -> None:
        if self._elsewhere(row, column):
            return
        if self.board is not None:
            self.board.busy(row, column, doing)
        emit(doing, row=row, column=column)

    def done(self, row: str, column: str, run: SuiteRun, judge: Judge | None) -> None:
        board = self.board
        if (board is None and self.stream is None) or self._elsewhere(row, column):
            return
        judge = judge or (board.judge if board is not None else _statuses)
        try:
            verdicts = judge(run)
        except IommuqError:
            # A malformed list of known failures is reported elsewhere.
            verdicts = _statuses(run)
        for result in run.results:
            emit(
                "result", row=row, column=column, suite=result.suite, test=result.test,
                status=result.status.value, verdict=verdicts[result.test].value,
                duration=result.duration, message=result.message, log=result.log,
            )  # fmt: skip
        values = list(verdicts.values())
        counts = {verdict: values.count(verdict) for verdict in Verdict if verdict in values}
        self._close(row, column, counts)

    def failed(self, row: str, column: str, why: str, short: str) -> None:
        emit("failed", row=row, column=column, why=why)
        self._close(row, column, {}, short)

    def _close(
        self, row: str, column: str, counts: Mapping[Verdict, int], failure: str = ""
    ) -> None:
        words = {verdict.value: number for verdict, number in counts.items()}
        emit("done", row=row, column=column, counts=words)
        board = self.board
        cell = board.done(row, column, counts, failure) if board is not None else None
        if board is None or cell is None or len(board.cells) < 2:
            return
        if cell.seconds is not None and cell.seconds >= progress.PLAIN_START:
            progress.plain_note(f"{row} {column}: {cell.words} ({board.progress})")


_output = _Output()


def emit(event: str, **fields: object) -> None:
    """Write an event as JSON, if JSON is wanted."""
    stream = _output.stream
    if stream is not None:
        text = json.dumps({"event": event, **fields})
        with _output.lock:
            print(text, file=stream, flush=True)


@contextlib.contextmanager
def json_lines(wanted: bool) -> Iterator[None]:
    """Write only events to standard output during the block; an error is the last event."""
    if not wanted:
        yield
        return
    _output.stream = sys.stdout
    listen(_output)
    if sys.stdout.isatty():
        progress.no_live_lines()
    try:
        with (
            Path(os.devnull).open("w", encoding="utf-8", errors="backslashreplace") as null,
            contextlib.redirect_stdout(null),
        ):
            yield
    except IommuqError as error:
        emit("error", exit_code=error.exit_code, what=error.what, hint=error.hint)
        raise
    except KeyboardInterrupt:
        emit("error", exit_code=EXIT_INTERRUPTED, what="interrupted", hint="")
        raise
    finally:
        _output.stream = None


def begin(title: str, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Write the event with the heading and the names of rows and columns."""
    emit("begin", format=FORMAT, title=title, rows=list(rows), columns=list(columns))


@contextlib.contextmanager
def shown(
    title: str, kind: str, rows: Sequence[str], columns: Sequence[str], judge: Judge | None = None
) -> Iterator[Board]:
    """Show a live table during the block.

    :param title: the heading.
    :param kind: prefix of the names of durations.
    :param judge: returns the verdicts of a run; None: they follow from the statuses.
    """
    board = Board(title, kind, rows, columns, judge or _statuses)
    begin(title, board.rows, board.columns)
    _output.board = board
    listen(_output)
    try:
        # For a single cell the progress lines are enough.
        if len(board.cells) > 1:
            with progress.table(board):
                yield board
        else:
            yield board
    finally:
        _output.board = None
        board.remember()


def shown_lanes(
    workspace: Workspace, steps: Sequence[Step], lanes: Sequence[Lane]
) -> contextlib.AbstractContextManager[Board]:
    """Show a live table of steps and lanes during the block; see `shown`."""
    kind = f"{workspace.base.spec.name}/{', '.join(lane.title for lane in lanes)}"
    rows, columns = [step.label for step in steps], [lane.name for lane in lanes]
    return shown(workspace.title, kind, rows, columns)


def _statuses(run: SuiteRun) -> Mapping[str, Verdict]:
    return {result.test: plain_verdict(result.status) for result in run.results}


def report_run(title: str, lane: Lane, run: SuiteRun) -> int:
    """Print the results of a run, and return the exit code.

    :param title: name and version of what was tested.
    :raises UserError: all is skipped.
    """
    verdicts = lane.judge(run)
    for result in run.results:
        _print_result(result, verdicts[result.test])
    ran = "" if f"({run.accelerator})" in lane.title else f" ({run.accelerator})"
    print(f"{title}, {lane.title}{ran}")
    code, verdict = sum_up(f"{run.base} {run.patch}", verdicts.values())
    if code == EXIT_OK and set(verdicts.values()) == {Verdict.SKIPPED}:
        reasons = dict.fromkeys(result.message for result in run.results)
        raise UserError(f"nothing can be tested: {'; '.join(reasons)}")
    print(verdict)
    emit("end", exit_code=code, findings=[], errors=[])
    return code


def _print_result(result: Result, verdict: Verdict) -> None:
    if verdict is Verdict.OK and sys.stdout.isatty():
        return
    print(f"{verdict.word:<15} {progress.one_line(result.test)}")
    # Of a program that was not built, the message says how to get it.
    lacks = verdict is Verdict.SKIPPED and result.test.endswith(f".{BUILDS}")
    if verdict in (Verdict.FAILED, Verdict.ERROR) or lacks:
        print_message(result, _MESSAGE_LINES)


def print_message(result: Result, most: int) -> None:
    """Print the first *most* lines of the message of a result, and where its log is."""
    lines = result.message.splitlines()
    for line in lines[:most]:
        print(f"    {progress.one_line(line)}")
    if len(lines) > most:
        print(f"    … {len(lines) - most} more lines")
    if result.log:
        print(f"    full log: {result.log}")
