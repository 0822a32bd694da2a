# SPDX-License-Identifier: GPL-2.0-only
"""The tables of the store; ``PRAGMA user_version`` is the number of applied versions.

Append versions, never edit one: databases of older versions must stay readable."""

from __future__ import annotations

#: One tuple of statements for each version.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
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
    (
        # The answer of a firmware check's step, also if it passed.
        "ALTER TABLE results ADD COLUMN answer TEXT NOT NULL DEFAULT ''",
        """CREATE TABLE splats (
            run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
            position INTEGER NOT NULL, test TEXT NOT NULL, kind TEXT NOT NULL,
            title TEXT NOT NULL, text TEXT NOT NULL, log TEXT NOT NULL, line INTEGER NOT NULL,
            expected INTEGER NOT NULL,
            PRIMARY KEY (run, position)
        ) WITHOUT ROWID""",
        # The record that made a run; empty for runs that are older than records.
        "ALTER TABLE runs ADD COLUMN record TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX runs_by_record ON runs (record)",
        # One call of a command.  `process` tells a running one from a killed one;
        # `head` is JSON, see iommuq.results.runs.model.Head.
        """CREATE TABLE records (
            id TEXT PRIMARY KEY, command TEXT NOT NULL, base TEXT NOT NULL,
            process TEXT NOT NULL, started REAL NOT NULL, finished REAL, exit_code INTEGER,
            head TEXT NOT NULL
        )""",
        # A step in a lane.  The run may be a reused one; `data` is JSON, see
        # iommuq.results.runs.archive.
        """CREATE TABLE cells (
            record TEXT NOT NULL REFERENCES records (id) ON DELETE CASCADE,
            position INTEGER NOT NULL, step TEXT NOT NULL, lane TEXT NOT NULL,
            run TEXT REFERENCES runs (id) ON DELETE SET NULL, data TEXT NOT NULL,
            PRIMARY KEY (record, position)
        ) WITHOUT ROWID""",
        "CREATE INDEX cells_by_run ON cells (run)",
        """CREATE TABLE timings (
            record TEXT NOT NULL REFERENCES records (id) ON DELETE CASCADE,
            position INTEGER NOT NULL, title TEXT NOT NULL, depth INTEGER NOT NULL,
            started REAL NOT NULL, seconds REAL NOT NULL, outcome TEXT NOT NULL,
            log TEXT NOT NULL,
            PRIMARY KEY (record, position)
        ) WITHOUT ROWID""",
        # For the history of durations.
        "CREATE INDEX runs_by_place ON runs (base, suite, guest, accelerator, started)",
        "CREATE INDEX timings_by_title ON timings (title)",
    ),
    # The sha256 of the kernel that was booted; empty for runs that are older than this.
    ("ALTER TABLE runs ADD COLUMN image TEXT NOT NULL DEFAULT ''",),
)
