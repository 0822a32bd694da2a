# SPDX-License-Identifier: GPL-2.0-only
"""What becomes of each step in each lane while it is worked on: for people, or for programs.

People with a terminal see a table that fills in, above what is being done; others get
a line for each cell that took its time.  Programs get JSON, one object a line, on
standard output; ``docs/live.md`` has its form.  Where neither is asked for, telling
costs nothing.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

from iommuq.build.workspace import Workspace
from iommuq.proof.lanes import Lane
from iommuq.queue.steps import Step
from iommuq.report.live.board import Board
from iommuq.report.live.table import Table
from iommuq.results.events import Judge, listen
from iommuq.results.known import Verdict
from iommuq.results.store import Run, Status
from iommuq.system import progress
from iommuq.system.errors import EXIT_INTERRUPTED, IommuqError

#: Version of the JSON form.
FORMAT = 1
_PLAIN = {
    Status.PASS: Verdict.OK,
    Status.FAIL: Verdict.FAILED,
    Status.SKIP: Verdict.SKIPPED,
    Status.ERROR: Verdict.ERROR,
}


class _Output:
    """Where it is told: none, one or both of a board and a stream of JSON."""

    def __init__(self) -> None:
        self.board: Board | None = None
        self.stream: TextIO | None = None
        self.lock = threading.Lock()

    def _elsewhere(self, row: str, column: str) -> bool:
        """Tell whether a table is shown that has no such cell.

        A suite may be told of by its own cells, and be part of a larger one.
        """
        return self.board is not None and (row, column) not in self.board.cells

    def busy(self, row: str, column: str, doing: str) -> None:
        """Say what is done for a cell: ``building`` or ``running``."""
        if self._elsewhere(row, column):
            return
        if self.board is not None:
            self.board.busy(row, column, doing)
        emit(doing, row=row, column=column)

    def done(self, row: str, column: str, run: Run, judge: Judge | None) -> None:
        """Say what came of a cell."""
        board = self.board
        if (board is None and self.stream is None) or self._elsewhere(row, column):
            return
        judge = judge or (board.judge if board is not None else _statuses)
        try:
            verdicts = judge(run)
        except IommuqError:
            # A list of known failures that is malformed is told by whoever needs it.
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
        """Say that a cell has no results.

        :param why: the reason.
        :param short: the same in a few words.
        """
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
            number, total = board.progress
            left = board.left()
            rest = f", about {progress.duration(left)} left" if left else ""
            progress.plain_note(f"{row} {column}: {cell.words} ({number} of {total}{rest})")


_output = _Output()


def emit(event: str, **fields: object) -> None:
    """Write an event for programs, if there are any."""
    stream = _output.stream
    if stream is not None:
        text = json.dumps({"event": event, **fields})
        with _output.lock:
            print(text, file=stream, flush=True)


@contextlib.contextmanager
def json_lines(wanted: bool) -> Iterator[None]:
    """Write events to standard output, and nothing else there, for as long as the block runs.

    Whatever ends the block, the last event says so.
    """
    if not wanted:
        yield
        return
    _output.stream = sys.stdout
    listen(_output)
    if sys.stdout.isatty():
        progress.no_live_lines()
    try:
        with contextlib.redirect_stdout(_Nowhere()):
            yield
    except IommuqError as error:
        emit("error", exit_code=error.exit_code, what=error.what, hint=error.hint)
        raise
    except KeyboardInterrupt:
        emit("error", exit_code=EXIT_INTERRUPTED, what="interrupted", hint="")
        raise
    finally:
        _output.stream = None


class _Nowhere:
    """A stream that keeps nothing."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


def begin(title: str, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Tell programs what there may be cells of; people are shown nothing.

    :param title: what is done, for people.
    """
    emit("begin", format=FORMAT, title=title, rows=list(rows), columns=list(columns))


@contextlib.contextmanager
def shown(
    title: str,
    kind: str,
    rows: Sequence[str],
    columns: Sequence[str],
    judge: Judge | None = None,
) -> Iterator[Board]:
    """Show a table that fills in for as long as the block runs.

    :param title: what is done, for people.
    :param kind: what is done, to remember how long it takes.
    :param judge: gives the verdicts of a run; without one, statuses are taken for them.
    """
    board = Board(title, kind, rows, columns, judge or _statuses)
    begin(title, board.rows, board.columns)
    _output.board = board
    listen(_output)
    try:
        # One cell is no table: the lines of what is being done say it all.
        if len(board.cells) > 1:
            with progress.table(Table(board)):
                yield board
        else:
            yield board
    finally:
        _output.board = None
        board.remember()


def shown_lanes(
    workspace: Workspace, steps: Sequence[Step], lanes: Sequence[Lane]
) -> contextlib.AbstractContextManager[Board]:
    """Show steps down and lanes across for as long as the block runs; see `shown`."""
    kind = f"{workspace.base.spec.name}/{', '.join(lane.title for lane in lanes)}"
    rows, columns = [step.label for step in steps], [lane.name for lane in lanes]
    return shown(workspace.title, kind, rows, columns)


def _statuses(run: Run) -> Mapping[str, Verdict]:
    return {result.test: _PLAIN[result.status] for result in run.results}
