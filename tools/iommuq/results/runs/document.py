# SPDX-License-Identifier: GPL-2.0-only
"""Runs as JSON, and the run that the user means: ``last``, ``last~2``, an id, or a file."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from iommuq.results.runs.archive import Archive
from iommuq.results.runs.model import FORMAT, Record
from iommuq.system.errors import UserError

LAST = "last"
_BACK = re.compile(r"last(?:~(\d{1,6}))?")
_HINT = "`iommuq runs list` shows them"
#: Bytes of a file that are read; a run of 50,000 tests has a tenth of that.
_LARGEST = 512 << 20


def is_file(word: str) -> bool:
    """Tell whether a word means a file, and not a run in the store."""
    # An id is no path, but for a file that somebody called like one.
    return word.endswith(".json") or "/" in word


def pick(word: str, archive: Archive | None = None) -> Record:
    """Return the run that a word means.

    :param word: ``last``, ``last~N`` for the Nth before it, an id or the begin of one, or
        the path of a run's JSON.
    :raises UserError: there is no such run, or the word could mean several.
    """
    if is_file(word):
        return _from_file(Path(word))
    archive = archive or Archive()
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
        raise UserError(f"{word!r} could be any of {len(found)} runs", hint=_HINT)
    record = archive.load(found[0])
    if record is None:
        raise UserError(f"run {found[0]} is gone", hint=_HINT)
    return record


def _from_file(path: Path) -> Record:
    try:
        if path.stat().st_size > _LARGEST:
            raise UserError(f"{path}: larger than any run can be")
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    return from_json(text, name=str(path))


#: Where the schema is published, below the checkout.
SCHEMA = "docs/generated/results.schema.json"
#: The year 10000, which no calendar of Python's reaches, in seconds since the epoch.
_END = 253402300800.0


def to_data(record: Record) -> dict[str, Any]:
    """Return a run as plain data."""
    # Enumerations become their values on the way.
    return {"format": FORMAT, "run": asdict(record)}


def to_json(record: Record) -> str:
    """Return a run as JSON, indented."""
    return json.dumps(to_data(record), indent=1, default=lambda value: value.value) + "\n"


def from_json(text: str | bytes, *, name: str = "JSON") -> Record:
    """Read what `to_json` wrote.

    :param name: what to call the text in errors, say its file name.
    :raises UserError: it is not a run, with the place of the mistake.
    """
    # Here and not above: it takes longer to import than most commands to run.
    from pydantic import TypeAdapter, ValidationError

    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: not JSON: {error}") from error
    if not isinstance(data, dict) or "run" not in data:
        raise UserError(f"{name}: not a run of iommuq")
    if data.get("format") != FORMAT:
        raise UserError(f"{name}: format {data.get('format')!r} is not known", hint=f"{FORMAT} is")
    try:
        # Strictly, as JSON: a number is no text, and a list stands for a tuple.
        record = TypeAdapter(Record).validate_json(json.dumps(data["run"]), strict=True)
    except (ValidationError, RecursionError) as error:
        if isinstance(error, RecursionError):
            raise UserError(f"{name}: nested too deeply") from error
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "run"
        raise UserError(f"{name}: {place}: {first['msg']}") from error
    times = [record.started, record.finished]
    times += [when for cell in record.cells for when in (cell.started, cell.finished)]
    for when in times:
        if when is not None and not 0.0 <= when < _END:
            raise UserError(f"{name}: {when:g} seconds since 1970 are no date of a run")
    return record


def schema() -> dict[str, Any]:
    """Return the JSON schema of the form; `SCHEMA` is this, published."""
    from pydantic import TypeAdapter

    run = TypeAdapter(Record).json_schema(ref_template="#/$defs/{model}")
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


def schema_text() -> str:
    """Return the schema as the file has it."""
    return json.dumps(schema(), indent=1) + "\n"
