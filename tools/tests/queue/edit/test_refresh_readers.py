# SPDX-License-Identifier: GPL-2.0-only
"""What is written back is what quilt, git quiltimport and git am read."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import toy
from iommuq.queue.model import load_queue
from person import Person


def test_quilt_takes_the_series_and_gives_it_back(person: Person, toy_work: Path) -> None:
    """`quilt push -a` makes what the commits make, and `quilt pop -a` takes it back."""
    if shutil.which("quilt") is None:
        pytest.skip("quilt is not installed")
    person.commit("toy: one more", "README", "A toy.", "My toy.")
    person.rebase("pick A", "pick B", "pick D", "pick C")
    person.refresh()
    tree = toy_work.parent / "plain"
    toy.git("worktree", "add", "-q", str(tree), "iommuq-base", cwd=person.tree.folder)

    def quilt(*words: str) -> None:
        subprocess.run(
            ["quilt", "--quiltrc", "-", *words],
            cwd=tree,
            env={"PATH": "/usr/bin:/bin", "QUILT_PATCHES": str(person.folder)},
            check=True,
            stdout=subprocess.DEVNULL,
        )

    quilt("push", "-a")
    toy.git("add", "-A", "-f", "drivers", "README", cwd=tree)
    assert toy.git("diff", "--cached", "--stat", "iommuq/6.12", cwd=tree) == ""
    quilt("pop", "-a")
    toy.git("add", "-A", "-f", "drivers", "README", cwd=tree)
    assert toy.git("diff", "--cached", "--stat", "iommuq-base", cwd=tree) == ""


def test_git_am_and_quiltimport_take_the_series(person: Person) -> None:
    person.commit("toy: one more", "README", "A toy.", "My toy.")
    person.refresh()
    wanted = person.git("rev-parse", "HEAD^{tree}")
    person.git("checkout", "-q", "-b", "am", "iommuq-base")
    names = load_queue(person.folder, "6.12").patches
    person.git("am", "-q", *(str(patch.path) for patch in names))
    assert person.git("rev-parse", "HEAD^{tree}") == wanted
    person.git("checkout", "-q", "-b", "import", "iommuq-base")
    person.git("quiltimport", "--patches", str(person.folder))
    assert person.git("rev-parse", "HEAD^{tree}") == wanted
