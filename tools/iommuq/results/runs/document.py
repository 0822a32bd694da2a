# SPDX-License-Identifier: GPL-2.0-only
"""Runs as JSON, for other programs and machines, and the schema of that form."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from iommuq.results.runs.model import FORMAT, Record
from iommuq.system.errors import UserError

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
