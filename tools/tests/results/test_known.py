# SPDX-License-Identifier: GPL-2.0-only
"""Known failures: the list, its match with steps and tests, and the verdicts."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from iommuq.results.known import Failure, KnownFailures, Step, Verdict, judge, load
from iommuq.results.store import Result, Status
from iommuq.system.errors import UserError

STEPS = (
    Step("baseline"),
    Step("0001", "resv-direct/0001-iommu-refuse-blocking.patch"),
    Step("0002", "resv-direct/0002-iommu-vt-d-drop-check.patch"),
)
DAY = datetime.date(2027, 6, 1)

ENTRY = """
[[failure]]
test = "iommu_set_domain.blocked_refused"
bases = ["6.12"]
until = "resv-direct/0001"
reason = "the core does not refuse yet"
link = "https://example.org/thread"
expires = 2027-06-01
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "known-failures.toml"
    path.write_text(text)
    return path


def failure(test: str = "s.a", start: str | None = None, until: str | None = None) -> Failure:
    return Failure(test, "reason", "link", DAY, start=start, until=until, where="x.toml: failure 1")


def matches(entry: Failure, test: str = "s.a", base: str = "6.12", arch: str = "um") -> str:
    """Return at which steps *entry* lets a test fail, a letter each: ``X.X``."""
    known = KnownFailures((entry,))
    found = [
        known.match(test, base=base, arch=arch, steps=STEPS, at=at) for at in range(len(STEPS))
    ]
    return "".join("." if each is None else "X" for each in found)


def test_load(tmp_path: Path) -> None:
    (entry,) = load(write(tmp_path, ENTRY)).failures
    assert entry.test == "iommu_set_domain.blocked_refused"
    assert entry.bases == ("6.12",)
    assert entry.archs == ()
    assert (entry.start, entry.until) == (None, "resv-direct/0001")
    assert entry.expires == DAY
    assert matches(entry, entry.test) == "X.."
    assert matches(entry, entry.test, base="7.3") == "..."


def test_empty_list_is_a_list(tmp_path: Path) -> None:
    assert load(write(tmp_path, "")) == KnownFailures()


@pytest.mark.parametrize(
    ("start", "until", "expected"),
    [
        (None, None, "XXX"),
        ("baseline", None, "XXX"),
        (None, "0001", "X.."),
        ("0001", "0002", ".X."),
        ("0002", None, "..X"),
        ("baseline", "baseline", "..."),
        ("resv-direct/0001", "resv-direct/0002-iommu-vt-d-drop-check.patch", ".X."),
        ("resv-direct/0001-iommu-refuse-blocking", None, ".XX"),
    ],
)
def test_steps(start: str | None, until: str | None, expected: str) -> None:
    assert matches(failure(start=start, until=until)) == expected


@pytest.mark.parametrize("wanted", ["0003", "resv-direct", "other/0001", "", "resv-direct/000"])
def test_step_that_does_not_exist(wanted: str) -> None:
    with pytest.raises(UserError) as caught:
        matches(failure(until=wanted))
    assert str(caught.value) == (
        f"x.toml: failure 1: no step {wanted!r} in the queue of 6.12"
        " (there are baseline, 0001, 0002)"
    )


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
    assert failure(pattern).covers(test) is covered


def test_arch(tmp_path: Path) -> None:
    (entry,) = load(write(tmp_path, ENTRY + 'archs = ["um"]\n')).failures
    assert matches(entry, entry.test, arch="um") == "X.."
    assert matches(entry, entry.test, arch="x86_64") == "..."


def test_first_entry_counts() -> None:
    first, second = failure(until="0001"), failure("s.*")
    known = KnownFailures((first, second))
    assert known.match("s.a", base="6.12", arch="um", steps=STEPS, at=0) is first
    assert known.match("s.a", base="6.12", arch="um", steps=STEPS, at=1) is second


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


def test_what_fails_a_run() -> None:
    assert {verdict for verdict in Verdict if verdict.fails} == {
        Verdict.FAILED,
        Verdict.UNEXPECTED_PASS,
        Verdict.EXPIRED,
        Verdict.FLAKY,
    }


@pytest.mark.parametrize("key", ["test", "reason", "link", "expires"])
def test_entry_without_a_key(tmp_path: Path, key: str) -> None:
    lines = [line for line in ENTRY.splitlines() if not line.startswith(key)]
    with pytest.raises(UserError) as caught:
        load(write(tmp_path, "\n".join(lines)))
    assert f"has no {key}" in str(caught.value)
    assert "known-failures.toml: failure 1" in str(caught.value)
    assert key == "test" or "blocked_refused" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('reason = " "', "reason must be a text"),
        ('link = ""', "link must be an address"),
        ('expires = "2027-06-01"', "expires must be a date"),
        ("expires = 2027-06-01T00:00:00", "expires must be a date"),
        ("test = 3", "test must be a name"),
        ('bases = "6.12"', "bases must be a list of names"),
        ("bases = [6.12]", "bases must be a list of names"),
        ("bases = []", "bases must be a list of names"),
        ('untill = "0001"', "'untill' is not known"),
        ('from = ""', "from must be a step"),
    ],
)
def test_bad_entry(tmp_path: Path, line: str, message: str) -> None:
    key = line.split()[0]
    kept = [each for each in ENTRY.splitlines() if each.split(" ")[0] != key]
    with pytest.raises(UserError) as caught:
        load(write(tmp_path, "\n".join([*kept, line])))
    assert message in str(caught.value)
    assert "failure 1" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[failure]", "Expected"),
        ("failure = 3", "is not [[failure]]"),
        ("[failure]\ntest = 'x'", "is not [[failure]]"),
        ("failure = [3]", "failure 1: not a table"),
        ("[[failures]]", "'failures' is not [[failure]]"),
    ],
)
def test_bad_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(write(tmp_path, text))
    assert message in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        load(tmp_path / "none.toml")


def test_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "known-failures.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(UserError, match="utf-8"):
        load(path)
