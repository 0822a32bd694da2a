# SPDX-License-Identifier: GPL-2.0-only
"""Live progress of each step and suite: a table, plain lines, or JSON (``docs/live.md``)."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from iommuq.build.workspace import Workspace
from iommuq.proof.lanes import Lane
from iommuq.queue.steps import Step
from iommuq.report.live.board import Board
from iommuq.report.live.table import Table
from iommuq.results.events import Judge, listen
from iommuq.results.known import Verdict
from iommuq.results.runs.archive import plain_verdict
from iommuq.results.store import SuiteRun
from iommuq.system import progress
from iommuq.system.errors import EXIT_INTERRUPTED, IommuqError

#: Version of the JSON form.
FORMAT = 1


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
            number, total = board.progress
            left = board.left()
            rest = f", about {progress.duration(left)} left" if left else ""
            progress.plain_note(f"{row} {column}: {cell.words} ({number} of {total}{rest})")


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
    """Show a live table of steps and lanes during the block; see `shown`."""
    kind = f"{workspace.base.spec.name}/{', '.join(lane.title for lane in lanes)}"
    rows, columns = [step.label for step in steps], [lane.name for lane in lanes]
    return shown(workspace.title, kind, rows, columns)


def _statuses(run: SuiteRun) -> Mapping[str, Verdict]:
    return {result.test: plain_verdict(result.status) for result in run.results}
