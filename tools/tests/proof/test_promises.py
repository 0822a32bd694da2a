# SPDX-License-Identifier: GPL-2.0-only
"""A whole proof and its promises, on lanes whose results are written down."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from iommuq.proof import promises
from iommuq.proof.matrix import fold
from iommuq.proof.prove import conclude, prove
from iommuq.queue.model import Queue
from iommuq.results.store import Store
from iommuq.system.errors import UserError
from iommuq.system.groups import pool
from lanes_toy import ToyLane, steps
from prooftoy import GOOD, Inline, lane, promise, proven


def test_promises_that_are_kept(toy: Queue, store: Store) -> None:
    promise(toy, GOOD)
    proof = proven(toy, [lane(store, **{"s.a": "f p p", "s.b": "p p p"})])
    assert proof.findings == []
    assert proof.exit_code == 0


@pytest.mark.parametrize(
    ("tests", "finding"),
    [
        ({"s.a": "f f p"}, "0001: does not fix kunit.s.a: failed before, failed after"),
        ({"s.a": "p p p"}, "0001: does not fix kunit.s.a: ok before, ok after"),
        ({"s.a": "s p p"}, "0001: does not fix kunit.s.a: skipped before, ok after"),
        ({"s.b": "f p p"}, "0001: does not fix kunit.s.a: no step has this test"),
    ],
)
def test_promises_that_are_broken(
    toy: Queue, store: Store, tests: Mapping[str, str], finding: str
) -> None:
    promise(toy, GOOD)
    proof = proven(toy, [lane(store, **tests)])
    assert proof.findings == [finding]
    assert proof.exit_code == 1


@pytest.mark.parametrize(("lacks", "kept"), [(("s.",), True), (("s.b",), False), (("t.",), False)])
def test_promise_of_a_test_that_the_kernels_cannot_have(
    toy: Queue, store: Store, lacks: tuple[str, ...], *, kept: bool
) -> None:
    """It is not held against them, and that of each other test is."""
    promise(toy, GOOD)
    tests = lane(store, **{"u.c": "p p p"})
    tests.lacks = lacks
    missing = ["0001: does not fix kunit.s.a: no step has this test"]
    assert proven(toy, [tests]).findings == ([] if kept else missing)


def test_patch_without_a_promise(toy: Queue, store: Store) -> None:
    tests = lane(store, **{"s.a": "f p p"})
    assert proven(toy, [tests]).findings == [
        "0001: no entry in proof.toml",
        "0002: no entry in proof.toml",
    ]
    # `iommuq run` is for any queue; but a file that is there counts.
    assert proven(toy, [tests], strict=False).findings == []
    promise(toy, GOOD.partition('[[patch]]\nname = "0002"')[0])
    findings = proven(toy, [tests], strict=False).findings
    assert findings == ["0002: no entry in proof.toml"]


BREAKS = GOOD.replace(
    'fixes = ["kunit.s.a"]', 'fixes = ["kunit.s.a"]\nbreaks = ["kunit.s.b"]\nbecause = "0002"'
)


@pytest.mark.parametrize(
    ("runs", "findings"),
    [
        ("p f p", []),
        ("p p p", ["0001: does not break kunit.s.b, but proof.toml says so"]),
        ("p f f", ["0001: breaks kunit.s.b, and no later patch fixes it"]),
        ("s s s", ["0001: does not break kunit.s.b, but proof.toml says so"]),
    ],
)
@pytest.mark.parametrize("names", [["kunit"], ["kunit", "selftest"]])
def test_break_that_a_later_patch_mends(
    toy: Queue, store: Store, names: list[str], runs: str, findings: list[str]
) -> None:
    promise(toy, BREAKS)
    lanes = [lane(store, name, **{"s.a": "f p p", "s.b": runs}) for name in names[:1]]
    lanes += [lane(store, name, **{"s.c": "p p p"}) for name in names[1:]]
    assert proven(toy, lanes).findings == findings


def test_break_that_stays_a_known_failure(toy: Queue, store: Store) -> None:
    """The list has its reason and its date then; the patch must name it all the same."""
    tests = lane(store, **{"s.a": "f p p", "s.b": "p f f"})
    tests.known = frozenset({"s.b"})
    promise(toy, BREAKS)
    assert proven(toy, [tests]).findings == []
    promise(toy, GOOD)
    assert proven(toy, [tests]).findings == ["0001 breaks s.b"]


def test_break_that_is_mended_after_the_steps_asked_for(toy: Queue, store: Store) -> None:
    promise(toy, BREAKS)
    tests = [lane(store, **{"s.a": "f p p", "s.b": "p f p"})]
    outcomes = prove(steps(toy)[:2], tests, Inline())
    assert conclude(outcomes, tests, toy, strict=True).findings == []


def test_break_of_a_test_that_no_step_has(toy: Queue, store: Store) -> None:
    promise(toy, BREAKS)
    assert proven(toy, [lane(store, **{"s.a": "f p p"})]).findings == [
        "0001: does not break kunit.s.b, but proof.toml says so"
    ]


NEEDED = GOOD.replace("[[patch]]", "[[patch]]\nneeded_by = ['kunit.s.b']", 1)


@pytest.mark.parametrize(
    ("runs", "findings"),
    [
        ("p p p", []),
        ("f f p", []),
        ("s s s", ["0001: is needed by kunit.s.b: skipped at the end"]),
        ("p p f", ["0001: is needed by kunit.s.b: failed at the end", "0002 breaks s.b"]),
    ],
)
def test_patch_that_others_need(toy: Queue, store: Store, runs: str, findings: list[str]) -> None:
    promise(toy, NEEDED)
    tests = [lane(store, **{"s.a": "f p p", "s.b": runs})]
    assert sorted(proven(toy, tests).findings) == findings


def test_what_needs_a_patch_is_judged_at_the_end_alone(toy: Queue, store: Store) -> None:
    promise(toy, NEEDED)
    tests = [lane(store, **{"s.a": "f p p", "s.b": "s s p"})]
    outcomes = prove(steps(toy)[:2], tests, Inline())
    assert conclude(outcomes, tests, toy, strict=True).findings == []
    tests = [lane(store, "selftest", **{"s.a": "f p p"})]
    assert proven(toy, tests).findings == []


def test_promise_of_a_suite_that_did_not_run(toy: Queue, store: Store) -> None:
    promise(toy, GOOD.replace("kunit.s.a", "selftest.s.a"))
    assert proven(toy, [lane(store, **{"s.a": "f p p"})]).findings == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[patch]]\nname='0003'\nreason='x'", "no patch '0003' in the queue"),
        ("[[patch]]\nname='baseline'\nreason='x'", "no patch 'baseline' in the queue"),
        ("[[patch]]\nname='0001'", "needs either fixes or a reason"),
        ("[[patch]]\nname='0001'\nreason=' '", "needs either fixes or a reason"),
        ("[[patch]]\nname='0001'\nreason='x'\nfixes=['a.b']", "needs either fixes or a reason"),
        ("[[patch]]\nname='0001'\nfixes=['a.*']", "'a.*' is not <suite>.<test>"),
        ("[[patch]]\nname='0001'\nfixes=['a.b','a.b']", "names a test twice"),
        ("[[patch]]\nname='0001'\nfixes=['a.b']\nbreaks=['a.c']", "wants breaks with because"),
        ("[[patch]]\nname='0001'\nreason='x'\nbecause='y'", "wants breaks with because"),
        ("[[patch]]\nname='0001'\nfixes=['a.b']\nneeded_by=['a.b']", "names a test twice"),
        (
            "[[patch]]\nname='0001'\nfixes=['kunit.a']\nneeded_by=['s.a']",
            "s.a is in no suite of this base",
        ),
        ("[[patch]]\nname='0001'\nfix=['a.b']", "fix: unknown key"),
        ("[[patch]]\nname='0001'\nfixes=['kuint.a']", "kuint.a is in no suite of this base"),
        (
            "[[patch]]\nname='0001'\nfixes=['kunit.a']\nbreaks=['s.a']\nbecause='x'",
            "s.a is in no suite of this base (the suites are kunit, kunit-tree, selftest, ",
        ),
        (
            "suites=['kunit']\n[[patch]]\nname='0001'\nfixes=['selftest.a']",
            "0001: selftest.a is in no suite of this base (the suites are kunit)",
        ),
        (
            "suites=['kuint']",
            "no suite 'kuint'; there are kunit, kunit-tree, selftest, firmware, vfio",
        ),
        ("[[patch]]\nreason='x'", "name: is missing"),
        ("[[patch]]\nname='0001'\nreason='x'\n" * 2, "0001 is listed twice"),
        ("[patch", "proof.toml: "),
    ],
)
def test_malformed_promises(toy: Queue, text: str, message: str) -> None:
    promise(toy, text)
    with pytest.raises(UserError) as caught:
        promises.load_promises(toy)
    assert message in str(caught.value)
    assert promises.NAME in str(caught.value)


def test_promised_test_that_is_not_there_before(toy: Queue, store: Store) -> None:
    promise(toy, GOOD)
    late = lane(store, **{"s.a": "f p p", "s.b": "p p p"})
    late.says = {**late.says, "baseline": {"s.b": "p"}}
    assert proven(toy, [late]).findings == [
        "0001: does not fix kunit.s.a: not run before, ok after"
    ]


def test_test_renamed_in_the_middle(toy: Queue, store: Store) -> None:
    """It proves nothing from there on, and a promise says why that is correct."""
    promise(toy, GOOD)
    renamed = lane(store, **{"s.a": "f p p", "s.old": "p p p"})
    renamed.says = {**renamed.says, "0002": {"s.a": "p", "s.new": "p"}}
    proof = proven(toy, [renamed])
    assert proof.findings == ["0002: passed before, not run now: 1 (s.old)"]
    assert proof.exit_code == 1
    breaks = 'breaks = ["kunit.s.old"]\nbecause = "s.new is its name now"\n'
    promise(toy, GOOD.replace('reason = "a clean-up"', f'reason = "a clean-up"\n{breaks}'))
    assert proven(toy, [renamed]).findings == []


def test_what_stands_on_a_step_that_does_not_build(toy: Queue, store: Store) -> None:
    promise(toy, GOOD)
    broken = lane(store, **{"s.a": "f p p", "s.b": "p p f"})
    broken.says = {label: of for label, of in broken.says.items() if label != "0001"}
    proof = proven(toy, [broken])
    assert proof.findings == [
        "0001: 0001 does not build",
        "0002 breaks s.b, compared with baseline",
    ]
    assert proof.matrix.changes[1].fixed == ("s.a",)


def test_step_that_does_not_build(toy: Queue, store: Store) -> None:
    """The steps after it are tried all the same, and it is not blamed twice."""
    promise(toy, GOOD)
    broken = lane(store, **{"s.a": "f p p"})
    broken.says = {label: of for label, of in broken.says.items() if label != "0001"}
    proof = proven(toy, [broken])
    assert proof.findings == ["0001: 0001 does not build"]
    assert broken.runs == ["baseline", "0002"]


def test_two_suites_in_one_table(toy: Queue, store: Store) -> None:
    promise(toy, GOOD)
    both = [
        lane(store, **{"s.a": "f p p"}),
        lane(store, "selftest", **{"s.a": "p p f", "s.g.x": "p p p", "s.g.y": "p p p"}),
    ]
    proof = proven(toy, both)
    assert proof.findings == ["0002 breaks selftest.s.a"]
    assert [row.name for row in proof.matrix.rows] == [
        "kunit.s.a",
        "selftest.s.a",
        "selftest.s.g.x",
        "selftest.s.g.y",
    ]
    folded = fold(proof.matrix)
    assert [row.test for row in folded.rows] == ["s.a", "s.a", "s.g.* (2)"]
    assert folded.changes == proof.matrix.changes


def test_new_warnings_name_the_patch(toy: Queue, store: Store) -> None:
    promise(toy, GOOD)
    noisy = lane(store, **{"s.a": "f p p"})
    noisy.warnings = {"baseline": ["x.c: old"], "0001": ["x.c: old"], "0002": ["x.c: new"]}
    assert proven(toy, [noisy]).findings == ["0002 adds a warning: x.c: new"]


def test_suites_run_while_the_next_step_is_built(toy: Queue, store: Store) -> None:
    """The first run waits until the second image is asked for."""
    promise(toy, GOOD)
    second = threading.Event()

    class Slow(ToyLane):
        def image(self, step: Any) -> Any:
            if step.label == "0001":
                second.set()
            return super().image(step)

        def run(self, image: Any, step: Any, *, again: bool = False) -> Any:
            assert second.wait(60)
            return super().run(image, step, again=again)

    slow = Slow(lane(store, **{"s.a": "f p p"}).says, store)
    with pool(1) as executor:
        assert proven(toy, [slow], executor=executor).findings == []


# The pool.


def test_pool_ends_what_its_threads_started(tmp_path: Path) -> None:
    from iommuq.system.run import run

    started = threading.Event()

    def sleep() -> None:
        run(["sh", "-c", "echo started; sleep 1000"], cwd=tmp_path, on_line=lambda _: started.set())

    def interrupted() -> None:
        with pool(1) as executor:
            executor.submit(sleep)
            assert started.wait(60)
            raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - begin < 500
