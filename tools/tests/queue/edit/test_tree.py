# SPDX-License-Identifier: GPL-2.0-only
"""Work trees of a queue: where they are, and how they are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from iommuq.bases.sources import Base
from iommuq.queue import edit as edittree
from iommuq.queue.edit import edit
from iommuq.queue.model import Queue
from iommuq.system.errors import UserError
from person import Person


def test_note_that_is_damaged(person: Person) -> None:
    (person.tree.common / "iommuq-queue.json").write_text('{"base": 1')
    with pytest.raises(UserError, match="damaged"):
        edittree.find("6.12", person.tree.folder)


def test_finding_the_tree(person: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert edittree.find("6.12", None).folder == person.tree.folder
    assert edittree.find(None, person.tree.folder / "drivers").folder == person.tree.folder
    linked = tmp_path / "linked"
    person.git("worktree", "add", "-q", str(linked))
    monkeypatch.chdir(linked)
    assert edittree.find(None, None).folder == linked
    with pytest.raises(edittree.NoTree, match="there is no work tree of the queue of 7\\.3"):
        edittree.find("7.3", None)
    with pytest.raises(edittree.NoTree, match="not a work tree of a queue"):
        edittree.find(None, tmp_path)
    with pytest.raises(UserError, match=r"is the queue of 6\.12, not of 7\.3"):
        edittree.find("7.3", linked)


def test_usual_place_is_used_once(toy_base: Base, toy_queue: Queue) -> None:
    tree = edit(toy_base, toy_queue)
    assert tree.folder == edittree.default_place("6.12")
    with pytest.raises(UserError, match=r"there is a work tree of 6\.12 already"):
        edit(toy_base, toy_queue)
