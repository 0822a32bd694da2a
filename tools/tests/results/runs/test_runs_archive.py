# SPDX-License-Identifier: GPL-2.0-only
"""Records of runs in the store: kept as they come, and never taken for whole if killed."""

from __future__ import annotations

import datetime
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from iommuq.report.view import Tone, View
from iommuq.results.known import Failure, Verdict
from iommuq.results.runs.archive import Archive
from iommuq.results.runs.model import Known, State, StepRecord
from iommuq.results.runs.recorder import recording
from iommuq.results.store import Complaint, Result, Status, Store, SuiteRun
from iommuq.system import progress
from iommuq.system.errors import InfraError, VerdictError


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "results.sqlite")


def finish(archive: Archive, run_id: str = "r1", started: float = 5e9, **more: Status) -> SuiteRun:
    """Keep a run of a suite, with the status of each test."""
    run = SuiteRun(run_id, "6.12", "0001", "kunit", run_id, "6.12.117", "um", "native", started)
    results = [Result("6.12", "0001", "kunit", f"s.{name}", how) for name, how in more.items()]
    store = Store(archive.path)
    store.begin(run)
    splat = Complaint("s.a", "BUG", "BUG: x", "BUG: x\nstack")
    return store.finish(run, results, finished=started + 2, splats=[splat])


def test_a_recording_is_read_back_whole(archive: Archive) -> None:
    entry = Failure(("kunit.s.a",), "why", "https://x", datetime.date(2027, 1, 2), (), ())
    with recording("6.12", "run 6.12", archive) as recorder:
        recorder.describe(title="Linux", steps=(StepRecord("baseline"), StepRecord("0001", "toy")))
        with progress.task("Building"):
            run = finish(archive, a=Status.FAIL, b=Status.PASS)
        recorder.cell(
            "0001",
            "kunit",
            run,
            verdicts={"s.a": Verdict.KNOWN, "s.b": Verdict.OK},
            known={"s.a": entry},
            warnings=["w2", "w1"],
            added=["w2"],
        )
        recorder.cell("0002", "kunit", failure="0002 does not build")
        recorder.describe(findings=("0002: does not build",))
        recorder.exit_code = 1
    found = archive.load(recorder.id)
    assert found is not None
    assert (found.state, found.exit_code, found.command) == (State.FINISHED, 1, "run 6.12")
    assert found.head.findings == ("0002: does not build",)
    assert [step.label for step in found.steps] == ["0001", "0002"]
    first, second = found.cells
    assert [test.verdict for test in first.tests] == [Verdict.KNOWN, Verdict.OK]
    assert first.tests[0].known == Known("why", "https://x", "2027-01-02")
    assert first.warnings == ("w1", "w2")
    assert first.added == ("w2",)
    assert [splat.title for splat in first.splats] == ["BUG: x"]
    assert second.failure == "0002 does not build"
    assert [timing.title for timing in found.timings] == ["Building"]


def test_a_cell_that_comes_again_takes_the_place_of_the_first(archive: Archive) -> None:
    run = finish(archive, a=Status.FAIL)
    with recording("6.12", "run", archive) as recorder:
        recorder.cell("0001", "kunit", run)
        recorder.cell("0001", "kunit", run, verdicts={"s.a": Verdict.FLAKY})
    found = archive.load(recorder.id)
    assert found is not None
    (cell,) = found.cells
    assert cell.tests[0].verdict is Verdict.FLAKY


def test_what_was_in_the_store_already_is_told_from_what_was_run(archive: Archive) -> None:
    with recording("6.12", "run", archive) as recorder:
        recorder.cell("baseline", "kunit", finish(archive, "old", 10.0, a=Status.PASS))
        recorder.cell("0001", "kunit", finish(archive, "new", 5e9, a=Status.PASS))
    found = archive.load(recorder.id)
    assert found is not None
    assert [cell.reused for cell in found.cells] == [True, False]


def test_a_run_under_way_is_not_finished(archive: Archive) -> None:
    with recording("6.12", "run", archive) as recorder:
        found = archive.load(recorder.id)
        assert found is not None
        assert found.state is State.RUNNING
        assert View(found).tone is Tone.UNKNOWN
        assert archive.summaries()[0].state is State.RUNNING


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (VerdictError("0001 does not apply"), 1, "0001 does not apply"),
        (InfraError("no room", hint="make some"), 3, "no room (make some)"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("a mistake of ours"), 3, "RuntimeError: a mistake of ours"),
    ],
)
def test_how_a_command_ended_is_kept(
    archive: Archive, error: BaseException, code: int, text: str
) -> None:
    def work() -> None:
        with recording("6.12", "run", archive) as recorder:
            recorder.cell("0001", "kunit", finish(archive, a=Status.PASS))
            raise error

    with pytest.raises(type(error)):
        work()
    found = archive.load(archive.summaries()[0].id)
    assert found is not None
    assert (found.exit_code, found.head.error) == (code, text)
    assert View(found).tone is not Tone.GOOD
    assert progress.listeners == []


KILLED = """
import os, signal, sys
from pathlib import Path
from iommuq.results.store import Result, Status, Store, SuiteRun
from iommuq.results.runs.archive import Archive
from iommuq.results.runs.recorder import recording
path = Path(sys.argv[1])
with recording("6.12", "run 6.12", Archive(path)) as recorder:
    run = SuiteRun("done", "6.12", "0001", "kunit", "k", "6.12", "um", "native", 1.0)
    store = Store(path)
    store.begin(run)
    done = store.finish(run, [Result("6.12", "0001", "kunit", "s.a", Status.PASS)])
    recorder.cell("0001", "kunit", done)
    store.begin(SuiteRun("cut", "6.12", "0002", "kunit", "k2", "6.12", "um", "native", 2.0))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_is_incomplete_and_keeps_what_it_had(archive: Archive) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(archive.path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (summary,) = archive.summaries()
    assert summary.state is State.INCOMPLETE
    found = archive.load(summary.id)
    assert found is not None
    assert [(cell.step, len(cell.tests)) for cell in found.cells] == [("0001", 1), ("0002", 0)]
    view = View(found)
    assert view.tone is Tone.UNKNOWN
    assert "killed" in view.sentence


def test_another_process_of_the_same_number_is_not_the_one(archive: Archive) -> None:
    with recording("6.12", "run", archive) as recorder:
        pass
    with sqlite3.connect(archive.path) as database:
        other = f"{os.getpid()} another-boot 12345"
        database.execute("UPDATE records SET finished = NULL, process = ?", (other,))
    found = archive.load(recorder.id)
    assert found is not None
    assert found.state is State.INCOMPLETE


def test_runs_from_before_there_were_records_are_runs_of_their_own(archive: Archive) -> None:
    finish(archive, "old", 10.0, a=Status.FAIL, b=Status.PASS)
    Store(archive.path).begin(replace(finish(archive, "x", 11.0), id="cut", finished=None))
    found = {one.id: one for one in archive.summaries()}
    assert found["old"].command == "kunit 6.12 --at 0001"
    assert found["cut"].state is State.INCOMPLETE
    old, cut = archive.load("old"), archive.load("cut")
    assert old is not None
    assert cut is not None
    assert View(old).tone is Tone.BAD
    assert (cut.state, View(cut).tone) == (State.INCOMPLETE, Tone.UNKNOWN)


def test_runs_of_a_record_are_not_listed_again(archive: Archive) -> None:
    with recording("6.12", "run", archive) as recorder:
        recorder.cell("0001", "kunit", finish(archive, a=Status.PASS))
        # Run again to see whether it is flaky: of this record, though none of its cells.
        finish(archive, "again", a=Status.PASS)
    assert [one.id for one in archive.summaries()] == [recorder.id]


def test_threads_fill_one_record(archive: Archive) -> None:
    with recording("6.12", "run", archive) as recorder:
        runs = [finish(archive, f"r{number}", a=Status.PASS) for number in range(8)]
        threads = [
            threading.Thread(target=recorder.cell, args=(f"{number:04}", "kunit", run))
            for number, run in enumerate(runs)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = archive.load(recorder.id)
    assert found is not None
    assert {cell.step for cell in found.cells} == {f"{number:04}" for number in range(8)}


@pytest.mark.parametrize("text", ["nonsense", "{}", '{"steps": 1}', "[]"])
def test_a_damaged_record_is_told_in_a_line(archive: Archive, text: str) -> None:
    with recording("6.12", "run", archive) as recorder:
        pass
    with sqlite3.connect(archive.path) as database:
        database.execute("UPDATE records SET head = ?", (text,))
    with pytest.raises(InfraError, match="damaged") as caught:
        archive.load(recorder.id)
    assert "\n" not in str(caught.value)


def test_a_run_that_left_the_store_leaves_its_cell(archive: Archive) -> None:
    run = finish(archive, a=Status.PASS)
    with recording("6.12", "run", archive) as recorder:
        recorder.cell("0001", "kunit", replace(run, id="never kept"))
    found = archive.load(recorder.id)
    assert found is not None
    assert [(cell.step, cell.tests) for cell in found.cells] == [("0001", ())]
