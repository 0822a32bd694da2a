# SPDX-License-Identifier: GPL-2.0-only
"""How a mutant that was run is judged, and what the report by patch says; nothing is built."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from iommuq.proof.lanes import Lane
from iommuq.proof.mutants import report
from iommuq.proof.mutants.faults import Edit, Mutant
from iommuq.proof.mutants.report import Explanation, Outcome
from iommuq.proof.mutants.trial import (
    NOTICED,
    Bench,
    Fate,
    MutantVerdict,
    Plan,
    Trial,
    _Judge,
    _try,
)
from iommuq.proof.promises import Promise, ProofFile
from iommuq.queue.steps import Step
from iommuq.results.store import Status, Store

LOST = {"s.a": Status.ERROR, "s.b": Status.ERROR}
WELL = {"s.a": Status.PASS, "s.b": Status.PASS}
BAD = {"s.a": Status.PASS, "s.b": Status.FAIL}


def made_image(folder: Path) -> Any:
    folder.mkdir()
    (folder / "linux").write_text(folder.name)
    return SimpleNamespace(folder=folder, arch=SimpleNamespace(image="linux"))


def judged(tmp_path: Path, *runs: Mapping[str, Status]) -> tuple[MutantVerdict, list[bool]]:
    """Judge a mutant whose guests say this, one after the other; return it and who ran again."""
    said: Iterator[Mapping[str, Status]] = iter(runs)
    asked: list[bool] = []

    def run(_image: object, _step: object, *, again: bool) -> Any:
        asked.append(again)
        results = [SimpleNamespace(test=t, status=status) for t, status in next(said).items()]
        return SimpleNamespace(results=results)

    lane = SimpleNamespace(run=run, narrowed=lambda _tests: None)
    lane.keeping = lambda _store: lane
    bench = cast(Bench, SimpleNamespace(plan=SimpleNamespace(step=None)))
    judge = _Judge(bench, cast(Lane, lane), tmp_path, cast(Store, None))
    judge.image = made_image(tmp_path / "without")
    judge.passing = frozenset(WELL)
    return judge._run(made_image(tmp_path / "with"), None, judge.passing), asked


@pytest.mark.parametrize(
    ("runs", "fate", "why"),
    [
        ([WELL], Fate.SURVIVED, ""),
        ([BAD], Fate.KILLED, "s.b"),
        # What does not pass without the mutant is not missed.
        ([WELL | {"s.c": Status.ERROR}], Fate.SURVIVED, ""),
        ([LOST, WELL], Fate.SURVIVED, ""),
        ([{"s.a": Status.PASS}, WELL], Fate.SURVIVED, ""),
        ([LOST, BAD], Fate.KILLED, "s.b"),
        ([LOST, LOST], Fate.KILLED, "guest lost, 2 tests without a verdict"),
    ],
)
def test_a_guest_that_is_lost_once_proves_nothing(
    tmp_path: Path, runs: list[dict[str, Status]], fate: Fate, why: str
) -> None:
    verdict, asked = judged(tmp_path, *runs)
    assert (verdict.fate, verdict.why) == (fate, why)
    assert asked == [False, True][: len(runs)]


def judged_by_promises(
    tmp_path: Path, first: Mapping[str, Status], whole: Mapping[str, Status]
) -> tuple[MutantVerdict, list[str]]:
    """Judge a hunk of 0001, which promises s.b; return who was asked, too."""
    asked: list[str] = []

    def lane(name: str, said: Mapping[str, Status]) -> Any:
        def run(*_: object, **__: object) -> Any:
            asked.append(name)
            return SimpleNamespace(
                results=[SimpleNamespace(test=test, status=status) for test, status in said.items()]
            )

        made = SimpleNamespace(run=run, name="firmware", narrowed=lambda _tests: None)
        made.keeping = lambda _store: made
        return made

    narrow, lane_of_all = lane("s.b", first), lane("all", whole)
    lane_of_all.narrowed = lambda tests: narrow if tests == ["s.b"] else None
    promises = {"0001": ("firmware.s.b", "kunit.s.c"), "0002": ("kunit.s.d",)}
    bench = cast(Bench, SimpleNamespace(plan=SimpleNamespace(step=None), promises=promises))
    judge = _Judge(bench, cast(Lane, lane_of_all), tmp_path, cast(Store, None))
    judge.image = made_image(tmp_path / "without")
    judge.passing = frozenset(WELL)
    mutant = Mutant("a.c", "f", "revert-hunk", 7, "x", "y", Edit(0, 1, b"y"), patch="0001")
    assert judge._first(replace(mutant, patch="0002")) is None
    run = judge._run(made_image(tmp_path / "with"), judge._first(mutant), judge.passing)
    return run, asked


def test_what_a_patch_promises_is_asked_first(tmp_path: Path) -> None:
    """A boot of one scenario, where all of them take minutes."""
    verdict, asked = judged_by_promises(tmp_path, {"s.b": Status.FAIL}, WELL)
    assert (verdict.fate, verdict.tests, asked) == (Fate.KILLED, ("s.b",), ["s.b"])


def test_all_are_asked_where_promises_do_not_notice(tmp_path: Path) -> None:
    said = {"s.b": Status.PASS}
    verdict, asked = judged_by_promises(tmp_path, said, BAD | {"s.a": Status.FAIL})
    assert (verdict.fate, verdict.tests) == (Fate.KILLED, ("s.a", "s.b"))
    assert asked == ["s.b", "all"]


def test_guests_of_promises_that_are_lost_twice_are_enough(tmp_path: Path) -> None:
    """Not every other guest is to be lost, too, one after the other."""
    verdict, asked = judged_by_promises(tmp_path, {"s.b": Status.ERROR}, WELL)
    assert (verdict.fate, verdict.why) == (Fate.KILLED, "guest lost, 1 tests without a verdict")
    assert asked == ["s.b", "s.b"]


def test_who_killed_another_is_asked_before_the_rest(tmp_path: Path) -> None:
    """No guest runs twice."""
    asked: list[list[str]] = []

    def lane(tests: Sequence[str]) -> Any:
        def run(*_: object, **__: object) -> Any:
            asked.append(sorted(tests))
            said = {test: Status.FAIL if test == bad else Status.PASS for test in tests}
            results = [SimpleNamespace(test=t, status=status) for t, status in said.items()]
            return SimpleNamespace(results=results)

        made = SimpleNamespace(run=run, narrowed=lane, name="firmware")
        made.run_key = lambda _image: "key"
        made.runs_file = lambda *_: True
        made.keeping = lambda _store: made
        return made

    whole = ("s.a", "s.b", "s.c", "s.d")
    plan = SimpleNamespace(step=None, texts={"a.c": b"x"})
    promises = {"0001": ("firmware.s.a",)}
    bench = cast(Bench, SimpleNamespace(plan=plan, promises=promises))
    judge = _Judge(bench, cast(Lane, lane(whole)), tmp_path, cast(Store, None))
    judge.passing = frozenset(whole)
    judge.image = without = made_image(tmp_path / "without")
    image = made_image(tmp_path / "with")
    without.warnings = image.warnings = frozenset()
    vars(judge)["_build"] = lambda *_: contextlib.nullcontext(image)

    def fate(text: bytes) -> Fate:
        edit = Edit(0, 1, text)
        mutant = Mutant("a.c", "f", "drop-line", 7, "x", "y", edit, patch="0001")
        return judge.judge(mutant).fate

    bad = "s.c"
    assert fate(b"1") is Fate.KILLED
    assert asked == [["s.a"], ["s.b", "s.c", "s.d"]]
    asked.clear()
    assert fate(b"2") is Fate.KILLED
    assert asked == [["s.a"], ["s.c"]]
    asked.clear()
    bad = ""
    assert fate(b"3") is Fate.SURVIVED
    assert asked == [["s.a"], ["s.c"], ["s.b", "s.d"]]


def test_only_lost_guests_are_asked_again(tmp_path: Path) -> None:
    lanes: list[Sequence[str]] = []

    def lane(*said: Mapping[str, Status]) -> Any:
        left = iter(said)

        def run(*_: object, **__: object) -> Any:
            results = [SimpleNamespace(test=t, status=status) for t, status in next(left).items()]
            return SimpleNamespace(results=results)

        def narrowed(tests: Sequence[str]) -> Any:
            lanes.append(tests)
            return lane({"s.b": Status.PASS})

        made = SimpleNamespace(run=run, narrowed=narrowed)
        made.keeping = lambda _store: made
        return made

    bench = cast(Bench, SimpleNamespace(plan=SimpleNamespace(step=None)))
    whole = cast(Lane, lane({"s.a": Status.PASS, "s.b": Status.ERROR}))
    judge = _Judge(bench, whole, tmp_path, cast(Store, None))
    judge.image = made_image(tmp_path / "without")
    judge.passing = frozenset(WELL)
    verdict = judge._run(made_image(tmp_path / "with"), None, judge.passing)
    assert (verdict.fate, lanes) == (Fate.SURVIVED, [["s.b"]])


@pytest.mark.parametrize(
    ("path", "said", "fate"),
    [
        ("amd/a.c", {"amd.b": Status.PASS}, Fate.SURVIVED),
        ("amd/a.c", {"amd.b": Status.FAIL}, Fate.KILLED),
        ("intel/a.c", {"intel.b": Status.PASS}, Fate.SURVIVED),
        ("a.c", {"amd.b": Status.PASS, "intel.b": Status.PASS}, Fate.SURVIVED),
        ("a.c", {"amd.b": Status.PASS}, Fate.KILLED),
    ],
)
def test_guests_that_do_not_run_the_file_are_not_asked(
    tmp_path: Path, path: str, said: dict[str, Status], fate: Fate
) -> None:
    """Those of another IOMMU, which do not run."""

    def lane(tests: Mapping[str, Status]) -> Any:
        results = [SimpleNamespace(test=test, status=status) for test, status in tests.items()]
        made = SimpleNamespace(run=lambda *_, **__: SimpleNamespace(results=results))
        made.keeping = lambda _store: made
        return made

    # All guests run only for a file that all of them run.
    whole = lane(said if path == "a.c" else {"amd.b": Status.FAIL, "intel.b": Status.FAIL})
    part = lane(said)
    part.narrowed = lambda _tests: None
    whole.narrowed = lambda _tests: part
    whole.runs_file = lambda test, of: "/" not in of or of.startswith(test.partition(".")[0])
    bench = cast(Bench, SimpleNamespace(plan=SimpleNamespace(step=None)))
    judge = _Judge(bench, cast(Lane, whole), tmp_path, cast(Store, None))
    judge.image = made_image(tmp_path / "without")
    judge.passing = frozenset({"amd.b", "intel.b"})
    able = judge._able(path)
    assert judge._run(made_image(tmp_path / "with"), None, able).fate is fate


def test_a_new_warning_is_noticed_without_a_boot(tmp_path: Path) -> None:
    """`iommuq prove` names a patch that adds one, so it would name what adds this one."""
    lane = SimpleNamespace(name="kunit", run_key=lambda _image: "key", narrowed=lambda _tests: None)
    lane.run = lambda *_, **__: pytest.fail("was booted")
    lane.runs_file = lambda *_: True
    plan = SimpleNamespace(step=None, texts={"a.c": b"x"})
    bench = cast(Bench, SimpleNamespace(plan=plan, promises={}))
    judge = _Judge(bench, cast(Lane, lane), tmp_path, cast(Store, None))
    judge.passing = frozenset(WELL)
    judge.image = without = made_image(tmp_path / "without")
    without.warnings = frozenset({"a.c: old"})
    image = made_image(tmp_path / "with")
    ours = "a.c: braces around empty body [-Wempty-body]"
    image.warnings = without.warnings | {"a.c: unused 'x'", ours}
    vars(judge)["_build"] = lambda *_: contextlib.nullcontext(image)
    verdict = judge.judge(Mutant("a.c", "f", "drop-line", 7, "x", "y", Edit(0, 1, b"y")))
    assert (verdict.fate, verdict.why) == (Fate.WARNED, "a.c: unused 'x'")
    image.warnings = without.warnings | {ours}
    assert judge._warned(image) is None


@pytest.mark.parametrize("fate", sorted(NOTICED))
def test_who_comes_after_the_first_to_notice_is_not_asked(fate: Fate) -> None:
    mutant = Mutant("a.c", "f", "drop-line", 7, "x", "y", Edit(0, 1, b"y"))

    def judge(name: str, *said: MutantVerdict) -> _Judge:
        left = iter(said)
        made = SimpleNamespace(
            lane=SimpleNamespace(name=name),
            is_built=lambda _path: True,
            judge=lambda _mutant: next(left),
        )
        return cast(_Judge, made)

    judges = [
        judge("kunit", MutantVerdict(Fate.SURVIVED)),
        judge("selftest", MutantVerdict(fate, "why", ("s.a",))),
        judge("firmware"),
    ]
    trial = _try(mutant, judges)
    assert trial == Trial(mutant, fate, "why", ("selftest.s.a",), "selftest")


@pytest.mark.parametrize("fate", sorted(NOTICED))
def test_an_explanation_of_what_is_noticed_is_a_finding(fate: Fate) -> None:
    mutant = Mutant("a.c", "f", "drop-line", 7, "x", "y", Edit(0, 1, b"y"))
    plan = Plan(Step("0002", None, "c", "t"), {}, (), (), (mutant,), (mutant,), ())
    entry = Explanation("a.c", "f", "drop-line", "x", "y", "no test can")
    outcome = Outcome(plan, (Trial(mutant, fate, "why"),), {mutant: entry}, ())
    (finding,) = outcome.findings
    assert finding.endswith(f"listed as equivalent, but {fate} (why)")
    assert outcome.exit_code == 1


def lines_of(*killers: str) -> list[str]:
    """Return the report on a hunk of 0001 that tests killed."""
    mutant = Mutant("a.c", "f", "revert-hunk", 7, "x", "y", Edit(0, 1, b"y"), patch="0001")
    step = Step("0002", None, "c", "t")
    plan = Plan(step, {}, (), (), (mutant,), (mutant,), (), by_patch=True)
    trials = (Trial(mutant, Fate.KILLED, "", killers, "kunit"),)
    promises = {
        "0001": Promise("0001", fixes=("kunit.s.own",), needed_by=("kunit.s.needs",)),
        "0002": Promise("0002", fixes=("kunit.s.later",)),
    }
    file = ProofFile(Path("proof.toml"), promises)
    return list(report.patch_lines(Outcome(plan, trials, {}, ()), file, ["0001", "0002"]))


def test_a_hunk_that_only_promises_of_later_patches_notice_is_told() -> None:
    told = [line for line in lines_of("kunit.s.later") if "only by promises of later" in line]
    assert told == [
        "  a.c:7 revert-hunk: killed only by promises of later patches, so iommuq prove names"
        " those: kunit.s.later (1)"
    ]
    for killers in (("kunit.s.own",), ("kunit.s.later", "kunit.s.other"), ()):
        assert not any("only by promises of later" in line for line in lines_of(*killers))


def test_who_noticed_a_hunk() -> None:
    said = lines_of("kunit.s.own", "kunit.s.other")
    at = said.index("0001: 1 killed")
    assert said[at + 1 : at + 3] == [
        "  by its own tests: kunit.s.own (1)",
        "  by other tests: kunit.s.other (1)",
    ]
    # Tests that need it count as its own, like those that it fixes.
    assert "  by its own tests: kunit.s.needs (1)" in lines_of("kunit.s.needs")
    assert "  1 by a lost guest" in lines_of()
