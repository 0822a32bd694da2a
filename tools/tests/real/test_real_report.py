# SPDX-License-Identifier: GPL-2.0-only
"""Every form of a real run, held against the tool that reads it."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import sys
import xml.etree.ElementTree as Tree
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest

from iommuq.report.junit import to_junit
from iommuq.report.kcidb import SCHEMA, to_kcidb
from iommuq.report.ktapout import to_ktap
from iommuq.report.view import Tone, View
from iommuq.results.runs import archive
from iommuq.results.runs.archive import Archive
from iommuq.results.runs.model import CommandRun, State
from iommuq.results.store import Status
from iommuq.system import files
from iommuq.system.git.command import git
from junitrules import breaches
from realrun import iommuq

pytestmark = pytest.mark.real

#: Runs of the store that are looked at, besides those of this test.
STORED = 20


@pytest.fixture(scope="module")
def kunit_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tools/testing/kunit of the base."""
    folder = files.cache_dir() / "bases" / "6.12"
    commit = json.loads((folder / "base.json").read_text())["commit"]
    where = tmp_path_factory.mktemp("tree")
    git(
        *("checkout", commit, "--", "tools/testing/kunit"),
        git_dir=folder / "repo.git",
        cwd=where,
        index=where / "index",
        work_tree=where,
    )
    return where / "tools/testing/kunit"


def counts(kunit_dir: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int, int]:
    """Return what the kernel's parser makes of KTAP: passed, failed, skipped."""
    monkeypatch.syspath_prepend(str(kunit_dir))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    parser = importlib.import_module("kunit_parser")
    quiet = []
    if "printer" in inspect.signature(parser.parse_run_tests).parameters:
        quiet = [importlib.import_module("kunit_printer").null_printer]
    with contextlib.redirect_stdout(io.StringIO()):
        found = parser.parse_run_tests(text.splitlines(), *quiet).counts
    assert (found.errors, found.crashed) == (0, 0)
    return found.passed, found.failed, found.skipped


def check(run: CommandRun, kunit_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold every form of a run against the tool that reads it."""
    text = archive.to_json(run)
    jsonschema.Draft202012Validator(archive.schema()).validate(json.loads(text))
    assert archive.from_json(text) == run
    assert breaches(Tree.fromstring(to_junit(run))) == []
    assert SCHEMA.is_valid(to_kcidb(run))
    if run.state is State.FINISHED and not run.head.error and run.cells:
        seen = [test.status for _, test in run.tests()]
        failed = seen.count(Status.FAIL) + seen.count(Status.ERROR)
        failed += sum(bool(cell.failure) for cell in run.cells)
        assert counts(kunit_dir, to_ktap(run), monkeypatch) == (
            seen.count(Status.PASS),
            failed,
            seen.count(Status.SKIP),
        )


def test_a_real_queue_in_every_form(
    kunit_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = iommuq("run", "6.12")
    assert done.returncode == 0, done.stdout + done.stderr
    archive = Archive()
    newest = next(one for one in archive.summaries() if one.command == "run 6.12")
    run = archive.load(newest.id)
    assert run is not None
    assert View(run).tone is Tone.GOOD
    assert len(run.steps) > 10
    check(run, kunit_dir, monkeypatch)
    page = tmp_path / "run.html"
    assert iommuq("report", newest.id, "--html", str(page)).returncode == 0
    # Cases that are known to fail are not among those that pass.
    assert "PASS: " in page.read_text()


def test_stored_runs_in_every_form(kunit_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive()
    for one in archive.summaries(STORED):
        run = archive.load(one.id)
        assert run is not None
        check(run, kunit_dir, monkeypatch)
