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
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self, TextIO

from iommuq.report.live import durations
from iommuq.results.known import Failure, Verdict
from iommuq.results.store import Run, Status, Store
from iommuq.system import progress
from iommuq.system.errors import EXIT_INTERRUPTED, IommuqError, VerdictError

if TYPE_CHECKING:
    from iommuq.build.image import Image
    from iommuq.proof.lanes import Lane
    from iommuq.queue.steps import Step

#: Version of the JSON form.
FORMAT = 1
#: Seconds from which on a cell was worked on, and not answered from the store.
WORKED = 1.0

Judge = Callable[[Run], Mapping[str, Verdict]]

_PLAIN = {
    Status.PASS: Verdict.OK,
    Status.FAIL: Verdict.FAILED,
    Status.SKIP: Verdict.SKIPPED,
    Status.ERROR: Verdict.ERROR,
}


@dataclass
class Cell:
    """One row in one column.

    :ivar doing: ``building``, ``running``; empty before and after.
    :ivar counts: how many tests came out how, once that is known.
    :ivar failure: why there are no tests.
    :ivar begin: when it was begun, by the monotonic clock.
    :ivar seconds: how long it took, once it is done.
    """

    doing: str = ""
    counts: Mapping[Verdict, int] = field(default_factory=dict)
    failure: str = ""
    begin: float | None = None
    seconds: float | None = None

    @property
    def done(self) -> bool:
        """Whether it is known what came of it."""
        return self.seconds is not None

    @property
    def words(self) -> str:
        """What came of it, for people."""
        if self.failure:
            return self.failure
        return ", ".join(f"{number} {verdict.value}" for verdict, number in self.counts.items())


class Board:
    """All cells.

    :ivar title: what is done, for people.
    :ivar kind: what the names of the durations begin with.
    :ivar rows: their names, in order.
    :ivar columns: the same.
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
        self._past = durations.load()
        self._lock = threading.Lock()

    def busy(self, row: str, column: str, doing: str) -> None:
        """Say what is done for a cell."""
        with self._lock:
            cell = self.cells.get((row, column))
            if cell is not None:
                cell.doing = doing
                cell.begin = cell.begin or time.monotonic()

    def done(
        self, row: str, column: str, counts: Mapping[Verdict, int], failure: str = ""
    ) -> Cell | None:
        """Say what came of a cell, and return it."""
        with self._lock:
            cell = self.cells.get((row, column))
            if cell is not None:
                cell.doing, cell.counts, cell.failure = "", counts, failure
                cell.seconds = time.monotonic() - (cell.begin or time.monotonic())
            return cell

    def keep(self, wanted: Iterable[tuple[str, str]]) -> None:
        """Wait for no other cells than these."""
        there_are = set(wanted)
        with self._lock:
            self.cells = {place: cell for place, cell in self.cells.items() if place in there_are}

    @property
    def progress(self) -> tuple[int, int]:
        """How many cells are done, and how many there are."""
        cells = list(self.cells.values())
        return sum(cell.done for cell in cells), len(cells)

    def left(self) -> float | None:
        """Estimate the seconds that are left; None if there is nothing to go by.

        As long as all is answered from the store there is no telling, so nothing is said.
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
            expected = durations.expect(self._past, self._name(row, column))
            if expected is None:
                return None
            total += max(0.0, expected - spent)
        return total if worked else None

    def _name(self, row: str, column: str) -> str:
        return f"{self.kind}/{column}/{row.replace('/', ':')}"

    def remember(self) -> None:
        """Keep how long the cells took that were worked on."""
        took = {
            self._name(row, column): cell.seconds
            for (row, column), cell in self.cells.items()
            if cell.seconds is not None and cell.seconds >= WORKED
        }
        durations.save(took)


class _Output:
    """Where it is told: none, one or both of a board and a stream of JSON."""

    def __init__(self) -> None:
        self.board: Board | None = None
        self.stream: TextIO | None = None
        self.lock = threading.Lock()


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
    try:
        # One cell is no table: the lines of what is being done say it all.
        if len(board.cells) > 1:
            with progress.table(_renderer(board)):
                yield board
        else:
            yield board
    finally:
        _output.board = None
        board.remember()


def _renderer(board: Board) -> progress.Renderer:
    from iommuq.report.live.table import Table

    return Table(board)


def _statuses(run: Run) -> Mapping[str, Verdict]:
    return {result.test: _PLAIN[result.status] for result in run.results}


def _elsewhere(row: str, column: str) -> bool:
    """Tell whether a table is shown that has no such cell.

    A suite may be told of by its own cells, and be part of a larger one.
    """
    return _output.board is not None and (row, column) not in _output.board.cells


def busy(row: str, column: str, doing: str) -> None:
    """Say what is done for a cell: ``building`` or ``running``."""
    if _elsewhere(row, column):
        return
    if _output.board is not None:
        _output.board.busy(row, column, doing)
    emit(doing, row=row, column=column)


def done(row: str, column: str, run: Run, judge: Judge | None = None) -> None:
    """Say what came of a cell."""
    board = _output.board
    if (board is None and _output.stream is None) or _elsewhere(row, column):
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
    _close(row, column, counts)


def failed(row: str, column: str, why: str, short: str) -> None:
    """Say that a cell has no results.

    :param why: the reason.
    :param short: the same in a few words.
    """
    emit("failed", row=row, column=column, why=why)
    _close(row, column, {}, short)


def _close(row: str, column: str, counts: Mapping[Verdict, int], failure: str = "") -> None:
    words = {verdict.value: number for verdict, number in counts.items()}
    emit("done", row=row, column=column, counts=words)
    board = _output.board
    cell = board.done(row, column, counts, failure) if board is not None else None
    if board is None or cell is None or len(board.cells) < 2:
        return
    if cell.seconds is not None and cell.seconds >= progress.PLAIN_START:
        number, total = board.progress
        left = board.left()
        rest = f", about {progress.duration(left)} left" if left else ""
        progress.plain_note(f"{row} {column}: {cell.words} ({number} of {total}{rest})")


@dataclass(frozen=True)
class _Watched:
    """A lane that tells what is done in it."""

    lane: Lane

    @property
    def name(self) -> str:
        return self.lane.name

    @property
    def title(self) -> str:
        return self.lane.title

    def image(self, step: Step) -> Image:
        busy(step.label, self.name, "building")
        try:
            return self.lane.image(step)
        except VerdictError as error:
            failed(step.label, self.name, str(error), "does not build")
            raise

    def run(self, image: Image, step: Step, *, again: bool = False) -> Run:
        busy(step.label, self.name, "running")
        run = self.lane.run(image, step, again=again)
        done(step.label, self.name, run, self.lane.judge)
        return run

    def judge(self, run: Run) -> dict[str, Verdict]:
        return self.lane.judge(run)

    def excuses(self, run: Run) -> dict[str, Failure]:
        return self.lane.excuses(run)

    def image_key(self, step: Step) -> str:
        return self.lane.image_key(step)

    def run_key(self, image: Image) -> str:
        return self.lane.run_key(image)

    def keeping(self, store: Store) -> Self:
        return replace(self, lane=self.lane.keeping(store))

    def narrowed(self, tests: Collection[str]) -> Lane | None:
        return self.lane.narrowed(tests)

    def runs_file(self, test: str, path: str) -> bool:
        return self.lane.runs_file(test, path)


def watched(lanes: Sequence[Lane]) -> list[Lane]:
    """Return the lanes, telling what is done in them."""
    return [_Watched(lane) for lane in lanes]
