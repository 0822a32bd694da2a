# SPDX-License-Identifier: GPL-2.0-only
"""Two runs side by side, and what counts as slow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iommuq.results.known import Verdict
from iommuq.results.runs.archive import Archive, Filled
from iommuq.results.runs.compare import Comparison, compare, is_slow
from iommuq.results.runs.model import CommandRun, Head, State, Timing
from iommuq.results.store import Result, Status, Store, SuiteRun
from records import case, cell, record


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "results.sqlite")


def names(changes: object) -> list[str]:
    return [change.test for change in changes]  # type: ignore[attr-defined]


def test_what_changed(archive: Archive) -> None:
    old = record(
        cell(
            "0001",
            *(case(f"t.{name}", "pass") for name in ("same", "breaks", "lost", "goes", "skips")),
            case("t.mended", "fail"),
            case("t.still", "fail"),
            case("t.known", "fail", Verdict.KNOWN),
        )
    )
    new = record(
        cell(
            "0001",
            case("t.same", "pass"),
            case("t.breaks", "fail"),
            case("t.lost", "error"),
            case("t.skips", "skip"),
            case("t.mended", "pass"),
            case("t.still", "fail"),
            case("t.known", "pass", Verdict.UNEXPECTED_PASS),
            case("t.new", "fail", Verdict.FLAKY),
        )
    )
    found = compare(old, new, archive)
    assert names(found.failing) == ["kunit.t.breaks", "kunit.t.new"]
    assert names(found.passing) == ["kunit.t.mended", "kunit.t.known"]
    assert names(found.lost) == ["kunit.t.lost"]
    assert names(found.gone) == ["kunit.t.goes"]
    assert found.is_worse
    assert not compare(new, old, archive).lost
    same = compare(old, old, archive)
    assert same == Comparison((), (), (), (), (), (), (), same.unjudged)
    assert not same.is_worse


def test_steps_of_one_run_alone_are_named_and_not_compared(archive: Archive) -> None:
    a, b = case("t.a", "pass"), case("t.a", "fail")
    found = compare(
        record(cell("baseline", a), cell("0001", a)),
        record(cell("0001", a), cell("0002", b)),
        archive,
    )
    assert found.failing == ()
    assert found.alone == ("baseline", "0002")


def test_two_runs_of_one_step_are_compared_whatever_it_is_called(archive: Archive) -> None:
    found = compare(
        record(cell("0001", case("t.a", "pass"), warnings=("w", "x"))),
        record(cell("0002", case("t.a", "fail"), warnings=("x", "y"))),
        archive,
    )
    assert names(found.failing) == ["kunit.t.a"]
    assert found.gained == (("0002", "y"),)
    assert found.vanished == (("0002", "w"),)


def test_warnings_that_nobody_collected_are_no_change(archive: Archive) -> None:
    found = compare(
        record(cell("0001", case("t.a", "pass"), warnings=None)),
        record(cell("0001", case("t.a", "pass"), warnings=("x",))),
        archive,
    )
    assert found.gained == ()


def keep(archive: Archive, number: int, seconds: float, test: float, build: float) -> CommandRun:
    """Keep a run with its times, and return it."""
    started = 1000.0 + 100 * number
    name = f"r{number}"
    run = SuiteRun(name, "6.12", "0001", "kunit", name, "6.12", "um", "native", started)
    result = Result("6.12", "0001", "kunit", "t.a", Status.PASS, test)
    store = Store(archive.path)
    done = store.finish(run, [result], finished=started + seconds)
    kept = CommandRun(f"rec{number}", "run", "6.12", State.RUNNING, started - 1)
    archive.begin(kept)
    archive.put(kept.id, 0, Filled("0001", "kunit", done), kept.started)
    timings = [Timing("Building", 0, 0.0, build), Timing("Failing", 0, 0.0, 50.0, "failed")]
    archive.finish(kept.id, Head(), timings, started + 90, 0)
    found = archive.load(kept.id)
    assert found is not None
    return found


def test_slow_beyond_what_earlier_runs_varied_by(archive: Archive) -> None:
    for number in range(6):
        last = keep(archive, number, 10 + number % 3, 1.0, 20.0)
    usual = keep(archive, 7, 12.0, 1.1, 21.0)
    found = compare(last, usual, archive)
    assert (found.slow, found.unjudged) == ((), 0)
    slow = keep(archive, 8, 40.0, 3.0, 60.0)
    found = compare(last, slow, archive)
    assert {(one.what, one.seconds) for one in found.slow} == {
        ("kunit.t.a", 3.0),
        ("all of kunit", 40.0),
        ("Building", 60.0),
    }
    assert not found.is_worse


def test_too_little_history_says_nothing(archive: Archive) -> None:
    first = keep(archive, 0, 10.0, 1.0, 20.0)
    slow = keep(archive, 1, 99.0, 99.0, 99.0)
    found = compare(first, slow, archive)
    assert found.slow == ()
    assert found.unjudged == 3


def test_another_guest_is_no_history(archive: Archive) -> None:
    for number in range(6):
        keep(archive, number, 1.0, 1.0, 1.0)
    run = keep(archive, 8, 40.0, 9.0, 1.0)
    other = replace(run, cells=tuple(replace(cell, guest="qemu") for cell in run.cells))
    assert compare(run, other, archive).slow == ()
    reused = replace(run, cells=tuple(replace(cell, reused=True) for cell in run.cells))
    assert compare(run, reused, archive).slow == ()


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1e6))
def test_never_slow_within_the_times_that_were_seen_twice(times: list[float], more: float) -> None:
    assert not is_slow(min(times), times)
    if is_slow(more, times):
        assert is_slow(more + 1, times)
