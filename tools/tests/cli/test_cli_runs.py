# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq report`` and ``iommuq runs`` as a user calls them, on runs of the toy kernel."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import records
from iommuq.cli.main import cli
from iommuq.results.runs.archive import Archive, from_json, to_json
from iommuq.results.runs.model import StepRecord
from iommuq.results.runs.recorder import recording
from iommuq.results.store import Result as Kept
from iommuq.results.store import Status, Store, SuiteRun
from iommuq.system.errors import InfraError, IommuqError, UserError


def call(*words: str) -> Result:
    """Run the command line; what it raises is raised."""
    return CliRunner().invoke(cli, words, catch_exceptions=False, standalone_mode=False)


def keep(run_id: str, status: Status = Status.PASS) -> str:
    """Keep a run of one test, and return its id."""
    with recording("6.12", f"kunit 6.12 {run_id}") as recorder:
        recorder.describe(steps=(StepRecord("0001", "toy"),))
        run = SuiteRun(run_id, "6.12", "0001", "kunit", run_id, "6.12", "um", "native", 1.0)
        store = Store()
        store.begin(run)
        done = store.finish(run, [Kept("6.12", "0001", "kunit", "t.a", status, log="/no")])
        recorder.cell("0001", "kunit", done)
        recorder.exit_code = int(status is Status.FAIL)
    return recorder.id


def test_every_form_goes_into_its_file(tmp_path: Path) -> None:
    keep("a")
    forms = ("html", "junit", "ktap", "json", "kcidb")
    words = [word for form in forms for word in (f"--{form}", str(tmp_path / form))]
    assert call("report", *words).return_value == 0
    begins = {form: (tmp_path / form).read_text()[:14].strip() for form in forms}
    assert begins["html"].lower().startswith("<!doctype html")
    assert begins["junit"].startswith("<?xml version=")
    assert begins["ktap"].startswith("KTAP version 1")
    assert json.loads((tmp_path / "kcidb").read_text())["tests"][0]["status"] == "PASS"
    assert from_json((tmp_path / "json").read_text()).command == "kunit 6.12 a"


def test_a_dash_is_standard_output() -> None:
    first = keep("a")
    keep("b", Status.FAIL)
    done = call("report", "last~1", "--json", "-")
    assert json.loads(done.stdout)["run"]["id"] == first
    assert call("report", first, "--ktap", "-").stdout.startswith("KTAP version 1\n1..1\n")


def test_what_is_asked_for_wrongly_is_told() -> None:
    keep("a")
    for words in (["report"], ["report", "--json", "-", "--html", "-"]):
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == 2
        assert done.stdout == ""


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    keep("a")
    with pytest.raises(UserError, match="No such file or directory"):
        call("report", "--html", str(tmp_path / "no" / "x.html"))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("nonsense", "no run 'nonsense'"),
        ("", "no run ''"),
        ("last~9", "there are 2 runs"),
        ("last~99999999999999999999", "no run"),
        ("2", "matches 2 runs"),
        ("no.json", "No such file"),
        ("/dev", "Is a directory"),
    ],
)
def test_a_run_that_there_is_not(word: str, message: str) -> None:
    keep("a")
    keep("b")
    with pytest.raises(UserError, match=message):
        call("runs", "show", word)


def test_without_any_run() -> None:
    assert "no runs yet" in call("runs", "list").stdout
    with pytest.raises(UserError, match="there are no runs yet"):
        call("report", "--json", "-")


def test_the_list_says_how_each_run_ended() -> None:
    keep("a")
    keep("b", Status.FAIL)
    with pytest.raises(KeyboardInterrupt), recording("6.12", "run \x1b[31m\u202e"):
        raise KeyboardInterrupt
    lines = call("runs", "list").stdout.splitlines()
    assert [line.split()[3] for line in lines] == ["interrupted", "failed", "ok"]
    assert all(line.isprintable() for line in lines)
    assert len(call("runs", "list", "-n", "1").stdout.splitlines()) == 1


def test_a_run_that_was_killed_is_never_shown_as_passed() -> None:
    run_id = keep("a")
    with sqlite3.connect(Store().path) as database:
        database.execute("UPDATE records SET finished = NULL, exit_code = NULL, process = '1 x 1'")
    assert " incomplete " in call("runs", "list").stdout
    done = call("runs", "show", run_id)
    assert done.return_value == 3
    assert "no verdict: the run was killed" in done.stdout


def test_show_exits_as_the_run_did() -> None:
    good, bad = keep("a"), keep("b", Status.FAIL)
    assert call("runs", "show", good).return_value == 0
    done = call("runs", "show", bad)
    assert done.return_value == 1
    assert done.stdout.splitlines()[-2:] == [
        "fail   0001: t.a", "FAIL: 1 test of 1 fails: t.a."
    ]  # fmt: skip


def test_compare_says_what_is_worse(tmp_path: Path) -> None:
    good, bad = keep("a"), keep("b", Status.FAIL)
    done = call("runs", "compare", good)
    assert done.return_value == 1
    assert "1 newly failing:\n  0001 kunit.t.a: was ok, is failed\n" in done.stdout
    assert call("runs", "compare", bad, good).return_value == 0
    # A run that came as a file, from CI say.
    found = Archive().load(good)
    assert found is not None
    (tmp_path / "ci.json").write_text(to_json(found))
    assert call("runs", "compare", str(tmp_path / "ci.json"), "last").return_value == 1


def test_a_file_names_no_log_outside_of_ours(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret\n")
    test = records.case("t.a", "fail", log=str(tmp_path / "secret"))
    (tmp_path / "run.json").write_text(to_json(records.record(records.cell("0001", test))))
    done = call("report", str(tmp_path / "run.json"), "--html", "-")
    assert "the log is on the machine that made this run" in done.stdout
    assert "secret\\n" not in done.stdout


@pytest.mark.parametrize("words", [["runs", "list"], ["runs", "show"], ["report", "--json", "-"]])
@pytest.mark.parametrize("trouble", ["damaged", "newer", "a directory"])
def test_a_store_that_cannot_be_read(words: list[str], trouble: str) -> None:
    keep("a")
    path = Store().path
    if trouble == "newer":
        with sqlite3.connect(path) as database:
            database.execute("PRAGMA user_version = 99")
    else:
        for file in path.parent.glob("results.sqlite*"):
            file.unlink()
        if trouble == "damaged":
            path.write_bytes(b"no database\n" * 1000)
        else:
            path.mkdir()
    with pytest.raises(InfraError) as caught:
        call(*words)
    assert isinstance(caught.value, IommuqError)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3
