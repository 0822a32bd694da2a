# SPDX-License-Identifier: GPL-2.0-only
"""Trees on disk: switching between steps, accidents, and repositories for people."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import iommuq.queue.steps
import toy
from iommuq.bases.sources import Base
from iommuq.queue.model import Queue, load_queue
from iommuq.queue.steps import Step, apply_to_repo, checkout, forget_steps, make_steps
from iommuq.system.errors import InfraError, ObjectsLost, UserError, VerdictError
from iommuq.system.git.command import git

NEW = "drivers/iommu/new.h"


@pytest.fixture
def where(tmp_path: Path) -> Path:
    return tmp_path / "build" / "tree"


@pytest.fixture
def steps(toy_base: Base, toy_queue: Queue) -> list[Step]:
    return make_steps(toy_base, toy_queue, toy.OVERLAY)


def assert_holds(base: Base, tree: str, where: Path) -> None:
    """Check that *where* has the files of *tree*, no more and no less."""
    index = where.with_name("check.index")
    done = git("read-tree", tree, git_dir=base.git_dir, cwd=where, index=index)
    assert done.returncode == 0
    done = git("status", "--porcelain", "--ignored", git_dir=base.git_dir, cwd=where, index=index)
    unstaged = [line for line in done.output.splitlines() if line[1] != " "]
    assert unstaged == []


def test_checkout(toy_base: Base, steps: list[Step], where: Path) -> None:
    checkout(toy_base, steps[0].tree, where)
    assert_holds(toy_base, steps[0].tree, where)
    assert os.access(where / "scripts/hello.sh", os.X_OK)
    assert sorted(path.name for path in where.parent.iterdir() if "check" not in path.name) == [
        "tree",
        "tree.index",
    ]


def test_checkout_of_a_commit(toy_base: Base, where: Path) -> None:
    checkout(toy_base, toy_base.commit, where)
    assert_holds(toy_base, toy_base.commit, where)


def test_switch_writes_only_what_differs(toy_base: Base, steps: list[Step], where: Path) -> None:
    checkout(toy_base, steps[0].tree, where)
    before = toy.snapshot(where)
    checkout(toy_base, steps[1].tree, where)
    after = toy.snapshot(where)
    assert {name for name in after if before.get(name) != after[name]} == {toy.IOMMU_C, NEW}
    checkout(toy_base, steps[0].tree, where)
    assert_holds(toy_base, steps[0].tree, where)


def test_same_tree_again_writes_nothing(toy_base: Base, steps: list[Step], where: Path) -> None:
    checkout(toy_base, steps[0].tree, where)
    before = toy.snapshot(where)
    (where / "drivers/iommu/iommu.o").write_text("built", encoding="utf-8")
    checkout(toy_base, steps[0].tree, where)
    after = toy.snapshot(where)
    assert after.pop("drivers/iommu/iommu.o")[0] == b"built"
    assert after == before


def test_changes_by_hand_are_put_back(toy_base: Base, steps: list[Step], where: Path) -> None:
    checkout(toy_base, steps[0].tree, where)
    before = toy.snapshot(where)
    (where / toy.IOMMU_C).write_text("mine\n", encoding="utf-8")
    (where / "README").unlink()
    shutil.rmtree(where / "scripts")
    (where / "scripts").write_text("in the way", encoding="utf-8")
    checkout(toy_base, steps[0].tree, where)
    assert_holds(toy_base, steps[0].tree, where)
    after = toy.snapshot(where)
    changed = {name for name in after if before[name] != after[name]}
    assert changed == {toy.IOMMU_C, "README", "scripts/hello.sh"}


def test_copied_tree_is_the_same_tree(
    toy_base: Base, steps: list[Step], where: Path, tmp_path: Path
) -> None:
    """Other inodes and ctimes, as after a cache was restored, make no file differ."""
    checkout(toy_base, steps[0].tree, where)
    # What was written within the index's own second is compared by content anyway.
    past = time.time_ns() - 10**10
    for path in where.rglob("*"):
        os.utime(path, ns=(past, past), follow_symlinks=False)
    checkout(toy_base, steps[0].tree, where)
    copy = tmp_path / "copy" / "tree"
    shutil.copytree(where, copy)
    shutil.copy2(where.with_name("tree.index"), copy.with_name("tree.index"))
    before = toy.snapshot(copy)
    checkout(toy_base, steps[0].tree, copy)
    assert toy.snapshot(copy) == before


@pytest.mark.parametrize("damage", ["killed", "index lost", "index garbage", "index cut", "lock"])
def test_after_an_accident(toy_base: Base, steps: list[Step], where: Path, damage: str) -> None:
    """The files are made right again, and those that were right keep their times."""
    checkout(toy_base, steps[0].tree, where)
    before = toy.snapshot(where)
    index, busy = where.with_name("tree.index"), where.with_name("tree.busy")
    if damage == "lock":
        index.with_name("tree.index.lock").write_bytes(b"")
    else:
        (where / NEW).write_text("/* half of step 0001 */\n", encoding="utf-8")
        (where / toy.IOMMU_C).write_text("half\n", encoding="utf-8")
        busy.touch()
    if damage == "index lost":
        index.unlink()
    elif damage == "index garbage":
        busy.unlink()
        index.write_bytes(b"garbage")
    elif damage == "index cut":
        index.write_bytes(index.read_bytes()[:100])
    checkout(toy_base, steps[0].tree, where)
    assert_holds(toy_base, steps[0].tree, where)
    after = toy.snapshot(where)
    assert {name for name in after if before[name] != after[name]} <= {toy.IOMMU_C}
    assert not busy.exists()


def test_killed_in_the_middle(
    toy_base: Base, steps: list[Step], where: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout(toy_base, steps[1].tree, where)

    def killer(*words: object, **options: Any) -> object:
        git(*words, **options)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("not reached")

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(iommuq.queue.steps, "git", killer)
        checkout(toy_base, steps[0].tree, where)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert where.with_name("tree.busy").exists()
    checkout(toy_base, steps[2].tree, where)
    assert_holds(toy_base, steps[2].tree, where)


def test_a_directory_of_somebody_else(toy_base: Base, steps: list[Step], tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work\n", encoding="utf-8")
    with pytest.raises(UserError, match="not made by iommuq"):
        checkout(toy_base, steps[0].tree, mine)
    assert (mine / "thesis.txt").exists()


def test_checkout_where_a_file_is(toy_base: Base, steps: list[Step], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InfraError, match="file"):
        checkout(toy_base, steps[0].tree, tmp_path / "file")


def checkout_step(base: Base, queue: Queue, where: Path) -> Step:
    """Check a step out, and make it again if the repository lost it, as a build does."""
    step = make_steps(base, queue, toy.OVERLAY, to="0001")[-1]
    try:
        checkout(base, step.tree, where)
    except ObjectsLost:
        forget_steps(base)
        step = make_steps(base, queue, toy.OVERLAY, to="0001")[-1]
        checkout(base, step.tree, where)
    return step


def test_lost_step_is_made_again(
    toy_base: Base, toy_queue: Queue, steps: list[Step], where: Path
) -> None:
    toy.lose_objects(toy_base.git_dir, toy_base.commit)
    with pytest.raises(ObjectsLost):
        checkout(toy_base, steps[1].tree, where)
    step = checkout_step(toy_base, toy_queue, where)
    assert step == steps[1]
    assert_holds(toy_base, step.tree, where)


def test_power_cut(toy_base: Base, toy_queue: Queue, steps: list[Step], where: Path) -> None:
    """Loose objects that were never synced are empty files afterwards."""
    loose = list((toy_base.git_dir / "objects").glob("??/*"))
    in_base = toy.git("rev-list", "--objects", toy_base.commit, cwd=toy_base.git_dir)
    cut = [path for path in loose if f"{path.parent.name}{path.name}" not in in_base]
    assert len(cut) > 10
    for path in cut:
        path.chmod(0o644)
        path.write_bytes(b"")
    assert checkout_step(toy_base, toy_queue, where) == steps[1]
    assert_holds(toy_base, steps[1].tree, where)


def test_lost_base_is_an_error(toy_base: Base, toy_queue: Queue, where: Path) -> None:
    shutil.rmtree(toy_base.git_dir / "objects")
    (toy_base.git_dir / "objects").mkdir()
    with pytest.raises(InfraError) as caught:
        checkout_step(toy_base, toy_queue, where)
    assert "\n" not in str(caught.value)


# A repository for the user


def test_apply_to_repo(toy_base: Base, toy_queue: Queue, tmp_path: Path) -> None:
    into = tmp_path / "user" / "linux"
    steps = apply_to_repo(toy_base, toy_queue, into, to="0001")
    # It must outlive the cache.
    shutil.rmtree(toy_base.git_dir)
    assert toy.git("status", "--porcelain", cwd=into) == ""
    assert toy.git("rev-parse", "HEAD", cwd=into) == steps[-1].commit
    assert toy.git("branch", "--format=%(refname:short)", cwd=into) == "iommuq/6.12"
    subjects = toy.git("log", "--reverse", "--format=%s", "iommuq-base..", cwd=into)
    assert subjects.splitlines() == ["toy: go back", "toy: note regions"]
    assert (into / NEW).exists()
    toy.git("fsck", "--strict", cwd=into)


def test_apply_to_repo_of_a_shallow_base(
    toy_base: Base, toy_queue: Queue, tmp_path: Path, toy_work: Path
) -> None:
    """A base fetched from git may lack the commit before it."""
    parent = toy.git("commit-tree", "-m", "older", "HEAD^{tree}", cwd=toy_work)
    text = toy.git("cat-file", "commit", toy_base.commit, cwd=toy_work)
    text = text.replace("\nauthor", f"\nparent {parent}\nauthor", 1) + "\n"
    commit = toy.git(
        "hash-object", "-w", "-t", "commit", "--stdin", cwd=toy_base.git_dir, stdin=text.encode()
    )
    (toy_base.git_dir / "shallow").write_text(f"{commit}\n", encoding="utf-8")
    shallow = Base(
        spec=toy_base.spec,
        version=commit,
        sha256="",
        kernel=toy_base.kernel,
        commit=commit,
        git_dir=toy_base.git_dir,
    )
    apply_to_repo(shallow, toy_queue, tmp_path / "linux")
    assert len(toy.git("log", "--format=%s", cwd=tmp_path / "linux").splitlines()) == 4


def test_apply_into_what_is_not_empty(toy_base: Base, toy_queue: Queue, tmp_path: Path) -> None:
    into = tmp_path / "linux"
    into.mkdir()
    (into / "x").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="not an empty directory"):
        apply_to_repo(toy_base, toy_queue, into)
    with pytest.raises(UserError, match="not an empty directory"):
        apply_to_repo(toy_base, toy_queue, into / "x")
    assert (into / "x").read_text() == "mine"


@pytest.mark.parametrize("there", [True, False])
def test_apply_that_fails_leaves_no_trace(
    toy_base: Base, queue_maker: toy.QueueMaker, tmp_path: Path, there: bool
) -> None:
    queue_maker.three()
    into = tmp_path / "linux"
    if there:
        into.mkdir()
    mail = queue_maker.mail("toy: x", {"README": ("A toy.", "The toy.")})
    queue_maker.add("resv/0009-x.patch", mail.replace(b"-A toy.", b"-Another."))
    queue = load_queue(queue_maker.folder, "6.12")
    with pytest.raises(VerdictError, match="0009"):
        apply_to_repo(toy_base, queue, into)
    assert into.exists() == there
    # The patches before the bad one are fine; now the copying fails.
    shutil.rmtree(toy_base.git_dir / "objects")
    with pytest.raises(InfraError):
        apply_to_repo(toy_base, queue, into, to="0002")
    assert into.exists() == there
    assert not there or list(into.iterdir()) == []
