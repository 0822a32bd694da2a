# SPDX-License-Identifier: GPL-2.0-only
"""The records in the store: begun, filled cell by cell, finished; else incomplete.

A cell refers to the run of a suite, which may be reused: results are stored once.
A run is found by ``last``, ``last~2``, an id, or a file with its JSON."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from iommuq.results.known import Verdict
from iommuq.results.runs.model import (
    FORMAT,
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
from iommuq.results.store import Database, Status, SuiteRun, insert, read_run, storable
from iommuq.system.errors import InfraError, UserError, os_errors_as

_PLAIN = {
    Status.PASS: Verdict.OK,
    Status.FAIL: Verdict.FAILED,
    Status.SKIP: Verdict.SKIPPED,
    Status.ERROR: Verdict.ERROR,
}
_BACK = re.compile(r"last(?:~(\d{1,6}))?")
_HINT = "`iommuq runs list` shows them"
#: Largest size of a file in bytes; 50,000 tests need a tenth of it.
_LARGEST = 512 << 20


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
        if process is None:
            process = f"{os.getpid()} {_birth(os.getpid())}"
        fields = {name: getattr(record, name) for name in ("id", "command", "base", "started")}
        head = _head_json(record.head)
        with self.open() as database:
            insert(database, "records", {**fields, "process": process, "head": head})

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
            for position, one in enumerate(timings):
                row = {"record": record_id, "position": position, **asdict(one)}
                insert(database, "timings", row)
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


def is_file(word: str) -> bool:
    """Return whether a word is the path of a file, not the id of a run."""
    return word.endswith(".json") or "/" in word


def pick(word: str) -> CommandRun:
    """Return the run for a word.

    :param word: ``last``, ``last~N`` for the Nth before it, an id or its begin, or a JSON file.
    :raises UserError: there is no such run, or there are several.
    """
    if is_file(word):
        path = Path(word)
        with os_errors_as(UserError, path):
            if path.stat().st_size > _LARGEST:
                raise UserError(f"{path}: larger than {_LARGEST >> 20} MiB: not a run")
            return from_json(path.read_bytes(), name=str(path))
    archive = Archive()
    if back := _BACK.fullmatch(word):
        number = int(back[1] or 0)
        runs = archive.summaries(number + 1)
        if not runs:
            raise UserError("there are no runs yet", hint="`iommuq run` makes one")
        if number >= len(runs):
            raise UserError(f"{word}: there are {len(runs)} runs", hint=_HINT)
        found = [runs[number].id]
    else:
        ids = [run.id for run in archive.summaries()]
        found = [word] if word in ids else [one for one in ids if word and one.startswith(word)]
    if not found:
        raise UserError(f"no run {word!r}", hint=_HINT)
    if len(found) > 1:
        raise UserError(f"{word!r} matches {len(found)} runs", hint=_HINT)
    record = archive.load(found[0])
    if record is None:
        raise UserError(f"run {found[0]} is no longer in the store", hint=_HINT)
    return record


#: The file with the schema, below the checkout.
SCHEMA = "docs/generated/results.schema.json"
#: The year 10000, beyond datetime's range, in seconds since the epoch.
_END = 253402300800.0


def to_json(record: CommandRun) -> str:
    """Return a run as JSON, indented."""
    data = {"format": FORMAT, "run": asdict(record)}
    return json.dumps(data, indent=1, default=lambda value: value.value) + "\n"


def from_json(text: str | bytes, *, name: str = "JSON") -> CommandRun:
    """Read what `to_json` wrote.

    :param name: the file, for messages.
    :raises UserError: it is not a run; the place is named.
    """
    # Imported here: it takes long.
    from pydantic import TypeAdapter, ValidationError

    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: not JSON: {error}") from error
    if not isinstance(data, dict) or "run" not in data:
        raise UserError(f"{name}: not a run of iommuq")
    if data.get("format") != FORMAT:
        raise UserError(f"{name}: unknown format {data.get('format')!r}", hint=f"{FORMAT} is known")
    try:
        # Not validate_python: in strict mode it takes no list for a tuple.
        record = TypeAdapter(CommandRun).validate_json(json.dumps(data["run"]), strict=True)
    except RecursionError as error:
        raise UserError(f"{name}: nested too deeply") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "run"
        raise UserError(f"{name}: {place}: {first['msg']}") from error
    times = [record.started, record.finished]
    times += [when for cell in record.cells for when in (cell.started, cell.finished)]
    for when in times:
        if when is not None and not 0.0 <= when < _END:
            raise UserError(f"{name}: {when:g} seconds since 1970 is not a valid date")
    return record


def schema() -> dict[str, Any]:
    """Return the JSON schema of the form."""
    from pydantic import TypeAdapter

    run = TypeAdapter(CommandRun).json_schema(ref_template="#/$defs/{model}")
    definitions = run.pop("$defs")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A run of iommuq",
        "type": "object",
        "properties": {"format": {"const": FORMAT}, "run": {"$ref": "#/$defs/Record"}},
        "required": ["format", "run"],
        "additionalProperties": False,
        "$defs": {**definitions, "Record": run},
    }
