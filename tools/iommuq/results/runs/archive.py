# SPDX-License-Identifier: GPL-2.0-only
"""The records in the store: begun, filled cell by cell, finished; else incomplete.

A cell refers to the run of a suite, which may be reused: results are stored once."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from iommuq.results.database import Database, storable
from iommuq.results.known import Verdict
from iommuq.results.runs.model import (
    CellRecord,
    CommandRun,
    Head,
    Known,
    Splat,
    State,
    StepRecord,
    Test,
    Timing,
)
from iommuq.results.store import Status, SuiteRun, read_run
from iommuq.system.errors import InfraError

_PLAIN = {
    Status.PASS: Verdict.OK,
    Status.FAIL: Verdict.FAILED,
    Status.SKIP: Verdict.SKIPPED,
    Status.ERROR: Verdict.ERROR,
}


def plain_verdict(status: Status) -> Verdict:
    """Return the verdict on a test that is not listed as a known failure."""
    return _PLAIN[status]


@dataclass(frozen=True)
class Filled:
    """A cell to be stored; see `iommuq.results.runs.recorder.Recorder.cell`."""

    step: str
    lane: str
    run: SuiteRun | None = None
    failure: str = ""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    known: Mapping[str, Known] = field(default_factory=dict)
    warnings: Sequence[str] | None = None
    added: Sequence[str] = ()


@dataclass(frozen=True)
class Summary:
    """A line of the list of runs."""

    id: str
    command: str
    base: str
    state: State
    started: float
    finished: float | None
    exit_code: int | None


def this_process() -> str:
    """Return a word that no other process of this machine has or had."""
    return f"{os.getpid()} {_birth(os.getpid())}"


def _birth(pid: int) -> str:
    """Return the boot and the tick at which a process started; empty: no such process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Field 22, starttime, counted after the name, which may contain spaces: proc(5).
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
    return f"{boot} {ticks}"


def _is_alive(process: str) -> bool:
    pid, _, birth = process.partition(" ")
    return bool(birth) and pid.isdigit() and _birth(int(pid)) == birth


class Archive(Database):
    """The records, in the same file as `iommuq.results.store.Store`."""

    def begin(self, record: CommandRun, process: str | None = None) -> None:
        """Record the begin of a run.

        :param process: a run is incomplete after the end of this process; by default this one.
        """
        process = this_process() if process is None else process
        command, base = storable(record.command), storable(record.base)
        with self.open() as database:
            database.execute(
                "INSERT INTO records (id, command, base, process, started, head)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (record.id, command, base, process, record.started, _head_json(record.head)),
            )

    def describe(self, record_id: str, head: Head) -> None:
        """Update the head of a run."""
        with self.open() as database:
            database.execute(
                "UPDATE records SET head = ? WHERE id = ?", (_head_json(head), record_id)
            )

    def put(self, record_id: str, position: int, cell: Filled, started: float) -> None:
        """Store a cell, or replace the one at that position.

        :param started: begin of the record; an older run was reused.
        """
        run = cell.run
        data = {
            "failure": cell.failure,
            "verdicts": {
                result.test: cell.verdicts[result.test].value
                for result in (run.results if run else ())
                if result.test in cell.verdicts
                and cell.verdicts[result.test] is not _PLAIN[result.status]
            },
            "known": {test: asdict(known) for test, known in cell.known.items()},
            "warnings": None if cell.warnings is None else sorted(cell.warnings),
            "added": list(cell.added),
            "reused": run is not None and run.started < started,
        }
        texts = map(storable, (cell.step, cell.lane, json.dumps(data, ensure_ascii=False)))
        with self.open() as database:
            # The run is NULL if it is not in the store.
            database.execute(
                "INSERT OR REPLACE INTO cells (record, position, run, step, lane, data)"
                " VALUES (?, ?, (SELECT id FROM runs WHERE id = ?), ?, ?, ?)",
                (record_id, position, run.id if run else None, *texts),
            )

    def finish(
        self, record_id: str, head: Head, timings: Sequence[Timing], finished: float, exit_code: int
    ) -> None:
        """Record the end of a run."""
        with self.open() as database:
            database.execute("DELETE FROM timings WHERE record = ?", (record_id,))
            database.executemany(
                "INSERT INTO timings (record, position, title, depth, started, seconds,"
                " outcome, log) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        record_id, position, storable(one.title), one.depth, one.started,
                        one.seconds, one.outcome, storable(one.log),
                    )
                    for position, one in enumerate(timings)
                ),
            )  # fmt: skip
            database.execute(
                "UPDATE records SET head = ?, finished = ?, exit_code = ? WHERE id = ?",
                (_head_json(head), finished, exit_code, record_id),
            )

    def summaries(self, limit: int | None = None) -> list[Summary]:
        """Return the runs, the newest first; a run of a suite without a record is one, too."""
        with self.open("DEFERRED") as database:
            rows = database.execute(
                "SELECT id, command, base, process, started, finished, exit_code FROM records"
                " UNION ALL"
                " SELECT id, suite || ' ' || base || ' --at ' || patch, base, '', started,"
                " finished, NULL FROM runs WHERE record = ''"
                " ORDER BY started DESC, id DESC LIMIT ?",
                (-1 if limit is None else limit,),
            ).fetchall()
        return [
            Summary(key, command, base, _state(finished, process), started, finished, code)
            for key, command, base, process, started, finished, code in rows
        ]

    def load(self, record_id: str) -> CommandRun | None:
        """Return the run with this id.

        :raises InfraError: it is damaged.
        """
        with self.open("DEFERRED") as database:
            row = database.execute(
                "SELECT id, command, base, process, started, finished, exit_code, head"
                " FROM records WHERE id = ?",
                (record_id,),
            ).fetchone()
            if row is None:
                run = database.execute("SELECT * FROM runs WHERE id = ?", (record_id,)).fetchone()
                return None if run is None else of_run(read_run(database, run))
            cells = database.execute(
                "SELECT * FROM cells WHERE record = ? ORDER BY position", (record_id,)
            ).fetchall()
            cut = database.execute(
                "SELECT * FROM runs WHERE record = ? AND finished IS NULL AND id NOT IN"
                " (SELECT run FROM cells WHERE record = ? AND run IS NOT NULL) ORDER BY started",
                (record_id, record_id),
            ).fetchall()
            timings = database.execute(
                "SELECT title, depth, started, seconds, outcome, log FROM timings"
                " WHERE record = ? ORDER BY position",
                (record_id,),
            ).fetchall()
            try:
                filled = [_cell(database, cell) for cell in cells]
                # Runs that were in progress when the process was killed.
                filled += [_of(read_run(database, run)) for run in cut]
                key, command, base, process, started, finished, code, head = row
                return CommandRun(
                    key, command, base, _state(finished, process), started, finished, code,
                    _head(head), tuple(filled), tuple(Timing(**dict(one)) for one in timings),
                )  # fmt: skip
            except (ValueError, TypeError, KeyError) as error:
                raise InfraError(
                    f"{self.path}: run {record_id} is damaged: {error}",
                    hint="run the command again; other runs are not affected",
                ) from error

    def durations(self, cell: CellRecord, base: str, limit: int) -> dict[str, list[float]]:
        """Return the durations in seconds of a cell's tests in earlier runs, by test.

        The empty name is the run as a whole.  Only complete runs of the same base, suite,
        guest and accelerator count.

        :param limit: number of runs, the newest ones before the cell's.
        """
        found: dict[str, list[float]] = {}
        with self.open("DEFERRED") as database:
            runs = database.execute(
                "SELECT id, finished - started AS seconds FROM runs WHERE base = ? AND suite = ?"
                " AND guest = ? AND accelerator = ? AND started < ? AND id != ?"
                " AND finished IS NOT NULL ORDER BY started DESC LIMIT ?",
                (base, cell.lane, cell.guest, cell.accelerator, cell.started, cell.run, limit),
            ).fetchall()
            for run in runs:
                found.setdefault("", []).append(run["seconds"])
                for result in database.execute(
                    "SELECT test, duration FROM results WHERE run = ?", (run["id"],)
                ):
                    found.setdefault(result["test"], []).append(result["duration"])
        return found

    def step_durations(self, before: float, limit: int) -> dict[str, list[float]]:
        """Return the durations in seconds of the steps of earlier runs, by title.

        :param before: only runs that began before this time.
        :param limit: number of durations of each title, the newest ones.
        """
        found: dict[str, list[float]] = {}
        with self.open("DEFERRED") as database:
            rows = database.execute(
                "SELECT title, seconds FROM timings JOIN records ON records.id = timings.record"
                " WHERE records.started < ? AND outcome = '' ORDER BY records.started DESC",
                (before,),
            )
            for row in rows:
                times = found.setdefault(row["title"], [])
                if len(times) < limit:
                    times.append(row["seconds"])
        return found


def of_run(run: SuiteRun) -> CommandRun:
    """Return the record of a single run of a suite."""
    cell = _of(run)
    bad = any(test.verdict.fails for test in cell.tests)
    lost = any(test.verdict is Verdict.ERROR for test in cell.tests)
    command = f"{run.suite} {run.base} --at {run.patch}"
    state = State.FINISHED if run.complete else State.INCOMPLETE
    code = (1 if bad else 3 if lost else 0) if run.complete else None
    head = Head(title=f"Linux {run.kernel}, {run.suite}", kernel=run.kernel)
    return CommandRun(
        run.id, command, run.base, state, run.started, run.finished, code, head, (cell,)
    )


def _state(finished: float | None, process: str) -> State:
    if finished is not None:
        return State.FINISHED
    return State.RUNNING if _is_alive(process) else State.INCOMPLETE


def _of(run: SuiteRun, data: Mapping[str, Any] | None = None) -> CellRecord:
    data = data or {}
    verdicts = data.get("verdicts", {})
    known = {test: Known(**entry) for test, entry in data.get("known", {}).items()}
    tests = (
        Test(
            one.test, one.status, Verdict(verdicts.get(one.test, _PLAIN[one.status])),
            one.duration, one.message, one.log, one.answer, known.get(one.test),
        )
        for one in run.results
    )  # fmt: skip
    return CellRecord(
        run.patch, run.suite, run.id, bool(data.get("reused", False)), run.kernel, run.guest,
        run.accelerator, run.started, run.finished, tests=tuple(tests),
        splats=tuple(Splat(**asdict(splat)) for splat in run.splats), image=run.image,
    )  # fmt: skip


def _cell(database: sqlite3.Connection, row: sqlite3.Row) -> CellRecord:
    data = json.loads(row["data"])
    run = database.execute("SELECT * FROM runs WHERE id = ?", (row["run"],)).fetchone()
    cell = CellRecord("", "") if run is None else _of(read_run(database, run), data)
    return replace(
        cell,
        step=row["step"],
        lane=row["lane"],
        failure=data["failure"],
        warnings=None if data["warnings"] is None else tuple(data["warnings"]),
        added=tuple(data["added"]),
    )


def _head_json(head: Head) -> str:
    return storable(json.dumps(asdict(head), ensure_ascii=False))


def _head(text: str) -> Head:
    fields = json.loads(text)
    fields["steps"] = tuple(
        StepRecord(**{**step, "accepted": tuple(step["accepted"])}) for step in fields["steps"]
    )
    for key in ("findings", "errors"):
        fields[key] = tuple(fields[key])
    fields["versions"] = tuple((name, value) for name, value in fields["versions"])
    return Head(**fields)
