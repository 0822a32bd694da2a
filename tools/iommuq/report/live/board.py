# SPDX-License-Identifier: GPL-2.0-only
"""The cells of the live table: state, results, and estimates from earlier durations."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from iommuq.results.events import Judge
from iommuq.results.known import Verdict
from iommuq.system import files

FILE = "durations.json"
#: Largest number of entries in the file.
MOST = 4000


def load_durations() -> dict[str, float]:
    """Return durations in seconds by name: ``<what>/<which>``; empty: the file is unreadable."""
    try:
        data = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(data, dict):
        return {}
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
    text = json.dumps(dict(list(kept.items())[-MOST:]), indent=0)
    path = _path()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, text.encode())


def _path() -> Path:
    return files.state_dir() / FILE


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
    """All cells, by names of rows and columns.

    :ivar title: the heading.
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
    def progress(self) -> tuple[int, int]:
        """Number of cells with a result, and of all cells."""
        cells = list(self.cells.values())
        return sum(cell.done for cell in cells), len(cells)

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
