# SPDX-License-Identifier: GPL-2.0-only
"""The result model and its store."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from iommuq.results import store as databases
from iommuq.results.store import MIGRATIONS, Complaint, Result, Status, Store, SuiteRun, new_id
from iommuq.system.errors import DiskFull, InfraError


def make_run(run_id: str = "r1", key: str = "k1") -> SuiteRun:
    return SuiteRun(run_id, "6.12", "0001", "kunit", key, "6.12.117", "um", "native", 1000.5)


def make_result(test: str = "suite.case", status: Status = Status.PASS, **other: Any) -> Result:
    return Result("6.12", "0001", "kunit", test, status, **other)


RESULTS = (
    make_result("suite.b", Status.FAIL, duration=0.25, message="two\nlines", log="/tmp/x.log"),
    make_result("suite.a"),
    make_result("suite.ä", Status.SKIP),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state" / "results.sqlite")


def test_finished_run_is_found_whole_and_in_order(store: Store) -> None:
    run = make_run()
    assert store.begin(run) == "r1"
    done = store.finish(run, RESULTS, finished=1010.0)
    assert store.find("k1") == done
    assert done.finished == 1010.0
    assert done.results == RESULTS
    assert store.find("k2") is None


def test_splats_and_answers_are_kept(store: Store) -> None:
    splat = Complaint("suite.b", "WARNING", "WARNING: at x", "two\nlines", "/tmp/x.log", 7, True)
    loose = Complaint("", "BUG", "BUG: y", "y")
    answered = make_result("q35.claim.dma", answer="`dma marked`: REACHED")
    done = store.finish(make_run(), (*RESULTS, answered), splats=[splat, loose])
    found = store.find("k1")
    assert found == done
    assert found is not None
    assert found.splats == (splat, loose)
    assert found.results[-1].answer == "`dma marked`: REACHED"


def test_the_accelerator_that_ran_is_kept(store: Store) -> None:
    run = make_run()
    store.begin(run)
    store.finish(replace(run, accelerator="tcg"), RESULTS)
    found = store.find("k1")
    assert found is not None
    assert found.accelerator == "tcg"


def test_the_hash_of_the_image_is_kept(store: Store) -> None:
    store.finish(replace(make_run(), image="f" * 64), RESULTS)
    found = store.find("k1")
    assert found is not None
    assert found.image == "f" * 64


def test_default_place_is_the_state_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("IOMMUQ_STATE_DIR", str(tmp_path / "there"))
    Store().begin(make_run())
    assert (tmp_path / "there" / "results.sqlite").is_file()


def test_incomplete_run_never_counts(store: Store) -> None:
    store.begin(make_run())
    assert store.find("k1") is None
    kept = store.get("r1")
    assert kept is not None
    assert not kept.complete


def test_newest_complete_run_counts(store: Store) -> None:
    for number, when in ((1, 30.0), (2, 20.0)):
        store.finish(make_run(f"r{number}"), RESULTS, finished=when)
    store.begin(make_run("r3"))
    found = store.find("k1")
    assert found is not None
    assert found.id == "r1"


def test_run_cannot_finish_twice(store: Store) -> None:
    store.finish(make_run(), RESULTS)
    with pytest.raises(InfraError, match="already"):
        store.finish(make_run(), ())
    found = store.find("k1")
    assert found is not None
    assert found.results == RESULTS


def test_finish_outlives_removal_of_the_store(store: Store) -> None:
    run = make_run()
    store.begin(run)
    for path in store.path.parent.iterdir():
        path.unlink()
    store.finish(run, RESULTS)
    assert store.find("k1") is not None


def test_finish_is_all_or_nothing(store: Store) -> None:
    run = make_run()
    store.begin(run)
    bad = replace(RESULTS[0], duration="x" * 3)  # type: ignore[arg-type]
    worse = replace(RESULTS[0], message=None)  # type: ignore[arg-type]
    with pytest.raises(InfraError, match="NOT NULL"):
        store.finish(run, (RESULTS[1], bad, worse))
    assert store.find("k1") is None
    store.finish(run, RESULTS)
    assert store.find("k1") is not None


def test_results_of_another_run_are_refused() -> None:
    with pytest.raises(ValueError, match="not a result of run r1"):
        replace(make_run(), results=(replace(make_result(), patch="0002"),))


def test_errors_are_told_from_failures() -> None:
    assert not replace(make_run(), results=RESULTS).has_errors
    lost = make_result(status=Status.ERROR)
    assert replace(make_run(), results=(*RESULTS, lost)).has_errors


def test_lone_surrogates_are_stored_escaped(store: Store) -> None:
    store.finish(make_run(), [make_result(message="bad \udcff")])
    found = store.find("k1")
    assert found is not None
    assert found.results[0].message == "bad \\udcff"


def test_ids_sort_by_time_and_do_not_repeat() -> None:
    assert new_id(0.0) < new_id(1.7e9)
    assert new_id(5.0) != new_id(5.0)


WRITER = """
import sys
from pathlib import Path
from iommuq.results.store import Result, Status, Store, SuiteRun
store = Store(Path(sys.argv[1]))
for number in range(10):
    run = SuiteRun(f"{sys.argv[2]}-{number}", "6.12", "0001", "s", "k", "6.12", "um", "native", 0.0)
    store.begin(run)
    store.finish(run, [Result("6.12", "0001", "s", "t", Status.PASS)])
"""


def test_many_processes_write_a_new_store_at_once(store: Store) -> None:
    argv = [sys.executable, "-c", WRITER, str(store.path)]
    writers = [subprocess.Popen([*argv, str(number)]) for number in range(4)]
    assert [writer.wait() for writer in writers] == [0, 0, 0, 0]
    assert all(store.get(f"{number}-{run}") for number in range(4) for run in range(10))


def test_threads_share_a_store(store: Store) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            store.finish(make_run(f"r{number}"), RESULTS)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


KILLED = """
import os, signal, sys
from pathlib import Path
from iommuq.results.store import Result, Status, Store, SuiteRun
def results():
    yield Result("6.12", "0001", "s", "t", Status.PASS)
class Deadly(str):
    def encode(self, *args):
        os.kill(os.getpid(), signal.SIGKILL)
run = SuiteRun("r1", "6.12", "0001", "s", "k1", "6.12", "um", "native", 0.0)
store = Store(Path(sys.argv[1]))
store.begin(run)
good = Result("6.12", "0001", "s", "t", Status.PASS)
store.finish(run, [good, Result("6.12", "0001", "s", Deadly("t"), Status.PASS)])
"""


def test_killed_while_writing_results(store: Store) -> None:
    """The second result kills the writer inside its transaction."""
    killed = subprocess.run([sys.executable, "-c", KILLED, str(store.path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert store.find("k1") is None
    assert store.get("r1") is not None
    store.finish(make_run("r2"), RESULTS)
    assert store.find("k1") is not None


def test_damaged_store(store: Store) -> None:
    store.path.parent.mkdir()
    store.path.write_bytes(b"this is no database\n" * 100)
    with pytest.raises(InfraError, match=r"not a database.*move it away"):
        store.find("k1")


def test_truncated_store(store: Store) -> None:
    store.finish(make_run(), [make_result(message="x" * 50000)])
    os.truncate(store.path, 4096)
    with pytest.raises(InfraError, match=r"malformed.*move it away"):
        store.find("k1")


def test_store_of_a_newer_version(store: Store) -> None:
    store.begin(make_run())
    with sqlite3.connect(store.path) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(InfraError, match=r"newer iommuq \(schema 99, known: 3\)"):
        store.find("k1")


def test_older_store_is_brought_up_to_date(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.finish(make_run(), RESULTS)
    later = (*MIGRATIONS, ("CREATE TABLE extra (x)",))
    monkeypatch.setattr(databases, "MIGRATIONS", later)
    assert store.find("k1") is not None
    with sqlite3.connect(store.path) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (len(later),)
        assert database.execute("SELECT * FROM extra").fetchall() == []


def test_store_of_the_first_version_comes_through_whole(tmp_path: Path) -> None:
    """What was kept before there were records, splats and answers."""
    path = tmp_path / "results.sqlite"
    with sqlite3.connect(path) as database:
        for statement in MIGRATIONS[0]:
            database.execute(statement)
        database.execute("PRAGMA user_version = 1")
        run = ("old", "6.12", "0001", "kunit", "k1", "6.12.117", "um", "native", 1000.5, 1010.0)
        database.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", run)
        for position, result in enumerate(RESULTS):
            row = (position, result.test, result.status.value, result.duration)
            database.execute(
                "INSERT INTO results VALUES ('old', ?, ?, ?, ?, ?, ?)",
                (*row, result.message, result.log),
            )
    kept = Store(path).find("k1")
    assert kept == replace(make_run("old"), finished=1010.0, results=RESULTS)


def test_failed_migration_leaves_the_old_version(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.finish(make_run(), RESULTS)
    later = (*MIGRATIONS, ("CREATE TABLE extra (x)", "nonsense"))
    with monkeypatch.context() as patched:
        patched.setattr(databases, "MIGRATIONS", later)
        with pytest.raises(InfraError, match="syntax error"):
            store.find("k1")
    assert store.find("k1") is not None


def test_store_on_a_read_only_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.finish(make_run(), RESULTS)
    connect = partial(sqlite3.connect, uri=True)
    monkeypatch.setattr(
        sqlite3, "connect", lambda path, **other: connect(f"file:{path}?mode=ro", **other)
    )
    with pytest.raises(InfraError, match=r"readonly.*IOMMUQ_STATE_DIR"):
        store.begin(make_run("r2"))


def test_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InfraError, match="IOMMUQ_STATE_DIR"):
        Store(tmp_path / "file" / "results.sqlite").find("k1")


def test_full_disk(store: Store) -> None:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    with pytest.raises(DiskFull, match="no room left"):
        store._explain(error)


def test_store_that_stays_busy(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.begin(make_run())
    monkeypatch.setattr(databases, "BUSY_TIMEOUT", 0.05)
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(InfraError, match="another iommuq is writing"):
        store.begin(make_run("r2"))
    # Readers do not wait for a writer.
    assert store.find("k1") is None
    other.close()
