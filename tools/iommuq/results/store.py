# SPDX-License-Identifier: GPL-2.0-only
"""What a run found, and the store that keeps it.

A run is one suite on one image.  It is written in two goes, when it begins and
when it has finished: one that was killed in between stays incomplete, and never
answers for a later run.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from iommuq.results.database import Database, storable
from iommuq.system.errors import InfraError

# The record that runs belong to which begin now; see `belong_to`.
_current_record = ""


def belong_to(record: str) -> None:
    """Have the runs that begin from now on name a record of this process as their maker.

    :param record: its id; empty for none.
    """
    global _current_record
    _current_record = record


class Status(StrEnum):
    """How a test ended."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"
    #: The infrastructure failed; says nothing about the code.
    ERROR = "error"


@dataclass(frozen=True)
class Result:
    """One test, run once.

    :ivar patch: label of the step that was tested, such as ``0001``.
    :ivar duration: seconds; 0 where nobody measured it.
    :ivar log: path of the full log.
    :ivar answer: what was seen, also if it is as it should be: a firmware check's step,
        and how it ended.
    """

    base: str
    patch: str
    suite: str
    test: str
    status: Status
    duration: float = 0.0
    message: str = ""
    log: str = ""
    answer: str = ""


@dataclass(frozen=True)
class Complaint:
    """A splat that the kernel of a run left in its console, as it is kept.

    :ivar test: the test that it fell in; empty if it fell in none.
    :ivar kind: as in the rules, ``WARNING``.
    :ivar title: the line that tells what it is.
    :ivar text: the whole report, its stack decoded as far as the image allows.
    :ivar line: number, from 1, of its first line in what was searched; 0 if unknown.
    :ivar expected: the test said that it would provoke it.
    """

    test: str
    kind: str
    title: str
    text: str
    log: str = ""
    line: int = 0
    expected: bool = False


@dataclass(frozen=True)
class Run:
    """One suite on one image.

    :ivar id: unique; `new_id` makes one.
    :ivar key: content key of all that decides the outcome.
    :ivar kernel: release of the kernel, such as ``6.12.117``.
    :ivar guest: ``um`` or ``qemu``.
    :ivar accelerator: ``native``, ``kvm`` or ``tcg``.
    :ivar started: seconds since the epoch.
    :ivar finished: the same, or None while the run is incomplete.
    """

    id: str
    base: str
    patch: str
    suite: str
    key: str
    kernel: str
    guest: str
    accelerator: str
    started: float
    finished: float | None = None
    results: tuple[Result, ...] = ()
    splats: tuple[Complaint, ...] = ()

    def __post_init__(self) -> None:
        for result in self.results:
            if (result.base, result.patch, result.suite) != (self.base, self.patch, self.suite):
                raise ValueError(f"{result.test}: is a result of another run than {self.id}")

    @property
    def complete(self) -> bool:
        """Whether the run came to its end."""
        return self.finished is not None

    @property
    def has_errors(self) -> bool:
        """Whether the infrastructure failed a test, so that running it again may help."""
        return any(result.status is Status.ERROR for result in self.results)


def new_id(started: float) -> str:
    """Make the id of a run; ids sort by time.

    :param started: seconds since the epoch.
    """
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(started)) + "-" + secrets.token_hex(4)


class Store(Database):
    """The results of all runs of this user."""

    def begin(self, run: Run) -> str:
        """Record that *run* has begun.

        :return: its id.
        :raises InfraError: the store cannot be written.
        """
        with self.open() as database:
            _insert_run(database, replace(run, finished=None))
        return run.id

    def finish(
        self,
        run: Run,
        results: Iterable[Result],
        finished: float | None = None,
        splats: Iterable[Complaint] = (),
    ) -> Run:
        """Record that *run* has finished, and all its results, or nothing at all.

        :param finished: seconds since the epoch; by default now.
        :param splats: what the kernel complained of.
        :return: the complete run.
        :raises InfraError: the store cannot be written, or the run has finished before.
        """
        when = time.time() if finished is None else finished
        done = replace(run, finished=when, results=tuple(results), splats=tuple(splats))
        self.add(done)
        return done

    def add(self, run: Run) -> None:
        """Record a complete run.

        :raises InfraError: as for `finish`.
        """
        with self.open() as database:
            # The row is there already unless the store was removed meanwhile.
            if _insert_run(database, run) == 0:
                raise InfraError(f"run {run.id} is in {self.path} already")
            database.executemany(
                "INSERT INTO results (run, position, test, status, duration, message, log,"
                " answer) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        run.id,
                        position,
                        storable(result.test),
                        result.status.value,
                        result.duration,
                        storable(result.message),
                        storable(result.log),
                        storable(result.answer),
                    )
                    for position, result in enumerate(run.results)
                ),
            )
            database.executemany(
                "INSERT INTO splats (run, position, test, kind, title, text, log, line, expected)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        run.id,
                        position,
                        *map(storable, (splat.test, splat.kind, splat.title, splat.text)),
                        storable(splat.log),
                        splat.line,
                        splat.expected,
                    )
                    for position, splat in enumerate(run.splats)
                ),
            )

    def find(self, key: str) -> Run | None:
        """Return the newest complete run with this content key, if there is one.

        :raises InfraError: the store cannot be read.
        """
        where = "key = ? AND finished IS NOT NULL ORDER BY finished DESC, id DESC LIMIT 1"
        return self._select(where, key)

    def history(self, key: str, limit: int) -> list[Run]:
        """Return the newest complete runs with this content key, the newest first.

        :raises InfraError: the store cannot be read.
        """
        with self.open("DEFERRED") as database:
            rows = database.execute(
                "SELECT id FROM runs WHERE key = ? AND finished IS NOT NULL"
                " ORDER BY finished DESC, id DESC LIMIT ?",
                (key, limit),
            ).fetchall()
        runs = (self.get(row["id"]) for row in rows)
        return [run for run in runs if run is not None]

    def get(self, run_id: str) -> Run | None:
        """Return the run with this id, complete or not.

        :raises InfraError: the store cannot be read.
        """
        return self._select("id = ?", run_id)

    def _select(self, where: str, value: str) -> Run | None:
        # One read transaction: a run and its results are of the same moment.
        with self.open("DEFERRED") as database:
            row = database.execute(f"SELECT * FROM runs WHERE {where}", (value,)).fetchone()
            return None if row is None else read_run(database, row)


def read_run(database: sqlite3.Connection, row: sqlite3.Row) -> Run:
    """Return the run of a row of ``runs``, with its results and splats."""
    run = Run(**{field: row[field] for field in row.keys() if field != "record"})  # noqa: SIM118
    results = database.execute(
        "SELECT test, status, duration, message, log, answer FROM results"
        " WHERE run = ? ORDER BY position",
        (run.id,),
    )
    splats = database.execute(
        "SELECT test, kind, title, text, log, line, expected FROM splats"
        " WHERE run = ? ORDER BY position",
        (run.id,),
    )
    return replace(
        run,
        results=tuple(_result(run, dict(fields)) for fields in results),
        splats=tuple(
            Complaint(**{**dict(fields), "expected": bool(fields["expected"])}) for fields in splats
        ),
    )


def _insert_run(database: sqlite3.Connection, run: Run) -> int:
    """Insert *run*, or finish the row that is there; return the number of rows written."""
    cursor = database.execute(
        "INSERT INTO runs (id, base, patch, suite, key, kernel, guest, accelerator, started,"
        " finished, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET finished = excluded.finished,"
        " accelerator = excluded.accelerator"
        " WHERE runs.finished IS NULL AND excluded.finished IS NOT NULL",
        (
            *map(storable, (run.id, run.base, run.patch, run.suite, run.key)),
            *map(storable, (run.kernel, run.guest, run.accelerator)),
            run.started,
            run.finished,
            _current_record,
        ),
    )
    return cursor.rowcount


def _result(run: Run, fields: Mapping[str, Any]) -> Result:
    """Make a result of *run* from its own fields; the others are the run's."""
    status = Status(fields["status"])
    return Result(**{**fields, "status": status}, base=run.base, patch=run.patch, suite=run.suite)
