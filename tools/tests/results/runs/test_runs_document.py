# SPDX-License-Identifier: GPL-2.0-only
"""Runs as JSON: there and back, by the published schema, and not a word that is not."""

from __future__ import annotations

import json
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import records
from iommuq.results.runs import archive
from iommuq.results.runs.archive import from_json, to_json
from iommuq.results.runs.model import CellRecord, CommandRun, Head, State, Test
from iommuq.system.errors import UserError
from iommuq.system.files import project_root


@pytest.mark.parametrize("run", [records.queue(), records.broken(), records.record()])
def test_there_and_back(run: CommandRun) -> None:
    assert from_json(to_json(run)) == run


def test_the_published_schema_is_that_of_the_model() -> None:
    """If not: write it from `archive.schema()`."""
    assert (project_root() / archive.SCHEMA).read_text() == json.dumps(
        archive.schema(), indent=1
    ) + "\n"


@pytest.mark.parametrize("run", [records.queue(), records.broken()])
def test_runs_are_valid_by_the_schema(run: CommandRun) -> None:
    validator = jsonschema.Draft202012Validator(archive.schema())
    validator.check_schema(archive.schema())
    validator.validate(json.loads(to_json(run)))


def _tests() -> st.SearchStrategy[Test]:
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    fields = {"name": text, "message": text, "log": text, "answer": text}
    return st.builds(Test, **fields)


@settings(deadline=None, max_examples=30)
@given(st.lists(_tests(), max_size=3))
def test_any_run_comes_back_and_is_valid(tests: list[Test]) -> None:
    run = CommandRun(
        "i",
        "c",
        "b",
        State.FINISHED,
        1.0,
        2.0,
        0,
        Head(),
        (CellRecord("s", "l", tests=tuple(tests)),),
    )
    assert from_json(to_json(run)) == run
    jsonschema.Draft202012Validator(archive.schema()).validate(json.loads(to_json(run)))


def edited(*path: str | int, to: Any) -> str:
    """Return the JSON of a run with another value at a place."""
    data = json.loads(to_json(records.broken()))
    inside = data["run"]
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = to
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "run.json: not JSON"),
        ("{" * 100_000, "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a run"),
        ('{"format": 1, "run": {}}', "unknown format 1 (2 is known)"),
        ('{"format": 2, "run": {}}', "id: "),
        ('{"format": 2, "run": []}', "run: "),
        (edited("base", to=6.12), "base: "),
        (edited("started", to=True), "started: "),
        (edited("started", to=10**400), "started: "),
        (edited("started", to=float("nan")), "started: "),
        (edited("started", to=1e18), "1e+18 seconds since 1970"),
        (edited("finished", to=-1.0), "-1 seconds since 1970"),
        (edited("cells", 0, "started", to=1e200), "1e+200 seconds since 1970"),
        (edited("extra", to=1), "extra: "),
        (edited("cells", to={}), "cells: "),
        (edited("cells", 0, "tests", 0, "status", to="ok"), "cells.0.tests.0.status: "),
        (edited("cells", 0, "tests", 0, "verdict", to="pass"), "cells.0.tests.0.verdict: "),
        (edited("cells", 0, "tests", 0, "message", to=None), "cells.0.tests.0.message: "),
        (edited("cells", 0, "tests", 0, "message", to="\udcff"), "surrogate"),
        (edited("state", to="passed"), "state: "),
    ],
)
def test_bad_json_is_told_in_a_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        from_json(text, name="run.json")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(UserError, match="not JSON"):
        from_json(b"\xff\xfe\x00", name="run.json")
