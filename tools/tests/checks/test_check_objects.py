# SPDX-License-Identifier: GPL-2.0-only
"""Single objects: what compiler and checkers say of the files of a patch, and what is new in it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

import toy
from iommuq.bases.sources import Base
from iommuq.build.directory import BuildDirectory
from iommuq.checks import builds, programs
from iommuq.checks import show as report
from iommuq.checks.builds import BUILT, FAILED, LEFT_OUT, Checker, Said, missing
from iommuq.checks.model import Finding, Report, Status, Subject
from iommuq.checks.tables import load_programs
from iommuq.system.files import write_json
from iommuq.system.git.objects import Objects
from iommuq.system.tables import load_json

SOURCE = Path("/cache/trees/6.12/src")
#: As 6.12 prints it with ``W=1 C=1 CHECK=sparse -k -Otarget``, cut.
LOG = f"""\
  CHECK   {SOURCE}/scripts/mod/empty.c
  CC      drivers/acpi/arm64/iort.o
{SOURCE}/drivers/acpi/arm64/iort.c:584:5: error: redefinition of 'iort_msi_map_id'
make[5]: *** [{SOURCE}/scripts/Makefile.build:234: drivers/acpi/arm64/iort.o] Error 1
  CC [M]  drivers/iommu/iommu.o
{SOURCE}/drivers/iommu/iommu.c:12:5: warning: unused variable 'x' [-Wunused-variable]
  CHECK   {SOURCE}/drivers/iommu/iommu.c
{SOURCE}/drivers/iommu/iommu.c:40:6: warning: symbol 'toy' was not declared. Should it be static?
drivers/iommu/iommu.c:77:2-7: WARNING: kmalloc should be used for x
"""


def test_what_was_said_is_sorted_by_who_said_it_of_what() -> None:
    kdir = cast(BuildDirectory, SimpleNamespace(source=SOURCE))
    heard = builds._listen(LOG, kdir)
    assert heard == {
        ("drivers/acpi/arm64/iort.c", "errors"): {
            "drivers/acpi/arm64/iort.c: redefinition of 'iort_msi_map_id'"
        },
        ("drivers/iommu/iommu.c", "warnings"): {
            "drivers/iommu/iommu.c: unused variable 'x' [-Wunused-variable]"
        },
        ("drivers/iommu/iommu.c", "remarks"): {
            "drivers/iommu/iommu.c: warning: symbol 'toy' was not declared. Should it be static?",
            "drivers/iommu/iommu.c: WARNING: kmalloc should be used for x",
        },
    }
    assert builds._FAILED.findall(LOG) == ["drivers/acpi/arm64/iort.o"]


def test_only_what_is_new_and_compiled_counts() -> None:
    old = Said(BUILT, warnings=("a.c: w",))
    new = Said(BUILT, warnings=("a.c: w", "a.c: v"))
    arm = Said(FAILED, errors=("b.c: e",), warnings=("b.c: no prototype",))
    pair = builds._Pair(
        {"a.c": old, "b.c": Said(FAILED, errors=("b.c: e",))},
        {"a.c": new, "b.c": arm, "c.c": Said(LEFT_OUT)},
    )
    assert pair.new("warnings") == ["a.c: v"]
    assert pair.broken == []
    assert pair.seen == {"a.c"}


def test_file_that_does_not_compile_any_more_is_broken() -> None:
    pair = builds._Pair({"a.c": Said(BUILT)}, {"a.c": Said(FAILED, errors=("a.c: e",))})
    assert (pair.broken, pair.new("errors"), pair.seen) == (["a.c"], ["a.c: e"], {"a.c"})


def test_note_that_is_damaged_is_made_again(tmp_path: Path) -> None:
    note = tmp_path / "checks" / "x.json"
    said = Said(BUILT, remarks=("a.c: r",))
    write_json(note, asdict(said))
    assert load_json(Said, note) == said
    for text in ("", "[]", "{}", '{"status": "built", "more": []}', "\0"):
        note.write_text(text)
        assert load_json(Said, note) is None


def test_what_a_checker_says_holds_as_long_as_the_file_does(
    toy_base: Base, toy_work: Path, tmp_path: Path
) -> None:
    """coccicheck takes a minute a file: other files of the tree must not matter."""
    del toy_base
    (tmp_path / "store").mkdir()
    store = Objects(toy_work / ".git", tmp_path / "store")
    (toy_work / "drivers/iommu/other.c").write_text("int i;\n")
    toy.commit_all(toy_work, "More")
    trees = [store.tree_of(each) for each in ("HEAD~1", "HEAD")]
    cocci, sparse = (
        [builds._content(store, tree, toy.IOMMU_C, checker) for tree in trees]
        for checker in (builds.COCCICHECK, builds.SPARSE)
    )
    assert cocci[0] == cocci[1]
    assert sparse[0] != sparse[1]
    path = toy_work / toy.IOMMU_C
    path.write_text(path.read_text() + "\nint j;\n")
    toy.commit_all(toy_work, "That file")
    tree = store.tree_of("HEAD")
    assert builds._content(store, tree, toy.IOMMU_C, builds.COCCICHECK) != cocci[0]


@pytest.mark.parametrize(("plan", "laid"), [(builds._UM, True), (builds._X86, False)])
def test_tests_of_ours_do_not_matter_to_all_drivers(
    plan: builds.Plan, laid: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edit of one does not build allmodconfig again; UML's configuration asks for them."""
    looked: list[str] = []

    def study(_: object, step: str, *__: object) -> dict[str, Said]:
        looked.append(step)
        return {}

    monkeypatch.setattr(builds, "study", study)
    fragments = SimpleNamespace(with_warnings=lambda: None)
    place = SimpleNamespace(base=None, fragments=lambda _: fragments)
    subject = SimpleNamespace(
        workspace=place, step="laid", previous="laid before", plain=("before", "after")
    )
    builds._look(plan, cast(Subject, subject), [toy.IOMMU_C], None)
    assert looked == (["laid before", "laid"] if laid else ["before", "after"])


def test_spelling_is_looked_for_in_what_a_patch_says() -> None:
    head = b"Subject: x\n\nteh\n---\ndiff --git a/x b/x\n--- a/x\n+++ b/x\n"
    mail = head + b"@@ -1 +1 @@\n-recieve\n+ok\n"
    subject = cast(Subject, SimpleNamespace(data=mail))
    said = programs._what_it_says(subject)
    assert b"recieve" not in said
    assert b"teh" in said
    assert said.split(b"\n").index(b"ok") == mail.split(b"\n").index(b"+ok")


def test_kernel_doc_is_where_kernels_have_it() -> None:
    """In Python since 2025, under another name; the checks of the two are one."""
    found = [each.files for each in load_programs() if each.name == "kernel-doc"]
    assert found == [["tools/docs/kernel-doc", "tools/lib/python/kdoc/"], ["scripts/kernel-doc"]]


@pytest.mark.parametrize("status", list(Status))
def test_table_heads_a_column_with_series_and_number(status: Status) -> None:
    text = report.as_table([Report("x", "follow-up/0001", (Finding(status, "y"),))])
    assert text == f"{'follow-up':>12}\n{'0001':>12}\nx{status.value:>11}"


def test_a_checker_needs_every_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", {"spatch": "/usr/bin/spatch"}.get)
    assert missing(Checker("x", ("spatch", "ocamlopt"), ()))
    assert not missing(Checker("x", ("spatch",), ()))
