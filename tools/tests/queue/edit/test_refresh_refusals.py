# SPDX-License-Identifier: GPL-2.0-only
"""What is not written back, and why: nothing is lost, and no file changes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import toy
from iommuq.queue.edit import edit, refresh
from iommuq.queue.model import load_queue
from iommuq.system.errors import UserError
from person import FIRST, Person


@pytest.mark.parametrize("staged", [True, False])
def test_uncommitted_changes(person: Person, staged: bool) -> None:
    person.change("README", "A toy.", "My toy.")
    if not staged:
        person.git("reset", "-q")
    with pytest.raises(UserError, match="README changed and not committed"):
        refresh(person.tree, person.folder)


def test_something_under_way(person: Person) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        person.rebase("pick A", "exec false")
    with pytest.raises(UserError, match="a rebase is not finished"):
        refresh(person.tree, person.folder)


def test_bisection_under_way(person: Person) -> None:
    person.git("bisect", "start", "HEAD", "iommuq-base")
    with pytest.raises(UserError, match="a bisection is not finished"):
        refresh(person.tree, person.folder)


def test_look_back_at_an_earlier_commit(person: Person) -> None:
    """It is not that the later patches were dropped."""
    before = toy.snapshot(person.folder)
    person.git("checkout", "-q", "HEAD~1")
    with pytest.raises(UserError, match=r"a commit before the last of iommuq/6\.12") as caught:
        refresh(person.tree, person.folder)
    assert caught.value.hint == "`git switch iommuq/6.12`"
    assert toy.snapshot(person.folder) == before


def test_no_commit_left(person: Person) -> None:
    before = toy.snapshot(person.folder)
    person.git("checkout", "-q", "-b", "other", "iommuq-base")
    with pytest.raises(UserError, match="no commit after iommuq-base"):
        refresh(person.tree, person.folder)
    assert toy.snapshot(person.folder) == before


def test_merge_commit(person: Person) -> None:
    person.git("checkout", "-q", "-b", "side", "HEAD~1")
    person.commit("toy: side", "README", "A toy.", "My toy.")
    person.git("checkout", "-q", "iommuq/6.12")
    person.git("merge", "-q", "--no-edit", "side")
    with pytest.raises(UserError, match=r"commit \w{12} \(Merge branch 'side'.*\) is a merge"):
        refresh(person.tree, person.folder)


def test_commits_out_of_the_queue(person: Person) -> None:
    person.git("checkout", "-q", "--orphan", "other")
    person.git("commit", "-q", "-m", "Other")
    with pytest.raises(UserError, match="does not descend from iommuq-base"):
        refresh(person.tree, person.folder)


def test_commit_without_a_change(person: Person) -> None:
    person.git("commit", "-q", "--allow-empty", "-m", "toy: nothing")
    with pytest.raises(UserError, match=r"\(toy: nothing\) changes no file"):
        refresh(person.tree, person.folder)


def test_fixup_that_was_not_squashed(person: Person) -> None:
    person.change("README", "A toy.", "My toy.")
    person.git("commit", "-q", "--fixup", "HEAD")
    with pytest.raises(UserError, match="is not squashed yet"):
        refresh(person.tree, person.folder)


def test_baseline_must_stay_first(person: Person) -> None:
    person.rebase("pick B", "pick A", "pick C")
    before = toy.snapshot(person.folder)
    with pytest.raises(UserError, match=r"is in baseline/ and comes after resv/0001"):
        refresh(person.tree, person.folder)
    assert toy.snapshot(person.folder) == before


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\0\1\2" * 99, "a binary patch"),
        (b"dos\r\nends\r\n", "cannot be sent as a mail without a change"),
    ],
)
def test_what_no_mail_can_carry(person: Person, data: bytes, what: str) -> None:
    before = toy.snapshot(person.folder)
    (person.tree.folder / "README").write_bytes(data)
    person.git("commit", "-q", "-a", "-m", "toy: odd")
    with pytest.raises(UserError, match=rf"commit \w{{12}} \(toy: odd\).*{what}"):
        refresh(person.tree, person.folder)
    assert toy.snapshot(person.folder) == before


def test_message_that_cuts_the_mail_short(person: Person) -> None:
    person.git("commit", "-q", "--amend", "-m", "toy: odd\n\nSee:\n---\nand more")
    with pytest.raises(UserError, match="cannot be sent as a mail without a change"):
        refresh(person.tree, person.folder)


def test_second_refresh_says_what_the_first_changed(person: Person, tmp_path: Path) -> None:
    queue = load_queue(person.folder, "6.12")
    other = Person(person.base, person.folder, edit(person.base, queue, tmp_path / "other"))
    other.reword("toy: theirs")
    other.refresh()
    person.reword("toy: mine")
    before = toy.snapshot(person.folder)
    with pytest.raises(UserError) as error:
        refresh(person.tree, person.folder)
    assert f"{FIRST} is missing" in error.value.what
    assert "resv/0001-toy-theirs.patch is new" in error.value.what
    assert toy.snapshot(person.folder) == before
    done, _ = refresh(person.tree, person.folder, force=True)
    assert done.entries[1].name == "resv/0001-toy-mine.patch"


def test_patch_edited_by_hand_into_nonsense(person: Person) -> None:
    path = person.folder / FIRST
    path.write_text(path.read_text().replace("@@ -", "@@ ", 1))
    with pytest.raises(UserError, match=re.escape(FIRST)):
        refresh(person.tree, person.folder)
