# SPDX-License-Identifier: GPL-2.0-only
"""Tests of `iommuq mutate` as a process, and of how a mutant is judged, on the toy kernel."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import toykernel
from toykernel import BASE, IOMMU_C, SUITE_C, Project

CHECK = """\
/* Is it too big? */
static int toy_check(int left)
{
	_Static_assert(sizeof(left) && 1, "toy");
	(void)left;
	if (left > 3 && left < 9)
		return -EINVAL;
	if (left > 99)
		abort();
	return 0;
}

/* What each of the next"""
#: It is not compiled.
OTHER = "int other(int x)\n{\n\treturn x && 1;\n}\n"


@pytest.fixture
def project(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project that has run its queue, with one more patch and a case for it."""
    template = toykernel.template(tmp_path_factory.getbasetemp())
    project = toykernel.copy_project(template, tmp_path / "project", warm=True)
    maker = project.maker
    edit = ("/* What each of the next", f"#include <errno.h>\n{CHECK}")
    mail = maker.mail("toy: check", {IOMMU_C: edit, "drivers/iommu/other.c": OTHER})
    maker.add("resv/0003-check.patch", mail)
    expect = "\tKUNIT_EXPECT_EQ(test, toy_check(5), -EINVAL);\n"
    project.edit(SUITE_C, "\t(void)test;\n", expect + expect.replace("5), -EINVAL", "2), 0"))
    return project


def images(project: Project) -> set[str]:
    return {path.name for path in (project.root / "cache/images").iterdir()}


def explain(project: Project, mutant: dict[str, Any], reason: str = "it is so") -> None:
    """Write an entry for a mutant of the JSON form."""
    keys = ("file", "function", "operator", "before", "after", "number")
    entry = {key: mutant[key] for key in keys}
    lines = [f"{key} = {json.dumps(value)}" for key, value in entry.items()]
    path = project.root / "patches" / BASE / "mutants.toml"
    old = path.read_text() if path.exists() else ""
    path.write_text("\n".join([old, "[[mutant]]", *lines, f"reason = {json.dumps(reason)}", ""]))


def test_list_builds_nothing(project: Project) -> None:
    done = project.run("mutate", BASE, "--list")
    assert done.code == 0
    assert project.trace == []
    lines = done.out.splitlines()
    assert lines[0] == "Linux 6.12.117 (6.12.117) 0003, mutants"
    where = lines.index("drivers/iommu/iommu.c:19 toy_check swap-logic")
    assert lines[where + 1 : where + 3] == [
        "    -        if (left > 3 && left < 9)",
        "    +        if (left > 3 || left < 9)",
    ]
    assert "drivers/iommu/other.c:3 other swap-logic" in lines
    # Touched by the other patches.
    assert any(" toy_block skip-statement" in line for line in lines)
    assert any(" toy_driver skip-statement" in line for line in lines)
    assert not any(" toy_plain " in line for line in lines)
    assert lines[-1].endswith(" mutants of 4 functions")


#: What becomes of the mutants of CHECK: operator, what it makes of the line, fate.
FATES = [
    # The assertion is the compiler's, and leaves nothing in the kernel.
    ("drop-condition", '_Static_assert(1, "toy");', "same kernel"),
    ("swap-logic", '_Static_assert(sizeof(left) || 1, "toy");', "same kernel"),
    ("negate", '_Static_assert(sizeof(left) && !(1), "toy");', "does not compile"),
    ("drop-condition", "if (left < 9)", "killed"),
    ("drop-condition", "if (left > 3)", "survived"),
    ("swap-logic", "if (left > 3 || left < 9)", "killed"),
    ("negate", "if (!(left > 3 && left < 9))", "killed"),
    ("off-by-one", "if (left > 3 && left <= 9)", "survived"),
    ("wrong-errno", "return -EPERM;", "killed"),
    ("wrong-errno", "return 0;", "killed"),
    # The guest is lost.
    ("negate", "if (!(left > 99))", "killed"),
    ("off-by-one", "if (left >= 99)", "survived"),
]


def test_mutants_are_tried_and_survivors_listed(project: Project) -> None:
    assert project.run("kunit", BASE).code == 0
    before = images(project)
    words = ("mutate", BASE, "--function", "toy_check", "--function", "other", "--timeout", "9")
    done = project.run(*words)
    assert done.code == 1, done
    # Nothing is left but what was found out.
    assert images(project) == before
    assert "survived: drivers/iommu/iommu.c:19 toy_check off-by-one\n" in done.err
    assert "survived drivers/iommu/iommu.c:19 toy_check off-by-one\n" in done.out
    left = "    -        if (left > 3 && left < 9)\n    +        if (left > 3 && left <= 9)\n"
    assert left in done.out
    assert "drivers/iommu/other.c: 6 mutants not tried, not in this kernel" in done.out

    project.forget_trace()
    again = project.run(*words)
    assert (again.code, again.out) == (1, done.out)
    assert project.trace == []

    report = json.loads(project.run(*words, "--json").out)
    mutants = report["mutants"]
    found = {(each["operator"], each["after"].strip()): each for each in mutants}
    for operator, after, fate in FATES:
        assert (operator, after, found[operator, after]["fate"]) == (operator, after, fate)
    assert "static assertion failed" in found[FATES[2][:2]]["why"]
    assert found[FATES[3][:2]]["why"] == "toy_owner.claim"
    assert found[FATES[-2][:2]]["why"].startswith("guest lost, ")
    assert {each["fate"] for each in mutants if each["file"].endswith("other.c")} == {
        "not in this kernel"
    }
    assert report["counts"] == Counter(each["fate"] for each in mutants)
    assert (report["base"], report["patch"], report["suites"]) == (BASE, "0003", ["kunit"])

    # With all survivors explained it passes.
    for each in mutants:
        if each["fate"] == "survived":
            explain(project, each)
    done = project.run(*words)
    assert done.code == 0, done
    assert " 0 survived" not in done.out
    assert f"{report['counts']['survived']} explained" in done.out
    assert project.trace == []
    # But not those that are noticed, nor those that are no more.
    explain(project, found["wrong-errno", "return 0;"])
    explain(project, {**found["wrong-errno", "return 0;"], "before": "return 7;"})
    done = project.run(*words)
    assert done.code == 1
    closing = done.out.splitlines()[-3:-1]
    assert [line.partition("mutants.toml: ")[2] for line in closing] == [
        f"mutant {report['counts']['survived'] + 2} (toy_check, wrong-errno): matches no mutant",
        "drivers/iommu/iommu.c:20 toy_check wrong-errno: listed as equivalent,"
        " but killed (toy_owner.claim)",
    ]
    assert project.trace == []


def test_what_is_known_is_of_this_kernel_and_these_tests(project: Project) -> None:
    words = ("mutate", BASE, "--function", "toy_check", "--limit", "1")
    assert project.run(*words).out.endswith("PASS: 1 mutants: 1 same kernel; 21 not tried\n")
    project.forget_trace()
    project.edit(SUITE_C, "/* A device", "/* Some device")
    assert project.run(*words).code == 0
    assert project.trace.count("make linux") > 1


def test_image_of_a_run_that_was_killed(project: Project) -> None:
    words = ("mutate", BASE, "--function", "toy_check", "--limit", "1")
    folder = project.root / "cache/mutants" / BASE
    left = project.root / "cache/images" / ("a" * 64)
    left.mkdir(parents=True)
    (left / "linux").touch()
    folder.mkdir(parents=True)
    keep = left.with_name("keep")
    keep.mkdir()
    for bad in ("./" * 30 + "keep", "", "x" * 64 + "/.."):
        (folder / "pending").write_text(bad)
        assert project.run(*words).code == 0
        assert left.exists()
        assert keep.exists()
    (folder / "pending").write_text("a" * 64)
    assert project.run(*words).code == 0
    assert not left.exists()
    assert not (folder / "pending").exists()


def test_damaged_memory_is_no_memory(project: Project) -> None:
    words = ("mutate", BASE, "--function", "toy_check", "--limit", "1", "--json")
    first = project.run(*words)
    for path in (project.root / "cache/mutants" / BASE).glob("*.json"):
        path.write_text('{"fate": "unheard of"')
    assert project.run(*words).out == first.out


def test_bad_input(project: Project) -> None:
    for words, named in {
        ("--function", "toy_chec"): "no function 'toy_chec' in a file that the queue touches",
        ("--patch", "baseline"): "baseline is no patch of the queue",
        ("--hunks", "--patch", "base"): "base is no patch of the queue",
        ("--limit", "0"): "--limit",
        ("--arch", "vax"): "vax",
        ("--config", "none"): "no configuration 'none'",
    }.items():
        done = project.run("mutate", BASE, *words)
        assert done.code == 2
        assert named in done.err
        assert len(done.err.partition("iommuq: ")[2].splitlines()) == 2
    (project.root / "patches" / BASE / "mutants.toml").write_text("[[mutant]]\nline = 7\n")
    done = project.run("mutate", BASE, "--list")
    assert done.code == 2
    assert "mutants.toml: " in done.err
    assert project.trace == []


def test_a_tree_that_is_bad_without_a_mutant(project: Project) -> None:
    maker = project.maker
    maker.add("resv/0004-bad.patch", maker.mail("toy: bad", {IOMMU_C: ("left > 99", "oops > 99")}))
    done = project.run("mutate", BASE)
    assert done.code == 1
    assert "resv/0004-bad.patch does not build for um" in done.err


def test_no_test_that_could_notice(project: Project) -> None:
    # The first case is the end of the kernel.
    project.edit(SUITE_C, "{\n\tKUNIT_EXPECT_EQ(test, toy_block(), -22);", "{\n\tabort();")
    done = project.run("mutate", BASE)
    assert done.code == 1
    assert "no test passes on 0003 without a mutant" in done.err


def test_hunks_and_lines_of_the_patches(project: Project) -> None:
    (project.root / "patches" / BASE / "proof.toml").write_text(
        '[[patch]]\nname = "resv/0001"\nfixes = ["kunit.toy_domain.block_refused"]\n'
    )
    words = ("mutate", BASE, "--hunks", "--patch", "0001", "--patch", "resv/0002", "--timeout", "9")
    done = project.run(*words, "--list")
    assert done.code == 0, done
    assert project.trace == []
    lines = done.out.splitlines()
    (where,) = (at for at, line in enumerate(lines) if " toy_block revert-hunk 0001" in line)
    assert lines[where + 1 : where + 3] == ["    -        return -22;", "    +        return 0;"]
    assert lines[-1].endswith(" hunks and lines of 2 patches")

    done = project.run(*words)
    assert done.code == 1, done
    assert "  by its own tests: kunit.toy_domain.block_refused (" in done.out
    # Its only case is known to fail.
    assert "survived drivers/iommu/iommu.c" in done.out
    assert "toy_driver revert-hunk 0002" in done.out
    project.forget_trace()
    report = json.loads(project.run(*words, "--json").out)
    assert project.trace == []
    found = {
        (each["patch"], each["operator"]): (each["fate"], each["tests"])
        for each in report["mutants"]
    }
    assert found["0001", "revert-hunk"] == ("killed", ["kunit.toy_domain.block_refused"])
    assert found["0002", "revert-hunk"] == ("survived", [])
    assert {label for label, _ in found} == {"0001", "0002"}

    # Explained; an entry for the other kinds of mutants is left to their run.
    for each in report["mutants"]:
        if each["fate"] == "survived":
            explain(project, each)
    done = project.run(*words)
    assert done.code == 0, done
    done = project.run("mutate", BASE, "--list")
    assert done.code == 0, done


def test_bad_choice_of_hunks(project: Project) -> None:
    for words, named in {
        ("--patch", "0007"): "no patch '0007' for toy",
        ("--function", "toy_chec"): "no patch changes a function 'toy_chec'",
        ("--suite", "kunits"): "no suite 'kunits'",
    }.items():
        done = project.run("mutate", BASE, "--hunks", *words)
        assert done.code == 2
        assert named in done.err
    assert project.trace == []


def test_faults_of_a_folder(project: Project) -> None:
    """They are judged as other mutants are; there is no list that explains them."""
    folder = project.root / "faults"
    folder.mkdir()
    diff = """Who wrote it, and why.
--- a/drivers/iommu/iommu.c
+++ b/drivers/iommu/iommu.c
@@ -19,2 +19,2 @@
-\tif (left > 3 && left < 9)
+\tif (left > {least} && left < 9)
 \t\treturn -EINVAL;
"""
    for name, least in (("seen", "5"), ("unseen", "4")):
        (folder / f"{name}.patch").write_text(diff.replace("{least}", least))
    words = ("mutate", BASE, "--faults", str(folder), "--timeout", "9")
    done = project.run(*words, "--list")
    assert done.code == 0, done
    assert "drivers/iommu/iommu.c:19 toy_check seen" in done.out
    done = project.run(*words)
    assert done.code == 1, done
    assert "survived drivers/iommu/iommu.c:19 toy_check unseen\n" in done.out
    assert done.out.splitlines()[-1] == "FAIL: 2 mutants: 1 killed, 1 survived"
    for more in (("--hunks",), ("--patch", "0001")):
        done = project.run(*words, *more)
        assert (done.code, "--faults excludes" in done.err) == (2, True)
