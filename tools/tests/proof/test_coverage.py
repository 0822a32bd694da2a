# SPDX-License-Identifier: GPL-2.0-only
"""Tests of coverage: what is laid over a tree, what gcov said, and the toy kernel as a process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import toy
import toykernel
from iommuq.bases.sources import Base
from iommuq.build.image import Addition, Image
from iommuq.proof import coverage
from iommuq.proof.coverage import (
    FileCover,
    FunctionCover,
    addition,
    collect,
    instrument,
    report_lines,
    to_json,
)
from iommuq.system import arches
from iommuq.system.errors import InfraError, UserError
from iommuq.system.git.objects import Objects
from toykernel import BASE, IOMMU_C, SUITE_C, Project

TEXT = b"""\
static int small(int x)
{
	return x ? 1 : 2;
}

int big(int x)
{
	if (x > 3)
		return small(x);
	return 0;
}

/* Nobody calls it, and no code is made of it. */
static inline int gone(void)
{
	return 4;
}
#include "tests/suite.c"
"""


def line(number: int, count: int, *ways: int, name: str = "big") -> dict[str, Any]:
    return {
        "line_number": number,
        "count": count,
        "function_name": name,
        "branches": [{"count": way, "throw": False, "fallthrough": True} for way in ways],
    }


def said(*lines: dict[str, Any], file: str = "/cache/src/drivers/iommu/iommu.c") -> dict[str, Any]:
    return {"files": [{"file": file, "functions": [], "lines": list(lines)}]}


def functions(*files: dict[str, Any]) -> dict[str, FunctionCover]:
    data = {"files": [each for file in files for each in file["files"]]}
    return {each.name: each for each in coverage._functions("drivers/iommu/iommu.c", TEXT, data)}


def test_lines_are_of_the_function_they_are_in() -> None:
    # What was inlined is its caller's to gcov.
    found = functions(
        said(line(3, 5, 5, 0), line(6, 7), line(8, 7, 2, 5), line(9, 0), line(10, 5)),
        said(line(2, 9, name="suite"), file="/cache/src/drivers/iommu/tests/suite.c"),
        said(line(8, 99), file="/cache/src/drivers/iommu/intel/iommu.c"),
    )
    assert found == {
        "small": FunctionCover("small", 1, {3: 5}, {3: [5, 0]}),
        "big": FunctionCover("big", 6, {6: 7, 8: 7, 9: 0, 10: 5}, {8: [2, 5]}),
    }
    assert found["small"].half == (3,)
    assert found["small"].missed == ()
    assert found["big"].missed == (9,)
    assert found["big"].half == ()
    # What was not executed at all did not decide.
    assert functions(said(line(8, 0, 0, 0)))["big"].half == ()


def test_a_line_that_was_compiled_twice() -> None:
    found = functions(said(line(8, 2, 0, 2), line(8, 3, 3, 0)), said(line(9, 1, 1, 0)))
    assert found["big"].lines == {8: 5, 9: 1}
    assert found["big"].branches == {8: [3, 2], 9: [1, 0]}
    # Not the same ways: then they are all there.
    assert functions(said(line(8, 2, 0, 2), line(8, 3, 3)))["big"].branches == {8: [0, 2, 3]}


@pytest.mark.parametrize(
    "bad",
    [
        {"files": [{"file": "drivers/iommu/iommu.c"}]},
        {"files": [{"file": "drivers/iommu/iommu.c", "lines": [{"line_number": "x"}]}]},
        {"files": [3]},
        {"files": [{"lines": []}]},
    ],
)
def test_json_of_another_form(bad: dict[str, Any]) -> None:
    with pytest.raises(InfraError, match="unexpected JSON"):
        coverage._functions("drivers/iommu/iommu.c", TEXT, bad)


def test_what_is_laid_over_the_tree(toy_base: Base, tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    folder.mkdir()
    store = Objects(toy_base.git_dir, folder)
    paths = ("drivers/iommu/iommu.c", "drivers/iommu/other.c", "drivers/iommu/intel/iommu.c")
    made = instrument(toy.OVERLAY, store, toy_base.commit, paths)
    assert made.files == toy.OVERLAY.files
    assert made.hooks[: len(toy.OVERLAY.hooks)] == toy.OVERLAY.hooks
    added = dict(made.hooks[len(toy.OVERLAY.hooks) :])
    # There is no Makefile for the third.
    assert list(added) == ["arch/um/Makefile", "arch/um/kernel/reboot.c", "drivers/iommu/Makefile"]
    flags = "-fprofile-arcs -ftest-coverage -fno-early-inlining"
    assert added["drivers/iommu/Makefile"] == (
        f"\nCFLAGS_iommu.o += {flags}\nCFLAGS_other.o += {flags}\n"
    )
    assert "__gcov_dump();" in added["arch/um/kernel/reboot.c"]
    assert made.key != toy.OVERLAY.key
    assert made.key != instrument(toy.OVERLAY, store, toy_base.commit, paths[:1]).key


def image_in(folder: Path) -> Image:
    log = folder / "log"
    return Image("0" * 64, folder, arches.get("um"), frozenset(), log, built=True)


def test_notes_and_counters_that_are_not_there(tmp_path: Path) -> None:
    objects, counters = tmp_path / "objects", tmp_path / "counters"
    (objects / "a/b").mkdir(parents=True)
    (objects / "a/x.gcno").write_text("not notes")
    (objects / "a/b/x.gcno").write_text("not notes")
    into = tmp_path / "image" / Addition.FOLDER
    into.mkdir(parents=True)
    addition(("a/x.c", "a/y.c")).make(tmp_path, objects, into, tmp_path / "log")
    assert [path.name for path in into.rglob("*.gcno")] == ["x.gcno"]
    assert addition(("a/x.c",)).key != addition(("a/y.c",)).key
    image = image_in(tmp_path / "image")
    # Another directory's file of the same name is not meant.
    (counters / "build/a/b").mkdir(parents=True)
    (counters / "build/a/b/x.gcda").write_text("not counters")
    assert collect(image, counters, {"a/y.c": b""}) == (FileCover("a/y.c", None),)
    with pytest.raises(InfraError, match=r"wrote no counters for a/x\.c"):
        collect(image, counters, {"a/x.c": b""})
    (counters / "build/a/x.gcda").write_text("not counters")
    with pytest.raises(InfraError, match="gcov"):
        collect(image, counters, {"a/x.c": b""})


COVERS = (
    FileCover(
        "a.c",
        (
            FunctionCover("f", 1, {1: 3, 2: 0, 3: 0, 4: 0, 7: 0, 8: 1}, {8: [1, 0], 1: [2, 1]}),
            FunctionCover("g", 10, {11: 1}, {11: [0, 1]}),
            FunctionCover("h", 20, {21: 0}),
        ),
    ),
    FileCover("b.c", None),
)


def test_table() -> None:
    lines = list(report_lines(COVERS, {("a.c", "f"), ("b.c", "g")}))
    assert [line.split() for line in lines] == [
        ["a.c", "lines", "branches", "not", "executed;", "one", "way", "only"],
        ["*", "f", "2/6", "33%", "3/4", "75%", "2-4,", "7;", "8"],
        ["g", "1/1", "100%", "1/2", "50%", ";", "11"],
        ["h", "0/1", "0%", "-", "21"],
        ["all", "functions", "3/8", "37%", "4/6", "66%"],
        ["*", "functions", "of", "the", "queue", "2/6", "33%", "3/4", "75%"],
        ["b.c:", "not", "in", "this", "kernel"],
    ]
    many = FunctionCover("f", 1, dict.fromkeys(range(1, 41, 2), 0))
    assert "15, …" in list(report_lines([FileCover("a.c", (many,))], ()))[1]


def test_json() -> None:
    data = to_json(COVERS, {("a.c", "f")}, "6.12", "0001")
    first, second = data["files"]
    assert (first["lines"], first["lines_executed"]) == (8, 3)
    assert first["functions"][0] == {
        "name": "f",
        "line": 1,
        "touched": True,
        "lines": 6,
        "lines_executed": 2,
        "branches": 4,
        "branches_executed": 3,
        "missed": [2, 3, 4, 7],
        "one_way": [8],
    }
    assert (second["built"], second["functions"]) == (False, [])
    json.dumps(data)


def test_another_architecture() -> None:
    coverage.check_arch("um")
    with pytest.raises(UserError, match="not for x86_64"):
        coverage.check_arch("x86_64")


CHECK = """\
/* Nobody asks for more than five. */
int toy_check(int left)
{
	if (left > 5)
		return 1;
	return left > 3 ? 2 : 3;
}

/* What each of the next"""


@pytest.fixture
def project(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project that has run its queue, with one more patch and a case for it."""
    template = toykernel.template(tmp_path_factory.getbasetemp())
    project = toykernel.copy_project(template, tmp_path / "project", warm=True)
    maker = project.maker
    edits: dict[str, tuple[str, str] | str | None] = {
        IOMMU_C: ("/* What each of the next", CHECK),
        "drivers/iommu/other.c": "int other(void)\n{\n\treturn 1;\n}\n",
    }
    maker.add("resv/0003-check.patch", maker.mail("toy: check", edits))
    expect = "\tKUNIT_EXPECT_EQ(test, toy_check(5), 2);\n"
    project.edit(SUITE_C, "\t(void)test;\n", expect + expect)
    return project


def test_toy_kernel_that_counts(project: Project) -> None:
    file = project.root / "coverage.json"
    done = project.run("kunit", BASE, "--coverage-json", str(file))
    assert done.code == 0, done
    assert "pass            toy_domain.block_refused\n" in done.out
    rows = [line.split() for line in done.out.partition("\n\n")[2].splitlines()]
    assert rows[0][:3] == [IOMMU_C, "lines", "branches"]
    assert ["*", "toy_check", "3/4", "75%", "2/4", "50%", "17;", "16,", "18"] in rows
    assert ["toy_plain", "2/2", "100%", "-"] in rows
    assert rows[-1] == ["drivers/iommu/other.c:", "not", "in", "this", "kernel"]
    # The suite is included at the end of the file, and is not in the figures.
    assert not any("plain_kept" in word for row in rows for word in row)
    data = json.loads(file.read_text())
    check = next(each for each in data["files"][0]["functions"] if each["name"] == "toy_check")
    assert (check["line"], check["missed"], check["touched"]) == (14, [17], True)
    # Nothing was written into the build directory, where the next run would add to it.
    assert not list((project.root / "cache").rglob("*.gcda"))

    # The image is there; counters are always counted again.
    project.forget_trace()
    again = project.run("kunit", BASE, "--coverage")
    assert again.out == done.out
    assert project.trace == ["kunit.py exec"]
    # A filter leaves out what its cases would have executed.
    some = project.run("kunit", BASE, "toy_domain", "--coverage")
    assert some.out.partition("* toy_check")[2].split()[:4] == ["0/4", "0%", "0/4", "0%"]


def test_the_usual_kernel_does_not_count(project: Project) -> None:
    assert project.run("kunit", BASE, "--coverage").code == 0
    project.forget_trace()
    assert project.run("kunit", BASE).code == 0
    # Another image, from the same build directory.
    assert project.trace == ["make linux", "kunit.py exec"]
    images = [path for path in (project.root / "cache/images").iterdir() if path.is_dir()]
    counting = [path for path in images if b"__gcov_dump" in (path / "linux").read_bytes()]
    assert len(counting) == 1


def test_coverage_at_a_step(project: Project) -> None:
    done = project.run("kunit", BASE, "--at", "0001", "--coverage")
    assert "toy_check" not in done.out.partition("\n\n")[2]


def test_coverage_of_a_kernel_that_is_lost(project: Project) -> None:
    project.edit(SUITE_C, "toy_block(), -22);", "toy_block(), -21);")
    project.edit(SUITE_C, "{\n\tKUNIT_EXPECT_EQ(test, toy_plain(), 2);", "{\n\tabort();")
    done = project.run("kunit", BASE, "--coverage")
    # What failed counts for more than what is not known.
    assert done.code == 1
    assert "FAIL            toy_domain.block_refused\n" in done.out
    assert "wrote no counters" in done.err
    assert IOMMU_C not in done.out.splitlines()[-1]
    project.edit(SUITE_C, "toy_block(), -21);", "toy_block(), -22);")
    assert project.run("kunit", BASE, "--coverage").code == 3


def test_coverage_bad_input(project: Project) -> None:
    done = project.run("kunit", BASE, "--coverage", "--arch", "x86_64")
    assert done.code == 2
    assert "coverage is for um only" in done.err
    done = project.run("kunit", BASE, "--coverage-json", str(project.root / "none/x.json"))
    assert done.code == 2
    assert "No such file" in done.err
