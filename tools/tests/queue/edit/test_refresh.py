# SPDX-License-Identifier: GPL-2.0-only
"""What is written back from the commits of a work tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import toy
from commandcall import call
from iommuq.bases.sources import Base
from iommuq.cli.commands import queue as queuecommands
from iommuq.queue.edit import edit, refresh
from iommuq.queue.model import load_queue
from iommuq.system.errors import UserError
from person import BASELINE, FIRST, SECOND, Person, actions


def test_without_a_change_no_file_changes(person: Person) -> None:
    before = toy.snapshot(person.folder)
    done = person.refresh()
    assert actions(done) == dict.fromkeys((BASELINE, FIRST, SECOND), "unchanged")
    assert toy.snapshot(person.folder) == before


def test_rewritten_commits_that_say_the_same_keep_their_files(person: Person) -> None:
    """Other commit ids, as after a rebase that changed nothing, are no change."""
    before = toy.snapshot(person.folder)
    person.git("rebase", "-q", "--force-rebase", "iommuq-base")
    assert person.git("rev-parse", "HEAD") != person.tree.note.tip
    assert not person.refresh().changed
    assert toy.snapshot(person.folder) == before


def test_amended_commit_changes_its_file_alone(person: Person) -> None:
    before = toy.snapshot(person.folder)
    person.change("drivers/iommu/intel/iommu.c", "return 1;", "return 2;")
    person.git("commit", "--quiet", "--amend", "--no-edit")
    assert actions(person.refresh())[SECOND] == "changed"
    after = toy.snapshot(person.folder)
    assert {name for name in after if after[name] != before[name]} == {SECOND}
    assert b"+\treturn 2;" in after[SECOND][0]
    assert b"Date: Wed, 7 Jun 2023 12:00:00 +0200" in after[SECOND][0]


def test_patch_after_an_amended_one_keeps_its_file(person: Person) -> None:
    """Its lines moved, and the blobs it starts from have other ids; it says the same."""
    person.git("checkout", "-q", "HEAD~1")
    person.change(toy.IOMMU_C, "#include <linux/iommu.h>", "#include <linux/iommu.h>\n\nint i;")
    person.git("commit", "--quiet", "--amend", "--no-edit")
    person.git("cherry-pick", "iommuq/6.12")
    assert list(actions(person.refresh()).values()) == ["unchanged", "changed", "unchanged"]


def test_rewrite_writes_them_as_git_does(person: Person) -> None:
    """The toy's patches were written with a signature and short blob ids."""
    done = person.refresh(rewrite_all=True)
    assert list(actions(done).values()) == ["changed"] * 3
    text = (person.folder / FIRST).read_text()
    assert text.startswith("From " + "0" * 40)
    assert re.search(r"^index [0-9a-f]{40}\.\.[0-9a-f]{40} 100644$", text, re.MULTILINE)
    assert not re.search(r"^-- $", text, re.MULTILINE)


def test_what_a_person_configured_does_not_show(person: Person) -> None:
    for key, value in {
        "format.signature": "me",
        "format.signOff": "true",
        "diff.noprefix": "true",
        "diff.context": "9",
        "format.subjectPrefix": "RFC",
        "diff.algorithm": "patience",
    }.items():
        person.git("config", key, value)
    person.change("README", "A toy.", "My toy.")
    person.git("commit", "--quiet", "--amend", "--no-edit")
    person.refresh()
    text = (person.folder / SECOND).read_text()
    assert "Subject: [PATCH] toy: drop" in text
    assert "Signed-off-by" not in text
    assert "--- a/README" in text
    assert not text.rstrip().endswith("me")


def test_new_commit_stands_in_the_section_before_it(person: Person) -> None:
    person.commit("toy: one more", "README", "A toy.", "My toy.")
    done = person.refresh()
    assert actions(done)["resv/0003-toy-one-more.patch"] == "new"
    assert person.series.endswith("resv/0003-toy-one-more.patch\n")


def test_new_commit_between_two_moves_the_number_of_the_next(person: Person) -> None:
    person.commit("toy: one more", "README", "A toy.", "My toy.")
    person.rebase("pick A", "pick B", "pick D", "pick C")
    assert actions(person.refresh()) == {
        BASELINE: "unchanged",
        FIRST: "unchanged",
        "resv/0002-toy-one-more.patch": "new",
        "resv/0003-toy-drop-check.patch": "renamed",
    }
    assert not (person.folder / SECOND).exists()


def test_new_commit_after_the_baseline_is_to_be_sent(person: Person) -> None:
    person.commit("toy: one more", "README", "A toy.", "My toy.")
    person.rebase("pick A", "pick D", "pick B", "pick C")
    assert list(actions(person.refresh()).values()) == ["unchanged", "new", "renamed", "renamed"]
    assert (person.folder / "resv/0001-toy-one-more.patch").exists()


def test_new_commit_in_a_section_that_is_named(person: Person) -> None:
    person.commit("toy: one more", "README", "A toy.", "My toy.")
    done, tree = refresh(person.tree, person.folder, section="extra")
    assert done.entries[-1].name == "extra/0001-toy-one-more.patch"
    with pytest.raises(UserError, match="is not a valid section name"):
        refresh(tree, person.folder, section="../extra")


def test_empty_queue_must_be_told_the_section(
    toy_base: Base, queue_maker: toy.QueueMaker, tmp_path: Path
) -> None:
    tree = edit(toy_base, load_queue(queue_maker.folder, "6.12"), tmp_path / "linux")
    person = Person(toy_base, queue_maker.folder, tree)
    person.commit("toy: first", "README", "A toy.", "My toy.")
    with pytest.raises(UserError, match="no section for the patch 'toy: first'"):
        refresh(tree, queue_maker.folder)
    refresh(tree, queue_maker.folder, section="new")
    assert person.series == "new/0001-toy-first.patch\n"


def test_dropped_commit_takes_its_file_along(person: Person) -> None:
    person.rebase("pick A", "pick C")
    done = person.refresh()
    assert done.dropped == (FIRST,)
    assert not (person.folder / FIRST).exists()
    # The others keep their names: they are spoken of elsewhere.
    assert person.series.split() == [BASELINE, SECOND]


def test_last_commit_of_a_section_takes_the_folder_along(person: Person) -> None:
    person.rebase("pick B", "pick C")
    person.refresh()
    assert not (person.folder / "baseline").exists()


def test_reordered_commits_change_numbers_and_keep_their_text(person: Person) -> None:
    text = (person.folder / FIRST).read_bytes()
    person.rebase("pick A", "pick C", "pick B")
    done = person.refresh()
    assert [entry.name for entry in done.entries] == [
        BASELINE,
        SECOND,
        "resv/0003-toy-note-regions.patch",
    ]
    assert (person.folder / "resv/0003-toy-note-regions.patch").read_bytes() == text


def test_new_subject_is_the_same_patch_under_a_new_name(person: Person) -> None:
    person.reword("toy: note them all\n\nBecause.")
    done = person.refresh()
    assert done.entries[1].old == FIRST
    assert done.entries[1].name == "resv/0001-toy-note-them-all.patch"
    assert not done.dropped


def test_name_that_a_person_chose_survives_a_new_subject(
    toy_base: Base, queue_maker: toy.QueueMaker, tmp_path: Path
) -> None:
    mail = queue_maker.mail("toy: note", {toy.IOMMU_C: ("int ret = 4;", "int ret = 40;")})
    queue_maker.add("resv/fix-it.patch", mail)
    queue = load_queue(queue_maker.folder, "6.12")
    person = Person(toy_base, queue.folder, edit(toy_base, queue, tmp_path / "linux"))
    person.git("commit", "--quiet", "--amend", "-m", "toy: other words")
    assert actions(person.refresh()) == {"resv/fix-it.patch": "changed"}


def test_comments_of_the_series_stay_where_they_belong(person: Person) -> None:
    text = (
        f"# The queue.\n\n# Back.\n{BASELINE}  # never sent\n\n# The series.\n{FIRST}\n{SECOND}\n"
    )
    (person.folder / "series").write_text(text + "# The end.\n")
    person.tree = edit(person.base, load_queue(person.folder, "6.12"), person.folder / "../../l2")
    person.rebase("pick A", "pick C", "pick B")
    person.refresh()
    assert person.series == (
        f"# The queue.\n\n# Back.\n{BASELINE}  # never sent\n\n# The series.\n{SECOND}\n"
        "resv/0003-toy-note-regions.patch\n# The end.\n"
    )


def test_commands_print_what_they_did(
    person: Person, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(person.tree.folder)
    (person.tree.folder / "drivers/forgotten.c").write_text("int i;\n")
    person.reword("toy: note them all")
    options = {"section": None, "rewrite_all": False, "force": False}
    call(queuecommands.refresh, None, None, **options)
    said = capsys.readouterr()
    assert re.search(
        r"^changed +resv/0001-toy-note-them-all\.patch \(was resv/0001", said.out, re.M
    )
    assert "in no commit: drivers/forgotten.c (git add -f)" in said.err
