# SPDX-License-Identifier: GPL-2.0-only
"""What becomes of what a guest reported about the userspace suites."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from iommuq.guests.boot import GuestLost, GuestReport, SuiteReport
from iommuq.results.store import Result, Status, SuiteRun
from iommuq.suites.kunit import SPLAT_CASE
from iommuq.suites.selftest import (
    KERNEL,
    Suite,
    _Inserts,
    _key,
    _Reader,
    choose,
    load_suites,
    reason,
    with_fixtures,
)
from iommuq.system.errors import ToolMissing, UserError
from iommuq.system.tables import load_toml

OUTPUT = ("TAP version 13", "1..2", "ok 1 a.first", "not ok 2 a.second")
GOOD = ("TAP version 13", "1..1", "ok 1 a.first")
WARN = "WARNING: CPU: 0 PID: 9 at drivers/iommu/iommu.c:1 iommu_x+0x1/0x2"


def suite(
    output: tuple[str, ...] = GOOD, *, status: int | None = 0, trouble: str = "", lines: int = 3
) -> SuiteReport:
    return SuiteReport("iommufd", status, trouble, output, 1.0, range(1, 1 + lines))


def guest(one: SuiteReport, console: tuple[str, ...] = ()) -> GuestReport:
    return GuestReport((one,), "tcg", 2.0, console)


@pytest.fixture
def reader(tmp_path: Path) -> _Reader:
    run = SuiteRun("id", "6.12", "0001", "selftest", "key", "6.12.117", "qemu", "tcg", 1.0)
    return _Reader(run, tmp_path / "log")


def verdicts(reader: _Reader) -> dict[str, Status]:
    return {result.test: result.status for result in reader.results}


def of(reader: _Reader, test: str) -> Result:
    return next(result for result in reader.results if result.test == test)


def test_cases_have_the_name_of_their_suite(reader: _Reader) -> None:
    reader.read(guest(suite(OUTPUT, status=1)), suite(OUTPUT, status=1))
    assert verdicts(reader) == {
        "iommufd.a.first": Status.PASS,
        "iommufd.a.second": Status.FAIL,
        # That it failed is said already.
        "iommufd.ends_well": Status.PASS,
    }


@pytest.mark.parametrize(
    ("report", "status", "word"),
    [
        (suite(status=139), Status.FAIL, "139"),
        (suite(status=None, trouble="did not end within 5 s"), Status.ERROR, "within 5 s"),
        (suite(()), Status.ERROR, "no KTAP"),
        (suite(("TAP version 13", "1..2", "ok 1 a.first")), Status.ERROR, ""),
        (suite(), Status.PASS, ""),
    ],
)
def test_how_a_program_ended(
    reader: _Reader, report: SuiteReport, status: Status, word: str
) -> None:
    reader.read(guest(report), report)
    assert of(reader, "iommufd.ends_well").status is status
    assert word in of(reader, "iommufd.ends_well").message


def test_a_splat_fails_the_case_it_fell_in(reader: _Reader) -> None:
    console = (
        "boot",
        f"iommuq: iommufd| {GOOD[0]}",
        f"iommuq: iommufd| {GOOD[1]}",
        WARN,
        f"iommuq: iommufd| {GOOD[2]}",
        "iommuq: end iommufd",
    )
    one = suite(lines=4)
    reader.read(guest(one, console), one)
    assert of(reader, "iommufd.a.first").status is Status.FAIL
    assert "iommu_x" in of(reader, "iommufd.a.first").message


def test_a_splat_outside_of_all_suites_has_a_case_of_its_own(reader: _Reader) -> None:
    reader.read_console(replace(guest(suite(), ("boot", WARN)), suites=()))
    assert of(reader, SPLAT_CASE).status is Status.FAIL
    reader.results.clear()
    reader.read_console(guest(suite(), ("boot",)))
    assert of(reader, SPLAT_CASE).status is Status.PASS


def test_a_lost_guest_is_an_error_and_not_a_failure(reader: _Reader) -> None:
    half = suite(status=None, trouble="the guest ended in it")
    error = GuestLost("guest lost: q35 panicked", hint="", tail="Kernel panic", report=guest(half))
    reader.lost(error, ["iommufd", "other"])
    reader.read(error.report, half)
    assert of(reader, "iommufd.ends_well").status is Status.ERROR
    assert "Kernel panic" in of(reader, "iommufd.ends_well").message
    assert of(reader, "other.ends_well").status is Status.ERROR
    assert [result.test for result in reader.results].count("iommufd.ends_well") == 1


def test_a_program_that_does_not_compile_is_a_failing_case(reader: _Reader, tmp_path: Path) -> None:
    (tmp_path / "good").touch()
    (tmp_path / "bad.failed").write_text("iommufd.c:1: error: no")
    (tmp_path / "early.skipped").write_text("iommufd_test.h has no MOCK_DEV")
    made = [Suite(name, "kernel", 1.0) for name in ("good", "bad", "none", "early")]
    assert [reader.was_built(one, tmp_path) for one in made] == [True, False, False, False]
    assert verdicts(reader) == {
        "good.builds": Status.PASS,
        "bad.builds": Status.FAIL,
        "none.builds": Status.SKIP,
        "early.builds": Status.SKIP,
    }
    assert of(reader, "early.builds").message == "iommufd_test.h has no MOCK_DEV"
    assert "error: no" in of(reader, "bad.builds").message


OWN = Suite("b", "project", 1.0, program="iommufd", fixtures=("f", "g"), header="MOCK_DEV")


def test_of_a_program_of_the_tree_the_project_s_fixtures_are_run() -> None:
    assert OWN.argv == ("/suites/b", "-f", "f", "-f", "g")
    assert Suite("a", "kernel", 1.0).argv == ("/suites/a",)


def test_the_project_s_fixtures_are_in_the_programs(tmp_path: Path) -> None:
    folder = Path(__file__).parents[3] / "selftests"
    inserts = load_toml(_Inserts, folder / "export.toml").insert
    tree = tmp_path / "tree"
    for name in ("iommufd.c", "iommufd_utils.h"):
        path = tree / KERNEL / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("int tree;\nTEST_HARNESS_MAIN\n")
    with_fixtures(tree, folder, inserts, tmp_path / "src")
    # A tree without the third program has none of it.
    made = {path.name: path.read_text() for path in (tmp_path / "src").iterdir()}
    assert made.keys() == {"iommufd.c", "iommufd_utils.h"}
    assert "_test_cmd_mock_dev(" in made["iommufd_utils.h"]
    one = next(suite for suite in load_suites(folder.parent) if suite.name == "resv_direct")
    for fixture in one.fixtures:
        assert f"\nFIXTURE({fixture})\n" in made[f"{one.program}.c"]
    found = re.findall(r"^FIXTURE\((\w+)\)", (folder / "iommu/resv_direct.c").read_text(), re.M)
    assert sorted(found) == sorted(one.fixtures)


def test_suites_are_chosen_by_name() -> None:
    suites = (Suite("a", "kernel", 1.0), OWN)
    assert choose(suites, []) == suites
    assert choose(suites, ["b"]) == suites[1:]
    with pytest.raises(UserError, match="no suite 'c'; there are a, b"):
        choose(suites, ["c"])


def test_the_project_s_own_list_is_well_formed() -> None:
    names = [suite.name for suite in load_suites(Path(__file__).parents[3])]
    assert names[:2] == ["iommufd", "iommufd_fail_nth"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('[[suite]]\nname = "x"\nlimit = 1\n', "source"),
        ('[[suite]]\nname = "x"\nsource = "project"\nlimit = 1\n', "program is for"),
        ('[[suite]]\nname = "x"\nsource = "web"\nlimit = 1\n', "neither kernel nor project"),
        ('[[suite]]\nname = "x"\nsource = "kernel"\nlimit = 1\nodd = 1\n', "odd"),
        ("suite = 1", "suite"),
    ],
)
def test_a_malformed_list(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "selftests").mkdir()
    (tmp_path / "selftests/suites.toml").write_text(text)
    with pytest.raises(UserError, match=word):
        load_suites(tmp_path)


def test_missing_package_is_no_verdict_on_the_tree() -> None:
    said = "iommufd.c:5:10: fatal error: sys/capability.h: No such file or directory\n"
    with pytest.raises(ToolMissing, match=r"sys/capability\.h is not installed, iommufd\.c"):
        reason(said, "iommufd.c", Path("/src"))


def test_missing_header_of_the_tree_is_a_verdict() -> None:
    said = "/src/x.c:5:10: fatal error: linux/iommufd.h: No such file or directory\nmake: ***\n"
    assert reason(said, "x.c", Path("/src")) == said.splitlines()[0].removeprefix("/src/")


def test_programs_depend_on_what_they_are_made_of(tmp_path: Path) -> None:
    uapi = tmp_path / "include/uapi/linux/iommufd.h"
    harness = tmp_path / "tools/testing/selftests/kselftest_harness.h"
    core = tmp_path / "drivers/iommu/iommu.c"
    for path in (uapi, harness, core):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    keys = [_key(tmp_path, "own")]
    core.write_text("2")
    assert _key(tmp_path, "own") == keys[0]
    for path in (uapi, harness):
        path.write_text("2")
        keys.append(_key(tmp_path, "own"))
    keys.append(_key(tmp_path, "other"))
    assert len(set(keys)) == 4
