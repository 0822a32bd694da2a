# SPDX-License-Identifier: GPL-2.0-only
"""Flaky tests, and which patch breaks a test, on lanes whose results are written down."""

from __future__ import annotations

from pathlib import Path

import pytest

from iommuq.proof import bisection, flakes
from iommuq.queue.model import Queue
from iommuq.results.known import Verdict
from iommuq.results.store import Store
from iommuq.system.errors import InfraError, UserError
from lanes_toy import ToyLane, queue, steps
from prooftoy import GOOD, lane, promise, proven

# Flaky tests.


def test_flaky_test_is_run_three_times(toy: Queue, store: Store) -> None:
    promise(toy, GOOD)
    shaky = lane(store, **{"s.a": "f p fp"})
    proof = proven(toy, [shaky])
    assert shaky.runs.count("0002") == flakes.AGREE
    assert proof.findings == ["0002: s.a: flaky"]
    assert proof.exit_code == 1
    outcome = proof.outcomes[-1]
    assert outcome.verdicts["s.a"] is Verdict.FLAKY
    assert flakes.logs(outcome, "s.a", store) == ["pass: /log/2", "fail: /log/0"]


def test_failure_that_three_runs_confirm(toy: Queue, store: Store) -> None:
    promise(toy, GOOD)
    wrong = lane(store, **{"s.a": "f p f"})
    assert proven(toy, [wrong]).findings == ["0002 breaks s.a"]
    assert wrong.runs.count("0002") == flakes.AGREE
    # What is known needs no further run.
    proven(toy, [wrong])
    assert wrong.runs.count("0002") == flakes.AGREE


GUESTS = {"one": ("s.a", "s.b"), "two": ("s.c",)}


@pytest.mark.parametrize(
    ("runs", "findings"),
    [("p p f", ["0002 breaks s.b"]), ("p p fp", ["0002: s.b: flaky"]), ("p p p", [])],
)
def test_only_the_guest_of_what_is_doubtful_runs_again(
    toy: Queue, store: Store, runs: str, findings: list[str]
) -> None:
    promise(toy, GOOD)
    wrong = lane(store, **{"s.a": "f p p", "s.b": runs, "s.c": "p p p"})
    wrong.guests = GUESTS
    proof = proven(toy, [wrong])
    assert proof.findings == findings
    again = flakes.AGREE - 1 if findings else 0
    assert wrong.runs.count("0002") == 1 + again
    assert [len(run.results) for run in store.history("kunit-one-0002", 9)] == [2] * (
        again and flakes.AGREE
    )
    if "flaky" in str(findings):
        logs = flakes.logs(proof.outcomes[-1], "s.b", store)
        assert logs == ["pass: /log/2", "fail: /log/0"]
        return
    # What is known needs no further run.
    assert proven(toy, [wrong]).findings == findings
    assert wrong.runs.count("0002") == 1 + again


def test_what_is_as_it_should_be_runs_once(toy: Queue, store: Store) -> None:
    promise(toy, GOOD)
    good = lane(store, **{"s.a": "f p p"})
    proven(toy, [good])
    assert good.runs == ["baseline", "0001", "0002"]


def test_changed_mind_is_seen_later(toy: Queue, store: Store) -> None:
    """A test that passes now, and failed when the same kernel ran last."""
    promise(toy, GOOD)
    shaky = lane(store, **{"s.a": "f p p", "s.b": "p fp p"})
    shaky.run(shaky.image(steps(toy)[1]), steps(toy)[1])
    shaky.run(shaky.image(steps(toy)[1]), steps(toy)[1], again=True)
    assert proven(toy, [shaky]).findings == []
    assert shaky.runs.count("0001") == 2 + flakes.AGREE


def test_errors_are_no_opinion(toy: Queue, store: Store) -> None:
    promise(toy, GOOD)
    unlucky = lane(store, **{"s.a": "f p p", "s.b": "p ep p"})
    unlucky.run(unlucky.image(steps(toy)[1]), steps(toy)[1])
    unlucky.run(unlucky.image(steps(toy)[1]), steps(toy)[1], again=True)
    assert proven(toy, [unlucky]).findings == []
    assert unlucky.runs.count("0001") == 2


# Bisection.


@pytest.mark.parametrize("first_bad", range(9))
def test_bisect_names_the_first_bad_patch(tmp_path: Path, store: Store, first_bad: int) -> None:
    long = queue(tmp_path, *(f"{number:04}-x" for number in range(1, 9)))
    says = {
        step.label: {"s.a": "p" if number < first_bad else "f"}
        for number, step in enumerate(steps(long))
    }
    toy_lane = ToyLane(says, store)
    found = bisection.first_failing(steps(long), toy_lane, "s.a")
    assert found is not None
    assert found.label == steps(long)[first_bad].label
    assert len(toy_lane.runs) <= 5


def test_bisect_what_passes(toy: Queue, store: Store) -> None:
    good = lane(store, **{"s.a": "f p p"})
    assert bisection.first_failing(steps(toy), good, "s.a") is None
    assert good.runs == ["0002"]


def test_bisect_what_is_not_there(toy: Queue, store: Store) -> None:
    with pytest.raises(UserError, match=r"0002 has no test 's\.b'"):
        bisection.first_failing(steps(toy), lane(store, **{"s.a": "f p p"}), "s.b")
    with pytest.raises(UserError, match="does not begin with a suite"):
        bisection.lane_of([lane(store)], "s.a")


def test_bisect_without_a_verdict(toy: Queue, store: Store) -> None:
    with pytest.raises(InfraError, match="no verdict"):
        bisection.first_failing(steps(toy), lane(store, **{"s.a": "p e f"}), "s.a")
