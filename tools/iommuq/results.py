# SPDX-License-Identifier: GPL-2.0-only
"""What a run found, and the SQLite store that keeps it.

A run is one suite on one image.  It is written in two goes, when it begins and
when it has finished: one that was killed in between stays incomplete, and never
answers for a later run.  JSON is the form for other programs and machines.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

from iommuq.dirs import state_dir
from iommuq.errors import DiskFull, InfraError, UserError

#: Seconds to wait for another process that is writing.
BUSY_TIMEOUT = 30.0
# Bytes that a write-ahead log and its index may need at once.
_ROOM = 1 << 20
#: Version of the JSON form.
JSON_FORMAT = 1

# One tuple of statements for each version of the schema; PRAGMA user_version
# says how many a database has seen.  Append, never edit.
_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE runs (
            id TEXT PRIMARY KEY, base TEXT NOT NULL, patch TEXT NOT NULL, suite TEXT NOT NULL,
            key TEXT NOT NULL, kernel TEXT NOT NULL, guest TEXT NOT NULL,
            accelerator TEXT NOT NULL, started REAL NOT NULL, finished REAL
        )""",
        "CREATE INDEX runs_by_key ON runs (key, finished)",
        """CREATE TABLE results (
            run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
            position INTEGER NOT NULL, test TEXT NOT NULL,
            status TEXT NOT NULL CHECK (status IN ('pass', 'fail', 'skip', 'error')),
            duration REAL NOT NULL, message TEXT NOT NULL, log TEXT NOT NULL,
            PRIMARY KEY (run, position)
        ) WITHOUT ROWID""",
    ),
)


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
    """

    base: str
    patch: str
    suite: str
    test: str
    status: Status
    duration: float = 0.0
    message: str = ""
    log: str = ""


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


class Store:
    """The results of all runs of this user.

    Every call opens the database anew, so one store may be used from many threads
    and outlives a fork.

    :param path: the database; by default ``results.sqlite`` in the state directory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or state_dir() / "results.sqlite"

    def begin(self, run: Run) -> str:
        """Record that *run* has begun.

        :return: its id.
        :raises InfraError: the store cannot be written.
        """
        with self._open() as database:
            _insert_run(database, replace(run, finished=None))
        return run.id

    def finish(self, run: Run, results: Iterable[Result], finished: float | None = None) -> Run:
        """Record that *run* has finished, and all its results, or nothing at all.

        :param finished: seconds since the epoch; by default now.
        :return: the complete run.
        :raises InfraError: the store cannot be written, or the run has finished before.
        """
        when = time.time() if finished is None else finished
        done = replace(run, finished=when, results=tuple(results))
        self.add(done)
        return done

    def add(self, run: Run) -> None:
        """Record a complete run, say one that came as JSON.

        :raises InfraError: as for `finish`.
        """
        with self._open() as database:
            # The row is there already unless the store was removed meanwhile.
            if _insert_run(database, run) == 0:
                raise InfraError(f"run {run.id} is in {self.path} already")
            database.executemany(
                "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        run.id,
                        position,
                        _storable(result.test),
                        result.status.value,
                        result.duration,
                        _storable(result.message),
                        _storable(result.log),
                    )
                    for position, result in enumerate(run.results)
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
        with self._open("DEFERRED") as database:
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
        with self._open("DEFERRED") as database:
            row = database.execute(f"SELECT * FROM runs WHERE {where}", (value,)).fetchone()
            if row is None:
                return None
            run = Run(**dict(row))
            rows = database.execute(
                "SELECT test, status, duration, message, log FROM results"
                " WHERE run = ? ORDER BY position",
                (run.id,),
            )
            return replace(run, results=tuple(_result(run, dict(row)) for row in rows))

    @contextlib.contextmanager
    def _open(self, mode: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """Open the database, and commit at the end of the block if nothing was raised."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None)
            with contextlib.closing(database):
                database.row_factory = sqlite3.Row
                database.execute("PRAGMA foreign_keys = ON")
                self._migrate(database)
                with _transaction(database, mode):
                    yield database
        except OSError as error:
            raise InfraError(
                f"{self.path}: {error.strerror}", hint="IOMMUQ_STATE_DIR names another place"
            ) from error
        except sqlite3.Error as error:
            self._explain(error)

    def _migrate(self, database: sqlite3.Connection) -> None:
        known = len(_MIGRATIONS)
        version: int = database.execute("PRAGMA user_version").fetchone()[0]
        if version < known:
            _use_wal(database)
            # Another process may be at it too: look again with the write lock held.
            with _transaction(database, "IMMEDIATE"):
                version = database.execute("PRAGMA user_version").fetchone()[0]
                for statements in _MIGRATIONS[version:]:
                    for statement in statements:
                        database.execute(statement)
                if version < known:
                    database.execute(f"PRAGMA user_version = {known}")
        if version > known:
            raise InfraError(
                f"{self.path} was written by a newer iommuq (schema {version}, known: {known})",
                hint="update this one, or set IOMMUQ_STATE_DIR to another place",
            )

    def _has_no_room(self) -> bool:
        with contextlib.suppress(OSError):
            return shutil.disk_usage(self.path.parent).free < _ROOM
        return False

    def _explain(self, error: sqlite3.Error) -> NoReturn:
        """Raise what SQLite's error means for the user."""
        # Extended codes have the plain code in their low byte.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        # With no room for its files of other kinds, SQLite speaks of an I/O error.
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and self._has_no_room()):
            raise DiskFull(
                f"{self.path}: no room left", hint="`iommuq doctor` shows the room"
            ) from error
        hints = {
            sqlite3.SQLITE_NOTADB: "move it away; runs will be made again",
            sqlite3.SQLITE_CORRUPT: "move it away; runs will be made again",
            sqlite3.SQLITE_BUSY: "another iommuq is writing; try again when it is done",
            sqlite3.SQLITE_READONLY: "make it writable, or set IOMMUQ_STATE_DIR",
            sqlite3.SQLITE_CANTOPEN: "make its directory writable, or set IOMMUQ_STATE_DIR",
        }
        hint = hints.get(code, "move it away if this stays so; runs will be made again")
        raise InfraError(f"{self.path}: {error}", hint=hint) from error


def _use_wal(database: sqlite3.Connection) -> None:
    """Switch to write-ahead logging, so that readers need not wait for a writer.

    SQLite does not apply its busy timeout to this switch.
    """
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
        # SQLite may have rolled back by itself, when the disk is full for one.
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _storable(text: str) -> str:
    """Return *text* without lone surrogates, which SQLite cannot store as UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _insert_run(database: sqlite3.Connection, run: Run) -> int:
    """Insert *run*, or finish the row that is there; return the number of rows written."""
    cursor = database.execute(
        "INSERT INTO runs (id, base, patch, suite, key, kernel, guest, accelerator, started,"
        " finished) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET finished = excluded.finished"
        " WHERE runs.finished IS NULL AND excluded.finished IS NOT NULL",
        (
            *map(_storable, (run.id, run.base, run.patch, run.suite, run.key)),
            *map(_storable, (run.kernel, run.guest, run.accelerator)),
            run.started,
            run.finished,
        ),
    )
    return cursor.rowcount


def _result(run: Run, fields: Mapping[str, Any]) -> Result:
    """Make a result of *run* from its own fields; the others are the run's."""
    status = Status(fields["status"])
    return Result(**{**fields, "status": status}, base=run.base, patch=run.patch, suite=run.suite)


def to_json(run: Run) -> str:
    """Return *run* as JSON."""
    fields = asdict(run)
    for result in fields["results"]:
        for shared in ("base", "patch", "suite"):
            del result[shared]
    return json.dumps({"format": JSON_FORMAT, "run": fields}, indent=1) + "\n"


_RUN_FIELDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(
        ("id", "base", "patch", "suite", "key", "kernel", "guest", "accelerator"), (str,)
    ),
    "started": (int, float),
    "finished": (int, float, type(None)),
    "results": (list,),
}
_RESULT_FIELDS: Mapping[str, tuple[type, ...]] = {
    "test": (str,),
    "status": (str,),
    "duration": (int, float),
    "message": (str,),
    "log": (str,),
}


def from_json(text: str, *, name: str = "JSON") -> Run:
    """Read what `to_json` wrote.

    :param name: what to call the text in errors, say its file name.
    :raises UserError: it is not a run, with the place of the mistake.
    """
    try:
        data = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: not JSON: {error}") from error
    if not isinstance(data, dict) or "run" not in data:
        raise UserError(f"{name}: not a run of iommuq")
    if data.get("format") != JSON_FORMAT:
        raise UserError(
            f"{name}: format {data.get('format')!r} is not known", hint=f"{JSON_FORMAT} is"
        )
    fields = _checked(data["run"], _RUN_FIELDS, f"{name}: run")
    entries = fields.pop("results")
    run = Run(**fields)
    results = []
    for number, entry in enumerate(entries):
        where = f"{name}: result {number}"
        checked = _checked(entry, _RESULT_FIELDS, where)
        if checked["status"] not in list(Status):
            raise UserError(f"{where}: status {checked['status']!r} is none of {', '.join(Status)}")
        results.append(_result(run, checked))
    return replace(run, results=tuple(results))


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not allowed")


def _checked(value: object, fields: Mapping[str, tuple[type, ...]], where: str) -> dict[str, Any]:
    """Return *value* if it is an object with just these fields."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: not an object")
    if missing := fields.keys() - value.keys():
        raise UserError(f"{where}: {min(missing)} is missing")
    if unknown := value.keys() - fields.keys():
        raise UserError(f"{where}: {min(unknown)!r} is not known")
    for key, types in fields.items():
        # bool is an int to Python, and never meant here.
        if not isinstance(value[key], types) or isinstance(value[key], bool):
            raise UserError(f"{where}: {key} has the wrong type")
        # Numbers beyond a double, such as 1e999, cannot be stored.
        if isinstance(value[key], int | float) and abs(value[key]) > sys.float_info.max:
            raise UserError(f"{where}: {key} is too large")
    return value
