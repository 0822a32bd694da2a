# SPDX-License-Identifier: GPL-2.0-only
"""Open the SQLite database of the store, update its schema, explain its errors."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import NoReturn

from iommuq.system.errors import DiskFull, InfraError
from iommuq.system.files import state_dir

_SCHEMA = tomllib.loads(resources.files(__package__).joinpath("schema.toml").read_text("utf-8"))
#: The statements of each version of ``schema.toml``.
MIGRATIONS = tuple(tuple(version["statements"]) for version in _SCHEMA["version"])
#: Seconds to wait for another process that is writing.
BUSY_TIMEOUT = 30.0
# Bytes that a write-ahead log and its index may need.
_ROOM = 1 << 20


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
                f"{self.path}: {error.strerror}", hint="set IOMMUQ_STATE_DIR to another directory"
            ) from error
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
