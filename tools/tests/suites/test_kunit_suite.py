# SPDX-License-Identifier: GPL-2.0-only
"""Tests of `iommuq.suites.kunit`: what becomes of a log, and when it is run again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from iommuq.build.image import Image, hashes_of
from iommuq.results.store import Result, Status, Store, SuiteRun
from iommuq.suites import kunit
from iommuq.suites.kunit import Subject, run_kunit
from iommuq.system import arches
from iommuq.system.errors import ToolMissing, UserError

DATA = Path(__file__).parents[1] / "data"
SUBJECT = Subject("6.12", "0001", "6.12.117")
RUN = SuiteRun("id", "6.12", "0001", "kunit", "key", "6.12.117", "um", "native", 0.0)
SMALL = (
    "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..1\n    {}ok 1 c\n{}ok 1 s\n"
)


def results(output: str, *, glob: str = "", reason: str = "") -> dict[str, Result]:
    found = kunit._results(RUN, glob, output, reason, Path("/logs/x"))
    return {result.test: result for result in found}


def test_a_real_log() -> None:
    found = results((DATA / "kunit-uml.log").read_text())
    assert found["iommu_set_domain.identity_allowed"].status is Status.PASS
    assert found["iommu_set_domain.blocked_refused"].status is Status.FAIL
    assert "Expected ret == -22" in found["iommu_set_domain.blocked_refused"].message
    assert found["iommu_set_domain.deferred_attach"].status is Status.SKIP
    assert found[kunit.SPLAT_CASE].status is Status.PASS
    assert kunit.LOG_CASE not in found
    assert all(result.log == "/logs/x" for result in found.values())


# It was the second case that broke, and nobody knows of the rest.
PANIC = {
    "iommu_set_domain.identity_allowed": "pass",
    "iommu_set_domain.#2": "fail",
    "iommu_set_domain.#3": "error",
    "iommu_set_domain.#4": "error",
    "#2": "error",
    "#3": "error",
    kunit.SPLAT_CASE: "pass",
}


def test_a_panic_amid_the_suite() -> None:
    found = results((DATA / "kunit-panic.log").read_text())
    assert {name: result.status.value for name, result in found.items()} == PANIC


def test_a_kernel_without_a_word() -> None:
    found = results("UML: out of memory\n", reason="kunit.py ended with 1")
    assert list(found) == ["kernel.boots"]
    assert found["kernel.boots"].status is Status.ERROR
    assert found["kernel.boots"].message == (
        "guest lost: kunit.py ended with 1\nUML: out of memory"
    )


def test_a_filter_that_matches_nothing() -> None:
    with pytest.raises(UserError, match="no case matches 'x'"):
        results("KTAP version 1\n1..0\n", glob="x")
    # Without a filter it is the kernel that has no suite.
    assert results("KTAP version 1\n1..0\n")["kernel.boots"].status is Status.ERROR


def test_all_passed_but_the_end_is_not_known() -> None:
    good = SMALL.format("", "")
    assert {result.status for result in results(good).values()} == {Status.PASS}
    found = results(good, reason="the kernel did not end within 5 s")
    assert found["s.c"].status is Status.PASS
    assert found[kunit.LOG_CASE].status is Status.ERROR
    assert "did not end within 5 s" in found[kunit.LOG_CASE].message


def test_a_plan_that_is_not_kept() -> None:
    found = results(SMALL.format("", "").replace("    1..1", "    1..2"))
    assert Status.ERROR in {result.status for result in found.values()}


def test_splats() -> None:
    splat = "BUG: sleeping function called from invalid context at mm/slab.h:321\n"
    good = SMALL.format("", "")
    found = results(good.replace("    ok 1 c", f"{splat}    ok 1 c"))
    assert found["s.c"].status is Status.FAIL
    assert "sleeping function" in found["s.c"].message
    found = results(splat + good)
    assert found["s.c"].status is Status.PASS
    assert found[kunit.SPLAT_CASE].status is Status.FAIL


@pytest.fixture
def make_image(tmp_path: Path) -> Callable[[str], Image]:
    """Return a function that makes an image whose kunit.py is the given program."""

    def make(program: str) -> Image:
        folder = tmp_path / "image"
        script = folder / "tools/testing/kunit/kunit.py"
        script.parent.mkdir(parents=True, exist_ok=True)
        count = f"open({str(tmp_path / 'boots')!r}, 'a').write('x')\n"
        script.write_text(count + program)
        (folder / "linux").write_text("")
        (folder / ".kunitconfig").write_text("")
        warnings: frozenset[str] = frozenset()
        log = tmp_path / "log"
        return Image("key", folder, arches.get("um"), warnings, log, False, hashes_of(folder))

    return make


def boots(tmp_path: Path) -> int:
    return len((tmp_path / "boots").read_text())


def test_a_run_is_kept_under_its_key(tmp_path: Path, make_image: Callable[[str], Image]) -> None:
    image = make_image(f"print({SMALL.format('not ', 'not ')!r})")
    first = run_kunit(image, SUBJECT)
    assert first.complete
    assert [result.status for result in first.results] == [Status.FAIL, Status.PASS]
    # The same image may be another step of another base.
    other = run_kunit(image, Subject("6.13", "0007", "6.12.117"))
    assert boots(tmp_path) == 1
    assert {(result.base, result.patch) for result in other.results} == {("6.13", "0007")}
    run_kunit(replace(image, key="other"), SUBJECT)
    assert boots(tmp_path) == 2
    run_kunit(image, SUBJECT, filters=("s", "s.c"))
    assert boots(tmp_path) == 4
    run_kunit(image, SUBJECT, again=True)
    assert boots(tmp_path) == 5


def test_a_splat_in_one_of_several_boots(make_image: Callable[[str], Image]) -> None:
    """Each boot says whether there was one: a later boot without one must not hide it."""
    splat = "BUG: sleeping function called from invalid context at mm/slab.h:321\n"
    image = make_image(
        f"import sys; print(({splat!r} if sys.argv[-1] == 's' else '') + {SMALL.format('', '')!r})"
    )
    for filters in (("s", "s.c"), ("s.c", "s")):
        run = run_kunit(image, SUBJECT, filters=filters)
        found = {result.test: result.status for result in run.results}
        assert len(run.results) == len(found) == 2
        assert found == {"s.c": Status.PASS, kunit.SPLAT_CASE: Status.FAIL}


def test_an_error_is_tried_again(tmp_path: Path, make_image: Callable[[str], Image]) -> None:
    image = make_image("import sys; sys.exit('no memory')")
    for _ in range(2):
        run = run_kunit(image, SUBJECT)
        assert run.has_errors
        assert "no memory" in run.results[0].message
    assert boots(tmp_path) == 2
    run = run_kunit(make_image(f"print({SMALL.format('', '')!r})"), SUBJECT)
    assert not run.has_errors


def test_what_kunit_py_is_asked(make_image: Callable[[str], Image]) -> None:
    image = make_image("import sys, os; print(sys.argv); print(os.listdir(sys.argv[5]))")
    run = run_kunit(image, SUBJECT, filters=("s.*",), limit=7.0)
    message = run.results[0].message
    assert "'exec', '--arch', 'um', '--build_dir'" in message
    assert "'--timeout=7', '--raw_output=all', 's.*'" in message
    assert "'linux'" in message


def test_kunit_py_that_never_ends(
    monkeypatch: pytest.MonkeyPatch, make_image: Callable[[str], Image]
) -> None:
    monkeypatch.setattr(kunit, "_GRACE", 0.5)
    image = make_image("import time; print('last words', flush=True); time.sleep(600)")
    run = run_kunit(image, SUBJECT, limit=0.1)
    assert run.results[0].status is Status.ERROR
    assert "did not end within 0.6 s" in run.results[0].message
    assert "last words" in run.results[0].message


@pytest.mark.parametrize(
    ("flood", "said"),
    [
        ("while True: print('noise' * 1000)", "wrote more than 1048576 bytes"),
        ("[print('noise') for _ in range(20_000)]", "wrote more than 10000 lines"),
    ],
)
def test_a_kernel_that_writes_without_end(
    monkeypatch: pytest.MonkeyPatch, make_image: Callable[[str], Image], flood: str, said: str
) -> None:
    monkeypatch.setattr(kunit, "CONSOLE_LIMIT", 1 << 20)
    monkeypatch.setattr(kunit, "LINES", 10_000)
    run = run_kunit(make_image(f"print({SMALL.format('', '')!r})\n{flood}"), SUBJECT, limit=20.0)
    found = {result.test: result for result in run.results}
    assert found["s.c"].status is Status.PASS
    assert found[kunit.LOG_CASE].status is Status.ERROR
    assert said in found[kunit.LOG_CASE].message


def test_odd_bytes(make_image: Callable[[str], Image]) -> None:
    text = SMALL.format("not ", "not ").replace(
        "    not ok 1 c", "    # c: caf\\xe9\\0\n    not ok 1 c"
    )
    image = make_image(f'import sys; sys.stdout.buffer.write(b"""{text}""")')
    run = run_kunit(image, SUBJECT)
    assert "caf\\xe9" in run.results[0].message
    assert Store().get(run.id) == run


def test_missing_guest(monkeypatch: pytest.MonkeyPatch, make_image: Callable[[str], Image]) -> None:
    image = replace(make_image(""), arch=arches.get("x86_64"))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    with pytest.raises(ToolMissing, match="qemu-system-x86_64 is not installed"):
        run_kunit(image, SUBJECT)
