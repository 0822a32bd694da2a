# SPDX-License-Identifier: GPL-2.0-only
"""Known failures: the list of a base, its match with steps and tests, and the verdicts."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from iommuq.defaults import SUITES
from iommuq.proof import lanes
from iommuq.results.known import (
    NAME,
    Failure,
    KnownFailures,
    Verdict,
    excused,
    judge,
    judge_run,
    load_known,
)
from iommuq.results.store import Result, Status, SuiteRun
from iommuq.system.errors import UserError
from lanes_toy import queue

DAY = datetime.date(2027, 6, 1)
STEPS = ("baseline", "0001", "0002")

REASON = """
[[reason]]
text = "the core does not refuse yet"
link = "https://example.org/thread"
expires = 2027-06-01
"""
FAILURE = """
[[reason.failure]]
tests = ["kunit.s.a", "selftest.t.*"]
archs = ["um"]
since = "baseline"
until = "s/0002"
"""


def read(folder: Path, text: str) -> KnownFailures:
    """Read a list of a queue with the steps `STEPS`."""
    (folder / NAME).write_text(text)
    return load_known(queue(folder, "0001-iommu-refuse", "0002-iommu-drop-check"))


def failure(*tests: str, archs: tuple[str, ...] = (), steps: tuple[str, ...] = STEPS) -> Failure:
    return Failure(tests or ("kunit.s.a",), "reason", "link", DAY, archs, steps)


def matches(known: KnownFailures, test: str = "kunit.s.a", arch: str = "um") -> str:
    """Return at which steps a list lets a test fail, a letter each: ``X.X``."""
    found = [known.match(test, arch, step) for step in STEPS]
    return "".join("." if each is None else "X" for each in found)


def test_load(tmp_path: Path) -> None:
    known = read(tmp_path, REASON + FAILURE + '[[reason.failure]]\ntests = ["firmware.q.s.c"]\n')
    first, second = known.failures
    assert first == Failure(
        ("kunit.s.a", "selftest.t.*"),
        "the core does not refuse yet",
        "https://example.org/thread",
        DAY,
        ("um",),
        ("baseline", "0001"),
    )
    # One reason, written once.
    assert (second.reason, second.link, second.expires) == (first.reason, first.link, DAY)
    assert (second.archs, second.steps) == ((), STEPS)
    assert matches(known) == "XX."
    assert matches(known, "selftest.t.b.c") == "XX."
    assert matches(known, "selftest.s.a") == "..."
    assert matches(known, "kunit.s.a", arch="x86_64") == "..."
    assert matches(known, "firmware.q.s.c", arch="x86_64") == "XXX"


def test_no_list_and_an_empty_one_know_no_failures(tmp_path: Path) -> None:
    assert load_known(queue(tmp_path)) == KnownFailures()
    assert read(tmp_path, "# none\n") == KnownFailures()


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (None, None, "XXX"),
        ("baseline", None, "XXX"),
        (None, "0001", "X.."),
        ("0001", "0002", ".X."),
        ("0002", None, "..X"),
        ("s/0001", "s/0002-iommu-drop-check.patch", ".X."),
        ("s/0001-iommu-refuse", None, ".XX"),
    ],
)
def test_steps(tmp_path: Path, since: str | None, until: str | None, expected: str) -> None:
    text = f'{REASON}[[reason.failure]]\ntests = ["kunit.s.a"]\n'
    text += "" if since is None else f'since = "{since}"\n'
    text += "" if until is None else f'until = "{until}"\n'
    assert matches(read(tmp_path, text)) == expected


@pytest.mark.parametrize("key", ["since", "until"])
@pytest.mark.parametrize("name", ["0003", "s", "other/0001", "", "s/000"])
def test_step_that_does_not_exist(tmp_path: Path, key: str, name: str) -> None:
    text = f'{REASON}[[reason.failure]]\ntests = ["kunit.s.a"]\n{key} = "{name}"\n'
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    assert str(caught.value) == (
        f"{tmp_path / NAME}: kunit.s.a: {key}: no step {name!r} in the queue"
        " (there are baseline, 0001, 0002)"
    )


@pytest.mark.parametrize(
    "steps",
    ['until = "baseline"', 'since = "0001"\nuntil = "0001"', 'since = "0002"\nuntil = "0001"'],
)
def test_no_step_to_fail_at(tmp_path: Path, steps: str) -> None:
    text = f'{REASON}[[reason.failure]]\ntests = ["kunit.s.a"]\n{steps}\n'
    with pytest.raises(UserError, match=r"kunit\.s\.a: until: no step before it may fail"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("pattern", "test", "covered"),
    [
        ("s.a", "s.a", True),
        ("s.a", "s.ab", False),
        ("s.a", "sxa", False),
        ("s.*", "s.a.b", True),
        ("*.a", "s.a", True),
        ("s.[1]", "s.1", False),
        ("s.[1]", "s.[1]", True),
        ("s.?", "s.a", False),
    ],
)
def test_patterns(pattern: str, test: str, covered: bool) -> None:
    known = KnownFailures((failure(f"kunit.{pattern}"),))
    assert matches(known, f"kunit.{test}") == ("XXX" if covered else "...")
    assert known.of_no_test("kunit", [test, "t.t"]) == ([] if covered else [f"kunit.{pattern}"])
    assert known.of_no_test("firmware", []) == []


def test_first_entry_counts() -> None:
    first, second = failure(steps=("baseline",)), failure("kunit.s.*")
    known = KnownFailures((first, second))
    assert known.match("kunit.s.a", "um", "baseline") is first
    assert known.match("kunit.s.a", "um", "0001") is second


@pytest.mark.parametrize(
    ("status", "listed", "day", "verdict"),
    [
        (Status.PASS, False, 0, Verdict.OK),
        (Status.FAIL, False, 0, Verdict.FAILED),
        (Status.SKIP, False, 0, Verdict.SKIPPED),
        (Status.ERROR, False, 0, Verdict.ERROR),
        (Status.PASS, True, 0, Verdict.UNEXPECTED_PASS),
        (Status.FAIL, True, -1, Verdict.KNOWN),
        (Status.FAIL, True, 0, Verdict.KNOWN),
        (Status.FAIL, True, 1, Verdict.EXPIRED),
        (Status.PASS, True, 1, Verdict.EXPIRED),
        (Status.SKIP, True, 1, Verdict.EXPIRED),
        (Status.SKIP, True, 0, Verdict.SKIPPED),
        (Status.ERROR, True, 0, Verdict.ERROR),
        (Status.ERROR, True, 1, Verdict.ERROR),
    ],
)
def test_judge(status: Status, listed: bool, day: int, verdict: Verdict) -> None:
    """*day* counts from the expiry date."""
    result = Result("6.12", "0001", "kunit", "s.a", status)
    today = DAY + datetime.timedelta(days=day)
    assert judge(result, failure() if listed else None, today) is verdict


@pytest.mark.parametrize(
    ("patch", "suite", "arch", "expires", "verdict"),
    [
        ("baseline", "kunit", "um", "2999-01-01", Verdict.KNOWN),
        ("baseline", "kunit", "um", "2020-01-01", Verdict.EXPIRED),
        ("0002", "kunit", "um", "2999-01-01", Verdict.FAILED),
        ("baseline", "selftest", "um", "2999-01-01", Verdict.FAILED),
        ("baseline", "kunit", "x86_64", "2999-01-01", Verdict.FAILED),
        # The plain base is no step of the queue, so no entry is for it.
        ("base", "kunit", "um", "2999-01-01", Verdict.FAILED),
    ],
)
def test_judge_run(
    tmp_path: Path, patch: str, suite: str, arch: str, expires: str, verdict: Verdict
) -> None:
    known = read(tmp_path, REASON.replace("2027-06-01", expires) + FAILURE)
    result = Result("6.12", patch, suite, "s.a", Status.FAIL)
    run = SuiteRun("id", "6.12", patch, suite, "k", "6.12", "um", "native", 0.0, 1.0, (result,))
    assert judge_run(run, known, arch) == {"s.a": verdict}
    listed = {} if verdict is Verdict.FAILED else {"s.a": known.failures[0]}
    assert excused(run, known, arch) == listed


def test_what_fails_a_run() -> None:
    assert {verdict for verdict in Verdict if verdict.fails} == {
        Verdict.FAILED,
        Verdict.UNEXPECTED_PASS,
        Verdict.EXPIRED,
        Verdict.FLAKY,
    }


def test_tests_may_be_of_every_lane() -> None:
    assert tuple(lanes._LANES) == tuple(SUITES)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('text = "the core does not refuse yet"', "", "reason.0.text: is missing"),
        ('text = "the core does not refuse yet"', 'text = " "', "reason.0: text is empty"),
        ('link = "https://example.org/thread"', "", "reason.0.link: is missing"),
        ('link = "https://example.org/thread"', 'link = ""', "reason.0: link is empty"),
        ("expires = 2027-06-01", "", "reason.0.expires: is missing"),
        ("expires = 2027-06-01", 'expires = "some day"', "reason.0.expires: "),
        ("expires = 2027-06-01", "expires = 2027-06-01T10:00:00", "reason.0.expires: "),
        ("expires = 2027-06-01", "expired = 2027-06-01", "reason.0.expire"),
        (FAILURE, "", "reason.0.failure: is missing"),
        (FAILURE, "failure = []", "reason.0: no failure has this reason"),
        (FAILURE, "failure = 3", "reason.0.failure: "),
        ('tests = ["kunit.s.a", "selftest.t.*"]', "", "reason.0.failure.0.tests: is missing"),
        ('["kunit.s.a", "selftest.t.*"]', "[]", "reason.0.failure.0: tests is empty"),
        ('["kunit.s.a", "selftest.t.*"]', '"kunit.s.a"', "reason.0.failure.0.tests: "),
        ('"selftest.t.*"', '"kunits.t.a"', "reason.0.failure.0: tests: 'kunits.t.a' is of no"),
        ('"selftest.t.*"', '"kunit"', "reason.0.failure.0: tests: 'kunit' is of no suite"),
        ('"selftest.t.*"', '"*"', "reason.0.failure.0: tests: '*' is of no suite"),
        ('archs = ["um"]', 'archs = "um"', "reason.0.failure.0.archs: "),
        ("until", "untill", "reason.0.failure.0.untill: unknown key"),
        ("until", "bases = []\nuntil", "reason.0.failure.0.bases: unknown key"),
        ("[[reason.failure]]", "[[failure]]", "reason.0.failure: is missing"),
        ("[[reason]]", "[[reason]", "Expected"),
        (REASON + FAILURE, "reason = 3", "reason: "),
        (REASON + FAILURE, "[[reasons]]", "reasons: unknown key"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = REASON + FAILURE
    assert old in text
    with pytest.raises(UserError) as caught:
        read(tmp_path, text.replace(old, new))
    assert caught.value.what.startswith(f"{tmp_path / NAME}: ")
    assert message in caught.value.what


def test_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"\xff")
    with pytest.raises(UserError, match="not UTF-8"):
        load_known(queue(tmp_path))
