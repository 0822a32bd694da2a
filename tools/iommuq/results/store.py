# SPDX-License-Identifier: GPL-2.0-only
"""Runs, each of one suite on one image, and the SQLite store that keeps them.

A run is written when it begins and when it ends; a killed one stays incomplete, unused."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

from iommuq.system.errors import DiskFull, InfraError, os_errors_as
from iommuq.system.files import state_dir
from iommuq.system.tables import own_table

_SCHEMA = own_table(__package__, "schema.toml")
#: The statements of each version of ``schema.toml``.
MIGRATIONS = tuple(tuple(version["statements"]) for version in _SCHEMA["version"])
#: Seconds to wait for another process that is writing.
BUSY_TIMEOUT = 30.0
# Bytes that a write-ahead log and its index may need.
_ROOM = 1 << 20
_current_record = ""


class Database:
    """A file of results; every call opens it, so threads and forks may share an object.

    :param path: the file; by default ``results.sqlite`` in the state directory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or state_dir() / "results.sqlite"

    @contextlib.contextmanager
    def open(self, mode: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """Open the database, and commit at the end of the block if nothing was raised.

        :param mode: ``IMMEDIATE`` to write, ``DEFERRED`` for a consistent read.
        :raises InfraError: it is locked, damaged, newer than this iommuq, or not writable.
        """
        hint = "set IOMMUQ_STATE_DIR to another directory"
        try:
            with os_errors_as(InfraError, self.path, hint=hint):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                database = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None)
                with contextlib.closing(database):
                    database.row_factory = sqlite3.Row
                    database.execute("PRAGMA foreign_keys = ON")
                    self._migrate(database)
                    with _transaction(database, mode):
                        yield database
        except sqlite3.Error as error:
            self._explain(error)

    def _migrate(self, database: sqlite3.Connection) -> None:
        known = len(MIGRATIONS)
        version: int = database.execute("PRAGMA user_version").fetchone()[0]
        if version < known:
            _use_wal(database)
            # Check again under the write lock: another process may have migrated it.
            with _transaction(database, "IMMEDIATE"):
                version = database.execute("PRAGMA user_version").fetchone()[0]
                for statements in MIGRATIONS[version:]:
                    for statement in statements:
                        database.execute(statement)
                if version < known:
                    database.execute(f"PRAGMA user_version = {known}")
        if version > known:
            raise InfraError(
                f"{self.path} was written by a newer iommuq (schema {version}, known: {known})",
                hint="update iommuq, or set IOMMUQ_STATE_DIR to another directory",
            )

    def _has_no_room(self) -> bool:
        with contextlib.suppress(OSError):
            return shutil.disk_usage(self.path.parent).free < _ROOM
        return False

    def _explain(self, error: sqlite3.Error) -> NoReturn:
        """Raise SQLite's error with a hint."""
        # Extended codes have the plain code in their low byte.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        # On a full disk SQLite may also report an I/O error.
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and self._has_no_room()):
            what = f"{self.path}: no room left"
            raise DiskFull(what, hint="`iommuq doctor` shows the free space") from error
        hints = {
            sqlite3.SQLITE_NOTADB: "move it away; tests will run again",
            sqlite3.SQLITE_CORRUPT: "move it away; tests will run again",
            sqlite3.SQLITE_BUSY: "another iommuq is writing; try again later",
            sqlite3.SQLITE_READONLY: "make it writable, or set IOMMUQ_STATE_DIR",
            sqlite3.SQLITE_CANTOPEN: "make its directory writable, or set IOMMUQ_STATE_DIR",
        }
        hint = hints.get(code, "if the error persists, move it away; tests will run again")
        raise InfraError(f"{self.path}: {error}", hint=hint) from error


def _use_wal(database: sqlite3.Connection) -> None:
    """Switch to write-ahead logging; SQLite does not apply its busy timeout to this."""
    deadline = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection, mode: str) -> Iterator[None]:
    database.execute(f"BEGIN {mode}")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        # SQLite may have rolled back itself, as when the disk is full.
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def storable(text: str) -> str:
    """Return *text* without lone surrogates, which SQLite cannot store as UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def insert(
    database: sqlite3.Connection, table: str, row: Mapping[str, Any], conflict: str = ""
) -> int:
    """Insert a row, and return the number of rows written.

    :param row: its values, by column.
    :param conflict: the clause for a row that is there already.
    """
    values = {key: storable(one) if isinstance(one, str) else one for key, one in row.items()}
    columns = f"({', '.join(values)}) VALUES ({', '.join(f':{key}' for key in values)})"
    return database.execute(f"INSERT INTO {table} {columns}{conflict}", values).rowcount


def belong_to(record: str) -> None:
    """Assign the runs that begin from now on to the record of this id; empty: to none."""
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
    :ivar duration: in seconds; 0: not measured.
    :ivar log: path of the full log.
    :ivar answer: a firmware check's step and how it ended, also if it passed.
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
    """A splat in the console of a run, as it is stored.

    :ivar test: the test during which it occurred; empty: outside of all tests.
    :ivar kind: as in the rules, ``WARNING``.
    :ivar title: the line that names the problem.
    :ivar text: the whole report, with decoded stack if the image has symbols.
    :ivar line: number of its first line in the log, from 1; 0: unknown.
    :ivar expected: the test announced it.
    """

    test: str
    kind: str
    title: str
    text: str
    log: str = ""
    line: int = 0
    expected: bool = False


@dataclass(frozen=True)
class SuiteRun:
    """One suite on one image.

    :ivar id: from `new_id`.
    :ivar key: content key of all that the results depend on.
    :ivar kernel: release of the kernel, such as ``6.12.117``.
    :ivar guest: ``um`` or ``qemu``.
    :ivar accelerator: ``native``, ``kvm`` or ``tcg``.
    :ivar started: seconds since the epoch.
    :ivar finished: seconds since the epoch; None: incomplete.
    :ivar image: sha256 of the kernel that was booted; empty: unknown.
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
    image: str = ""

    def __post_init__(self) -> None:
        for result in self.results:
            if (result.base, result.patch, result.suite) != (self.base, self.patch, self.suite):
                raise ValueError(f"{result.test}: not a result of run {self.id}")

    @property
    def complete(self) -> bool:
        """Whether the run has finished."""
        return self.finished is not None

    @property
    def has_errors(self) -> bool:
        """Whether a test has no verdict, so that running it again may help."""
        return any(result.status is Status.ERROR for result in self.results)


def new_id(started: float) -> str:
    """Return a new id of a run that started at this time, in seconds since the epoch."""
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(started)) + "-" + secrets.token_hex(4)


class Store(Database):
    """The results of all runs of this user."""

    def begin(self, run: SuiteRun) -> str:
        """Record that *run* has begun.

        :return: its id.
        :raises InfraError: the store cannot be written.
        """
        with self.open() as database:
            _insert_run(database, replace(run, finished=None))
        return run.id

    def finish(
        self,
        run: SuiteRun,
        results: Iterable[Result],
        finished: float | None = None,
        splats: Iterable[Complaint] = (),
    ) -> SuiteRun:
        """Record the end of *run* and all its results, in one transaction.

        :param finished: seconds since the epoch; by default now.
        :return: the complete run.
        :raises InfraError: the store cannot be written, or the run has finished before.
        """
        when = time.time() if finished is None else finished
        done = replace(run, finished=when, results=tuple(results), splats=tuple(splats))
        self.add(done)
        return done

    def add(self, run: SuiteRun) -> None:
        """Record a complete run.

        :raises InfraError: as for `finish`.
        """
        with self.open() as database:
            if _insert_run(database, run) == 0:
                raise InfraError(f"run {run.id} is in {self.path} already")
            for position, one in enumerate(run.results):
                fields = asdict(one)
                del fields["base"], fields["patch"], fields["suite"]
                insert(database, "results", {"run": run.id, "position": position, **fields})
            for position, splat in enumerate(run.splats):
                insert(database, "splats", {"run": run.id, "position": position, **asdict(splat)})

    def find(self, key: str) -> SuiteRun | None:
        """Return the newest complete run with this content key, if there is one.

        :raises InfraError: the store cannot be read.
        """
        return next(iter(self.history(key, 1)), None)

    def history(self, key: str, limit: int) -> list[SuiteRun]:
        """Return the newest complete runs with this content key, the newest first.

        :raises InfraError: the store cannot be read.
        """
        with self.open("DEFERRED") as database:
            rows = database.execute(
                "SELECT * FROM runs WHERE key = ? AND finished IS NOT NULL"
                " ORDER BY finished DESC, id DESC LIMIT ?",
                (key, limit),
            ).fetchall()
            return [read_run(database, row) for row in rows]

    def get(self, run_id: str) -> SuiteRun | None:
        """Return the run with this id, complete or not.

        :raises InfraError: the store cannot be read.
        """
        with self.open("DEFERRED") as database:
            row = database.execute("SELECT * FROM runs WHERE id = ?", (run_id,)).fetchone()
            return None if row is None else read_run(database, row)


def read_run(database: sqlite3.Connection, row: sqlite3.Row) -> SuiteRun:
    """Return the run of a row of ``runs``, with its results and splats."""
    run = SuiteRun(**{field: row[field] for field in row.keys() if field != "record"})  # noqa: SIM118
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
    fields = ({**dict(row), "expected": bool(row["expected"])} for row in splats)
    place = (run.base, run.patch, run.suite)
    return replace(
        run,
        results=tuple(
            Result(*place, test, Status(status), *others) for test, status, *others in results
        ),
        splats=tuple(Complaint(**one) for one in fields),
    )


def _insert_run(database: sqlite3.Connection, run: SuiteRun) -> int:
    """Insert *run*, or finish its row; return the number of rows written."""
    fields = {name: value for name, value in vars(run).items() if name not in ("results", "splats")}
    finish = (
        " ON CONFLICT (id) DO UPDATE SET finished = excluded.finished,"
        " accelerator = excluded.accelerator"
        " WHERE runs.finished IS NULL AND excluded.finished IS NOT NULL"
    )
    return insert(database, "runs", {**fields, "record": _current_record}, finish)
