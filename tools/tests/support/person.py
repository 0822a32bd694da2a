# SPDX-License-Identifier: GPL-2.0-only
"""Somebody at work in an edit tree of the toy queue, and what they refresh."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import toy
from iommuq.bases.sources import Base
from iommuq.queue.edit import EditTree, Refreshed, refresh
from iommuq.queue.model import load_queue
from iommuq.queue.steps import make_steps

BASELINE = "baseline/0001-toy-go-back.patch"
FIRST = "resv/0001-toy-note-regions.patch"
SECOND = "resv/0002-toy-drop-check.patch"


@dataclass
class Person:
    """Somebody at work in an edit tree.

    :ivar base: the base of the queue.
    :ivar folder: the queue's folder.
    """

    base: Base
    folder: Path
    tree: EditTree

    def git(self, *words: str) -> str:
        """Run git as a person does, with rerere and the like left alone."""
        return toy.git(*words, cwd=self.tree.folder)

    def change(self, name: str, old: str, new: str) -> None:
        """Replace a text in a file of the tree, and stage it."""
        path = self.tree.folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        self.git("add", "-f", name)

    def commit(self, subject: str, name: str, old: str, new: str) -> None:
        """Make a new commit."""
        self.change(name, old, new)
        self.git("commit", "--quiet", "-m", subject)

    def rebase(self, *todo: str) -> None:
        """Rebase with a list of what to do; ``A`` to ``C`` stand for the three patches."""
        ids = self.git("rev-list", "--reverse", "iommuq-base..HEAD").split()
        text = "\n".join(todo) + "\n"
        for letter, ident in zip("ABCDEF", ids, strict=False):
            text = re.sub(rf"\b{letter}\b", ident, text)
        path = self.tree.folder / ".git/todo"
        path.write_text(text)
        subprocess.run(
            ["git", "-c", f"sequence.editor=cp {path}", "rebase", "-q", "-i", "iommuq-base"],
            cwd=self.tree.folder,
            check=True,
        )

    def reword(self, message: str) -> None:
        """Give the first patch of the series other words."""
        quoted = message.replace("\n", "\\n")
        amend = f"exec printf '{quoted}' | git commit --amend --quiet --file=-"
        self.rebase("pick A", "pick B", amend, "pick C")

    def refresh(self, **options: bool) -> Refreshed:
        """Refresh, and see that the new queue makes exactly what is checked out."""
        done, self.tree = refresh(self.tree, self.folder, **options)  # type: ignore[arg-type]
        queue = load_queue(self.folder, "6.12")
        made = make_steps(self.base, queue, None)[-1].tree
        assert made == self.git("rev-parse", "HEAD^{tree}")
        # And once more, without a change.
        before = toy.snapshot(self.folder)
        again, self.tree = refresh(self.tree, self.folder)
        assert not again.changed
        assert toy.snapshot(self.folder) == before
        return done

    @property
    def series(self) -> str:
        """The series file."""
        return (self.folder / "series").read_text()


def actions(done: Refreshed) -> dict[str, str]:
    """Return what was done with each patch."""
    return {entry.name: entry.action for entry in done.entries}
