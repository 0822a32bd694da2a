# SPDX-License-Identifier: GPL-2.0-only
"""Convert runs to and from JSON, and find a run by ``last``, ``last~2``, an id, or a file."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from iommuq.results.runs.archive import Archive
from iommuq.results.runs.model import FORMAT, CommandRun
from iommuq.system.errors import UserError

LAST = "last"
_BACK = re.compile(r"last(?:~(\d{1,6}))?")
_HINT = "`iommuq runs list` shows them"
#: Largest size of a file in bytes; 50,000 tests need a tenth of it.
_LARGEST = 512 << 20


def is_file(word: str) -> bool:
    """Return whether a word is the path of a file, not the id of a run."""
    return word.endswith(".json") or "/" in word


def pick(word: str, archive: Archive | None = None) -> CommandRun:
    """Return the run for a word.

    :param word: ``last``, ``last~N`` for the Nth before it, an id or its begin, or a JSON file.
    :raises UserError: there is no such run, or there are several.
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
        raise UserError(f"{word!r} matches {len(found)} runs", hint=_HINT)
    record = archive.load(found[0])
    if record is None:
        raise UserError(f"run {found[0]} is no longer in the store", hint=_HINT)
    return record


def _from_file(path: Path) -> CommandRun:
    try:
        if path.stat().st_size > _LARGEST:
            raise UserError(f"{path}: larger than {_LARGEST >> 20} MiB: not a run")
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    return from_json(text, name=str(path))


#: The file with the schema, below the checkout.
SCHEMA = "docs/generated/results.schema.json"
#: The year 10000, beyond datetime's range, in seconds since the epoch.
_END = 253402300800.0


def to_data(record: CommandRun) -> dict[str, Any]:
    """Return a run as plain data."""
    return {"format": FORMAT, "run": asdict(record)}


def to_json(record: CommandRun) -> str:
    """Return a run as JSON, indented."""
    return json.dumps(to_data(record), indent=1, default=lambda value: value.value) + "\n"


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
