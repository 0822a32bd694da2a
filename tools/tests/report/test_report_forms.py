# SPDX-License-Identifier: GPL-2.0-only
"""JUnit, KTAP and KCIDB of a run: valid for those who read them, and the same verdicts.

The rules of JUnit are those of the XML schema that Jenkins' xunit plugin checks files
against (junit-10.xsd), written down here in our own form.
"""

from __future__ import annotations

import hashlib
import json
import re
import xml.etree.ElementTree as Tree
from collections import Counter

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from junitparser import JUnitXml

from iommuq.report.junit import to_junit
from iommuq.report.kcidb import SCHEMA, to_kcidb
from iommuq.report.ktapout import to_ktap
from iommuq.report.view import Tone, View
from iommuq.results.console import ktap
from iommuq.results.known import Verdict
from iommuq.results.runs.model import CellRecord, CommandRun, Head, State, StepRecord, Test
from iommuq.results.store import Status
from junitrules import breaches
from records import NASTY, broken, case, cell, queue, record

KILLED = broken(state=State.INCOMPLETE, finished=None, exit_code=None)
EMPTY = CommandRun("i", "run", "6.12", State.INCOMPLETE, 1.0)
UNBUILT = record(
    cell("baseline", case("t.a", "pass")),
    CellRecord("0001", "kunit", failure="0001 does not build: <&\x00"),
    exit_code=1,
)
LANES = record(
    cell("0001", case("t.a", "pass")),
    cell("0001", case("t.a", "fail"), lane="selftest"),
    exit_code=1,
)
RUNS = [queue(), broken(), KILLED, EMPTY, UNBUILT, LANES]


@pytest.mark.parametrize("run", RUNS)
def test_junit_keeps_the_rules(run: CommandRun) -> None:
    text = to_junit(run)
    assert breaches(Tree.fromstring(text)) == []
    again = JUnitXml.fromstring(text.encode())
    assert again.tests == sum(1 for suite in again for _ in suite)


def test_the_rules_can_be_broken() -> None:
    suite = '<testsuite name="x" time="1:2"><testcase/></testsuite>'
    text = f'<testsuites skipped="1">{suite}</testsuites>'
    assert len(breaches(Tree.fromstring(text))) == 6


def outcomes(text: str) -> dict[str, str]:
    """Return what each case of a JUnit file counts as."""
    words = {}
    for found in Tree.fromstring(text).iter("testcase"):
        kinds = [child.tag for child in found if child.tag in ("failure", "error", "skipped")]
        words[f"{found.get('classname')}.{found.get('name')}"] = kinds[0] if kinds else "ok"
    return words


def test_junit_of_a_queue_as_it_should_be_fails_nothing() -> None:
    assert View(queue()).tone is Tone.GOOD
    assert outcomes(to_junit(queue())) == {
        "6_12.run.is_as_it_should_be": "ok",
        "6_12.baseline.kunit.toy.a": "skipped",
        "6_12.baseline.kunit.toy.b": "ok",
        "6_12.0001.kunit.toy.a": "ok",
        "6_12.0001.kunit.toy.b": "ok",
        "6_12.0002.kunit.toy.a": "ok",
        "6_12.0002.kunit.toy.b": "skipped",
    }
    assert "fails here, 0001 fixes it" in to_junit(queue())


def test_junit_of_a_broken_run() -> None:
    words = outcomes(to_junit(broken()))
    assert words["6_12.run.is_as_it_should_be"] == "failure"
    assert Counter(words.values()) == {"failure": 3, "ok": 1, "skipped": 2, "error": 1}


@pytest.mark.parametrize(("accepted", "tone"), [(("t.a",), Tone.GOOD), ((), Tone.BAD)])
def test_a_patch_breaks_only_what_it_may(accepted: tuple[str, ...], tone: Tone) -> None:
    """Though a later one mends it."""
    steps = (
        StepRecord("0001"),
        StepRecord("0002", "toy: break", accepted=accepted),
        StepRecord("0003"),
    )
    cells = [
        cell(step.label, case("t.a", status))
        for step, status in zip(steps, ("pass", "fail", "pass"), strict=True)
    ]
    view = View(record(*cells, head={"steps": steps}))
    assert view.tone is tone
    assert [judged.note for *_, judged in view.failures()] == ["0002 breaks it"] * (not accepted)
    word = "skipped" if accepted else "failure"
    assert outcomes(to_junit(view.record))["6_12.0002.kunit.t.a"] == word


@pytest.mark.parametrize("run", [KILLED, EMPTY])
def test_a_killed_run_never_passes(run: CommandRun) -> None:
    assert outcomes(to_junit(run))["6_12.run.is_as_it_should_be"] != "ok"
    found = ktap.parse(to_ktap(run).splitlines())
    assert found.count(Status.ERROR) >= 1
    assert View(run).tone is not Tone.GOOD


def test_unexpected_pass_expired_and_flaky_fail() -> None:
    verdicts = (Verdict.UNEXPECTED_PASS, Verdict.EXPIRED, Verdict.FLAKY)
    run = record(*(cell("0001", case("t.a", "pass", verdict)) for verdict in verdicts))
    assert View(run).counts == {Status.FAIL: 3}
    # Whatever the command said of itself.
    assert View(run).tone is Tone.BAD


@pytest.mark.parametrize("run", RUNS)
def test_ktap_is_read_back_with_the_same_counts(run: CommandRun) -> None:
    found = ktap.parse(to_ktap(run).splitlines())
    counts = Counter(test.status for _, test in run.tests())
    counts[Status.FAIL] += sum(bool(cell.failure) for cell in run.cells)
    counts[Status.ERROR] += run.state is not State.FINISHED or not run.cells
    assert found.problems == ()
    assert {status: found.count(status) for status in Status} == {
        status: counts[status] for status in Status
    }


def test_ktap_names_the_tests() -> None:
    found = {case.name: case.status for case in ktap.parse(to_ktap(queue()).splitlines()).tests}
    assert found["baseline.toy.a"] is Status.FAIL
    assert found["0001.toy.a"] is Status.PASS


@pytest.mark.parametrize("run", RUNS)
def test_kcidb_is_valid(run: CommandRun) -> None:
    data = to_kcidb(run)
    assert SCHEMA.is_valid(json.loads(json.dumps(data)))


def test_kcidb_has_what_was_seen() -> None:
    data = to_kcidb(queue())
    # Of all patches that are applied, as KCIDB has it: a hash of their hashes, a line each.
    lines = ["", "a" * 64 + "\n", "a" * 64 + "\n" + "b" * 64 + "\n"]
    hashes = [hashlib.sha256(text.encode()).hexdigest() if text else "" for text in lines]
    assert [one["patchset_hash"] for one in data["checkouts"]] == hashes
    assert [one["status"] for one in data["tests"]] == [
        "FAIL",
        "PASS",
        "PASS",
        "PASS",
        "PASS",
        "FAIL",
    ]
    assert "known failure until 2099-06-30" in data["tests"][-1]["comment"]
    broke = to_kcidb(UNBUILT)
    assert [one["status"] for one in broke["builds"]] == ["PASS", "FAIL"]
    # Their ERROR is a fault of the test's own.
    assert "MISS" in {one["status"] for one in to_kcidb(broken())["tests"]}


def test_no_form_lets_a_control_character_through() -> None:
    bad = re.compile("[\x00-\x08\x0b-\x1f\x7f\u202e]")
    for text in (to_junit(broken()), to_ktap(broken()), json.dumps(to_kcidb(broken()))):
        assert not bad.search(text)
        # Nor do two lines come of one name.
        assert "#1" not in [line.strip() for line in text.splitlines()]


def runs() -> st.SearchStrategy[CommandRun]:
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    tests = st.builds(
        Test,
        name=text,
        status=st.sampled_from(Status),
        verdict=st.sampled_from(Verdict),
        message=text,
    )
    cells = st.builds(
        CellRecord,
        step=text,
        lane=text,
        tests=st.lists(tests, max_size=3).map(tuple),
        failure=text,
        guest=text,
    )
    return st.builds(
        CommandRun, id=text, command=text, base=text, state=st.sampled_from(State),
        started=st.floats(0, 4e9), finished=st.none() | st.floats(0, 4e9),
        exit_code=st.none() | st.sampled_from([0, 1, 2, 3, 130]), head=st.builds(Head, title=text),
        cells=st.lists(cells, max_size=3).map(tuple),
    )  # fmt: skip


@settings(deadline=None, max_examples=40, phases=[Phase.explicit, Phase.generate])
@given(runs())
def test_any_run_has_every_form(run: CommandRun) -> None:
    view = View(run)
    assert "\n" not in view.sentence
    if run.state is not State.FINISHED or run.exit_code != 0:
        assert view.tone is not Tone.GOOD
    assert breaches(Tree.fromstring(to_junit(run))) == []
    assert ktap.parse(to_ktap(run).splitlines()).problems == ()
    to_kcidb(run)


def test_a_nasty_name_is_one_case() -> None:
    text = to_ktap(record(cell("0001", case(NASTY, "fail")), exit_code=1))
    assert len(ktap.parse(text.splitlines()).tests) == 1
