# SPDX-License-Identifier: GPL-2.0-only
"""Tests of `iommuq.proof.mutants.diffs`: faults that come as diffs."""

from __future__ import annotations

import difflib
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import toy
from iommuq.proof.mutants import diffs
from iommuq.proof.mutants.diffs import make_diff_plan
from iommuq.proof.mutants.trial import Plan
from iommuq.queue.steps import Step
from iommuq.system.errors import UserError
from iommuq.system.git.objects import Objects

PATH = "drivers/iommu/a.c"
OLD = "int f(int x)\n{\n\ta();\n\tb();\n\treturn x;\n}\n\nint g(int x)\n{\n\treturn -x;\n}\n"
OTHERS = {"Makefile": "all:\n", "scripts/mod/a.c": "int a;\n", "drivers/iommu/b.c": "int b;\n"}


class Faults:
    """A tree with all patches, and a folder of faults."""

    def __init__(self, where: Path, text: str = OLD) -> None:
        work = where / "work"
        work.mkdir(parents=True)
        (where / "tmp").mkdir()
        self.folder = where / "faults"
        self.folder.mkdir()
        toy.git("init", "--quiet", "--template=", "--initial-branch=base", cwd=work)
        toy.write_tree(work, {PATH: text, **OTHERS})
        commit = toy.commit_all(work, "all patches")
        tree = toy.git("rev-parse", f"{commit}^{{tree}}", cwd=work)
        self.text = text
        self.steps = [Step("0007", None, commit, tree)]
        self.store = Objects(work / ".git", where / "tmp")

    def write(self, name: str, new: str, words: str = "What it is.\n", path: str = PATH) -> Path:
        """Write the fault that gives a file another text."""
        old = {PATH: self.text, **OTHERS}[path]
        diff = difflib.unified_diff(
            old.splitlines(keepends=True), new.splitlines(keepends=True), f"a/{path}", f"b/{path}"
        )
        file = self.folder / f"{name}.patch"
        file.write_text(words + "".join(diff))
        return file

    def plan(self, *only: str) -> Plan:
        """Read the folder."""
        return make_diff_plan(self.store, self.steps, self.folder, only)


def test_each_file_is_a_fault(tmp_path: Path) -> None:
    """In the order of their names, with function and line, and the text that they give."""
    faults = Faults(tmp_path)
    new = {
        "2-sign": OLD.replace("-x", "x"),
        "1-order": OLD.replace("\ta();\n\tb();\n", "\tb();\n\ta();\n"),
        "3-both": OLD.replace("b();", "").replace("-x", "-1"),
    }
    for name, text in new.items():
        faults.write(name, text)
    (faults.folder / "INDEX.md").write_text("not a fault\n")
    plan = faults.plan()
    assert [(one.operator, one.function, one.line) for one in plan.mutants] == [
        ("1-order", "f", 3),
        ("2-sign", "g", 10),
        ("3-both", "f", 4),
    ]
    for one in plan.mutants:
        assert one.apply(plan.texts[one.path]).decode() == new[one.operator]
    assert (plan.mutants[1].before, plan.mutants[1].after) == ("\treturn -x;", "\treturn x;")
    assert [one.operator for one in faults.plan("g").mutants] == ["2-sign"]
    assert len(faults.plan("g").known) == 3


@pytest.mark.parametrize(
    ("path", "new", "says"),
    [
        ("Makefile", "all:\n\ttouch pwned\n", "Makefile: does not exist"),
        ("scripts/mod/a.c", "int c;\n", "scripts/mod/a.c: does not exist"),
    ],
)
def test_only_code_of_the_kernel(tmp_path: Path, path: str, new: str, says: str) -> None:
    """Neither Makefiles nor the programs of the tree are changed by a fault."""
    faults = Faults(tmp_path)
    faults.write("1", new, path=path)
    with pytest.raises(UserError, match=says):
        faults.plan()


def test_one_file_each(tmp_path: Path) -> None:
    """A fault is in one file, which it neither makes nor removes."""
    faults = Faults(tmp_path)
    one = faults.write("1", OLD.replace("b();", ""))
    two = faults.write("2", "long b;\n", path="drivers/iommu/b.c")
    one.write_text(one.read_text() + two.read_text())
    two.unlink()
    with pytest.raises(UserError, match=r"one C file, got drivers/iommu/a\.c, drivers/iommu/b\.c"):
        faults.plan()
    one.write_text("--- /dev/null\n+++ b/drivers/iommu/c.c\n@@ -0,0 +1 @@\n+int c;\n")
    with pytest.raises(UserError, match=r"one C file, got drivers/iommu/c\.c"):
        faults.plan()


def test_what_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is named, and what git says of it."""
    faults = Faults(tmp_path)
    with pytest.raises(UserError, match="got 0"):
        faults.plan()
    file = faults.write("1", OLD.replace("-x", "x"))
    with pytest.raises(UserError, match="no diff changes a function 'h'") as caught:
        faults.plan("h")
    assert caught.value.hint == "there are g"
    file.write_text(file.read_text().replace("-\treturn -x;", "-\treturn -y;"))
    with pytest.raises(UserError, match=r"1.patch: does not apply: .*a.c") as caught:
        faults.plan()
    assert caught.value.hint == "expected a diff of C files of the kernel at 0007"
    for content in (b"", b"no diff\n", b"\xff\0"):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"1.patch: "):
            faults.plan()
    file.write_bytes(b"x" * (diffs.SIZE + 1))
    with pytest.raises(UserError, match="larger than"):
        faults.plan()
    file.unlink()
    file.symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=r"1.patch"):
        faults.plan()
    monkeypatch.setattr(diffs, "MOST", 1)
    faults.write("2", OLD.replace("-x", "x"))
    with pytest.raises(UserError, match="got 2"):
        faults.plan()
    with pytest.raises(UserError, match="gone"):
        make_diff_plan(faults.store, faults.steps, tmp_path / "gone")


@pytest.mark.parametrize("name", ["\x1b[31m", "a\nPASS: 3", "ü", "-x", "a" * 101])
def test_names_that_are_not_printed(tmp_path: Path, name: str) -> None:
    """The name of a file stands in the report."""
    faults = Faults(tmp_path)
    faults.write("1", OLD.replace("-x", "x")).rename(faults.folder / f"{name}.patch")
    with pytest.raises(UserError, match="expected at most 100 letters") as caught:
        faults.plan()
    assert caught.value.what.isprintable()


def test_what_is_no_file(tmp_path: Path) -> None:
    """A pipe is not waited for."""
    faults = Faults(tmp_path)
    os.mkfifo(faults.folder / "1.patch")
    with pytest.raises(UserError, match="not a regular file"):
        faults.plan()
    (faults.folder / "1.patch").unlink()
    (faults.folder / "1.patch").mkdir()
    with pytest.raises(UserError, match=r"1\.patch"):
        faults.plan()


def test_a_mode_is_no_fault(tmp_path: Path) -> None:
    """Nor is a file of the tests, which are laid over the tree."""
    faults = Faults(tmp_path)
    mode = f"diff --git a/{PATH} b/{PATH}\nold mode 100644\nnew mode 100755\n"
    file = faults.folder / "1.patch"
    file.write_text(mode)
    with pytest.raises(UserError, match="does not apply"):
        faults.plan()
    file.unlink()
    faults.write("1", OLD.replace("-x", "x"))
    (step,) = faults.steps
    work = tmp_path / "work"
    (work / PATH).unlink()
    faults.steps = [replace(step, commit=toy.commit_all(work, "without"))]
    with pytest.raises(UserError, match="which is a test"):
        faults.plan()


@pytest.mark.parametrize(
    ("new", "function"),
    [
        (OLD.replace("int f", "int b;\nint f"), ""),
        (OLD.replace("}\n\nint g", "}\nint b;\n\nint g"), ""),
        (OLD.replace("int f", "int b;\nint f").replace("-x", "x"), "g"),
        (OLD.replace("{\n\ta", "{\n\tif (x)\n\ta"), "f"),
        (OLD.replace("return x;\n", "return x;\n\tb();\n"), "f"),
        (OLD + "int b;\n", ""),
    ],
)
def test_the_function_of_a_fault(tmp_path: Path, new: str, function: str) -> None:
    """It is the one whose lines change, and none for what is between them."""
    faults = Faults(tmp_path)
    faults.write("1", new)
    assert [one.function for one in faults.plan().mutants] == [function]


LINES = st.lists(
    st.sampled_from(["a();", "b();", "}", "int f(void) {", ""]), min_size=1, max_size=7
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(old=LINES, new=LINES)
def test_any_edit_gives_the_text_of_its_diff(
    old: list[str], new: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also at the ends of a file, and where lines are alike."""
    texts = ["".join(f"{line}\n" for line in lines) for lines in (old, new)]
    if texts[0] == texts[1]:
        return
    faults = Faults(tmp_path_factory.mktemp("any"), texts[0])
    faults.write("1", texts[1])
    plan = faults.plan()
    assert plan.mutants[0].apply(plan.texts[PATH]).decode() == texts[1]
