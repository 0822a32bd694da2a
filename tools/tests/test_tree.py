# SPDX-License-Identifier: GPL-2.0-only
"""Steps of a queue, and their files on disk."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import toy

import iommuq.objects
import iommuq.worktree
from iommuq.bases import Base
from iommuq.errors import InfraError, UserError, VerdictError
from iommuq.git import git
from iommuq.objects import ObjectsLost
from iommuq.overlay import Overlay
from iommuq.patchqueue import Queue, load_queue
from iommuq.tree import Step, make_steps
from iommuq.worktree import apply_to_repo, checkout, checkout_step

OVERLAY = Overlay(
    files=(("drivers/iommu/tests/k.c", b"int k;\n", "100644"),),
    hooks=((toy.IOMMU_C, "/* hook */\n"),),
    key="1" * 64,
)
NEW = "drivers/iommu/new.h"


@pytest.fixture
def queue(queue_maker: toy.QueueMaker) -> Queue:
    queue_maker.three()
    return load_queue(queue_maker.folder, "6.12")


@pytest.fixture
def git_calls(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[object]]:
    """Record the git commands that make objects or files."""
    calls: list[Sequence[object]] = []

    def recorder(*words: object, **options: Any) -> object:
        calls.append(words)
        return git(*words, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(iommuq.objects, "git", recorder)
    monkeypatch.setattr(iommuq.worktree, "git", recorder)
    return calls


def labels(steps: Sequence[Step]) -> list[str]:
    return [step.label for step in steps]


def show(base: Base, what: str) -> str:
    return toy.git("show", "--no-patch", what, cwd=base.git_dir)


def lose_objects(base: Base, keep: str) -> None:
    """Do what a prune of the repository does, down to what *keep* needs."""
    toy.git("update-ref", "refs/heads/base", keep, cwd=base.git_dir)
    toy.git("prune", "--expire=now", cwd=base.git_dir)


def test_steps(toy_base: Base, queue: Queue, toy_work: Path) -> None:
    steps = make_steps(toy_base, queue, None)
    assert labels(steps) == ["baseline", "0001", "0002"]
    assert [step.patch.subject if step.patch else None for step in steps] == [
        None,
        "toy: note regions",
        "toy: drop the check",
    ]
    made = [toy.git("rev-parse", f"HEAD~{back}^{{tree}}", cwd=toy_work) for back in (2, 1, 0)]
    assert [step.tree for step in steps] == made
    history = toy.git("log", "--format=%s", steps[-1].commit, cwd=toy_base.git_dir)
    assert history.splitlines() == [
        "toy: drop the check",
        "toy: note regions",
        "toy: go back",
        "Linux 6.12.117",
    ]


def test_commits_come_from_the_patches_alone(
    toy_base: Base, queue: Queue, monkeypatch: pytest.MonkeyPatch, hermetic: Path, tmp_path: Path
) -> None:
    first = make_steps(toy_base, queue, None)
    text = toy.git("cat-file", "commit", first[1].commit, cwd=toy_base.git_dir)
    assert "author Ada Toy <ada@example.com> 1686132000 +0200\n" in text
    assert "committer Ada Toy <ada@example.com> 1686132000 +0200\n" in text
    assert text.endswith("\n\ntoy: note regions\n\nBecause of toys.")

    shutil.rmtree(toy_base.git_dir / "iommuq-steps")
    config = hermetic / "gitconfig"
    config.write_text("[apply]\nwhitespace = error-all\n[i18n]\ncommitEncoding = latin1\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "not-this-one"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nor-this"))
    monkeypatch.setenv("GIT_WORK_TREE", "/nor/that")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Somebody Else")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert make_steps(toy_base, queue, None) == first


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("base", ["base"]),
        ("baseline", ["baseline"]),
        ("0001", ["baseline", "0001"]),
        ("resv/0002-toy-drop-check.patch", ["baseline", "0001", "0002"]),
    ],
)
def test_stop_after(toy_base: Base, queue: Queue, to: str, expected: list[str]) -> None:
    whole = make_steps(toy_base, queue, OVERLAY)
    steps = make_steps(toy_base, queue, OVERLAY, to=to)
    assert labels(steps) == expected
    if to == "base":
        assert steps[0].commit == toy_base.commit
    else:
        assert steps == whole[: len(steps)]


def test_stop_after_what_is_not_there(toy_base: Base, queue: Queue) -> None:
    with pytest.raises(UserError, match="no patch '0007'"):
        make_steps(toy_base, queue, None, to="0007")


def test_empty_queue(toy_base: Base, queue_maker: toy.QueueMaker) -> None:
    queue = load_queue(queue_maker.folder, "6.12")
    (step,) = make_steps(toy_base, queue, None)
    assert (step.label, step.commit) == ("baseline", toy_base.commit)


def test_overlay_is_in_the_tree_and_not_in_the_commit(toy_base: Base, queue: Queue) -> None:
    bare = make_steps(toy_base, queue, None)
    laid = make_steps(toy_base, queue, OVERLAY)
    assert [step.commit for step in laid] == [step.commit for step in bare]
    for before, after in zip(bare, laid, strict=True):
        names = toy.git("diff", "--name-only", before.tree, after.tree, cwd=toy_base.git_dir)
        assert names.splitlines() == [toy.IOMMU_C, "drivers/iommu/tests/k.c"]


def test_overlay_that_does_not_fit(toy_base: Base, queue: Queue) -> None:
    overlay = Overlay((), (("no/such.c", "x\n"),), "2" * 64)
    with pytest.raises(VerdictError, match=r"6\.12 baseline: there is no file no/such\.c"):
        make_steps(toy_base, queue, overlay)


def test_second_call_runs_no_git(
    toy_base: Base, queue: Queue, git_calls: list[Sequence[object]]
) -> None:
    first = make_steps(toy_base, queue, OVERLAY)
    assert git_calls
    git_calls.clear()
    assert make_steps(toy_base, queue, OVERLAY) == first
    assert git_calls == []


def test_only_what_changed_is_made_again(
    toy_base: Base,
    queue: Queue,
    queue_maker: toy.QueueMaker,
    git_calls: list[Sequence[object]],
) -> None:
    first = make_steps(toy_base, queue, None)
    git_calls.clear()
    last = queue_maker.folder / queue_maker.names[-1]
    last.write_text(last.read_text().replace("Because of toys.", "Because."), encoding="utf-8")
    second = make_steps(toy_base, load_queue(queue_maker.folder, "6.12"), None)
    assert second[:2] == first[:2]
    assert second[2].tree == first[2].tree
    assert second[2].commit != first[2].commit
    assert [words[0] for words in git_calls] == ["read-tree", "apply", "write-tree", "commit-tree"]


@pytest.mark.parametrize("text", ["", "garbage", "\xff", "../../x y", "a" * 40])
def test_damaged_memory_is_no_memory(toy_base: Base, queue: Queue, text: str) -> None:
    first = make_steps(toy_base, queue, None)
    for path in (toy_base.git_dir / "iommuq-steps").iterdir():
        path.write_bytes(text.encode("latin-1"))
    assert make_steps(toy_base, queue, None) == first


def test_memory_that_cannot_be_written(toy_base: Base, queue: Queue) -> None:
    (toy_base.git_dir / "iommuq-steps").write_text("in the way", encoding="utf-8")
    assert labels(make_steps(toy_base, queue, OVERLAY)) == ["baseline", "0001", "0002"]


def test_lost_objects_are_made_again(toy_base: Base, queue: Queue) -> None:
    first = make_steps(toy_base, queue, None, to="0001")
    lose_objects(toy_base, toy_base.commit)
    # 0002 is new: it needs the tree of 0001, which is remembered and gone.
    steps = make_steps(toy_base, queue, None)
    assert steps[:2] == first
    assert show(toy_base, steps[-1].commit)


def refused(base: Base, maker: toy.QueueMaker) -> VerdictError:
    with pytest.raises(VerdictError) as caught:
        make_steps(base, load_queue(maker.folder, "6.12"), None)
    assert "\n" not in str(caught.value)
    return caught.value


def test_patch_that_does_not_apply(toy_base: Base, queue_maker: toy.QueueMaker) -> None:
    """The error names patch, file, hunk, line of the patch, and the place in the tree."""
    queue_maker.three()
    edits = {toy.IOMMU_C: ("int ret = 8;", "int ret = 80;")}
    mail = queue_maker.mail("toy: late", edits)
    path = queue_maker.add(
        "resv/0003-toy-late.patch", mail.replace(b"-\tint ret = 8", b"-\tint ret = 7")
    )
    text = (queue_maker.work / toy.IOMMU_C).read_text().splitlines()
    before = toy.git("for-each-ref", cwd=toy_base.git_dir)
    error = refused(toy_base, queue_maker)
    hunk = next(
        number for number, line in enumerate(path.read_text().splitlines(), 1) if line[:2] == "@@"
    )
    assert error.what.startswith(
        f"resv/0003-toy-late.patch does not apply: {toy.IOMMU_C}, hunk 1 (@@ -"
    )
    assert error.what.endswith(f"[{path}:{hunk}]")
    wrong = next(number for number, line in enumerate(text, 1) if "ret = 80" in line)
    assert (
        f"nearest text is at {toy.IOMMU_C}:{wrong - 3}, differing from line {wrong}" in error.hint
    )
    assert toy.git("for-each-ref", cwd=toy_base.git_dir) == before


def test_second_hunk_is_the_one_named(toy_base: Base, queue_maker: toy.QueueMaker) -> None:
    text = toy.FILES[toy.IOMMU_C].replace("ret = 1;", "ret = 10;").replace("ret = 8;", "ret = 80;")
    mail = queue_maker.mail("toy: two hunks", {toy.IOMMU_C: text})
    queue_maker.add("resv/0001-toy.patch", mail.replace(b"-\tint ret = 8;", b"-\tlong r = 8;"))
    assert f"{toy.IOMMU_C}, hunk 2 (@@ " in refused(toy_base, queue_maker).what


def test_patch_that_is_in_already(toy_base: Base, queue_maker: toy.QueueMaker) -> None:
    mail = queue_maker.mail("toy: once", {toy.IOMMU_C: ("int ret = 3;", "int ret = 30;")})
    queue_maker.add("resv/0001-toy.patch", mail)
    queue_maker.add("resv/0002-toy.patch", mail)
    error = refused(toy_base, queue_maker)
    assert error.what.startswith("resv/0002-toy.patch does not apply")
    assert "seems to be in" in error.hint


def test_patch_for_another_file(toy_base: Base, queue_maker: toy.QueueMaker) -> None:
    mail = queue_maker.mail("toy: x", {toy.IOMMU_C: ("int ret = 3;", "int ret = 30;")})
    queue_maker.add("resv/0001-toy.patch", mail.replace(b"iommu/iommu.c", b"iommu/gone.c"))
    error = refused(toy_base, queue_maker)
    assert "drivers/iommu/gone.c: does not exist in the tree" in error.what


def test_patch_like_nothing_there(toy_base: Base, queue_maker: toy.QueueMaker) -> None:
    mail = queue_maker.mail("toy: x", {"README": ("A toy.", "The toy.")})
    queue_maker.add("resv/0001-toy.patch", mail.replace(b"-A toy.", b"-Something else."))
    assert refused(toy_base, queue_maker).hint == "nothing in README is like it"


def test_new_file_that_exists(toy_base: Base, queue_maker: toy.QueueMaker) -> None:
    queue_maker.three()
    mail = queue_maker.mail("toy: x", {"drivers/other.h": "/* other */\n"})
    queue_maker.add("resv/0003-x.patch", mail.replace(b"drivers/other.h", NEW.encode()))
    assert f"{NEW}: already exists in the tree" in refused(toy_base, queue_maker).what


# Work trees


@pytest.fixture
def where(tmp_path: Path) -> Path:
    return tmp_path / "build" / "tree"


@pytest.fixture
def steps(toy_base: Base, queue: Queue) -> list[Step]:
    return make_steps(toy_base, queue, OVERLAY)


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
        monkeypatch.setattr(iommuq.worktree, "git", killer)
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


def test_lost_step_is_made_again(
    toy_base: Base, queue: Queue, steps: list[Step], where: Path
) -> None:
    lose_objects(toy_base, toy_base.commit)
    with pytest.raises(ObjectsLost):
        checkout(toy_base, steps[1].tree, where)
    step = checkout_step(toy_base, queue, OVERLAY, "0001", where)
    assert step == steps[1]
    assert_holds(toy_base, step.tree, where)


def test_power_cut(toy_base: Base, queue: Queue, steps: list[Step], where: Path) -> None:
    """Loose objects that were never synced are empty files afterwards."""
    loose = list((toy_base.git_dir / "objects").glob("??/*"))
    in_base = toy.git("rev-list", "--objects", toy_base.commit, cwd=toy_base.git_dir)
    cut = [path for path in loose if f"{path.parent.name}{path.name}" not in in_base]
    assert len(cut) > 10
    for path in cut:
        path.chmod(0o644)
        path.write_bytes(b"")
    assert checkout_step(toy_base, queue, OVERLAY, "0001", where) == steps[1]
    assert_holds(toy_base, steps[1].tree, where)


def test_lost_base_is_an_error(toy_base: Base, queue: Queue, where: Path) -> None:
    shutil.rmtree(toy_base.git_dir / "objects")
    (toy_base.git_dir / "objects").mkdir()
    with pytest.raises(InfraError) as caught:
        checkout_step(toy_base, queue, OVERLAY, "0001", where)
    assert "\n" not in str(caught.value)


# A repository for the user


def test_apply_to_repo(toy_base: Base, queue: Queue, tmp_path: Path) -> None:
    into = tmp_path / "user" / "linux"
    steps = apply_to_repo(toy_base, queue, into, to="0001")
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
    toy_base: Base, queue: Queue, tmp_path: Path, toy_work: Path
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
    apply_to_repo(shallow, queue, tmp_path / "linux")
    assert len(toy.git("log", "--format=%s", cwd=tmp_path / "linux").splitlines()) == 4


def test_apply_into_what_is_not_empty(toy_base: Base, queue: Queue, tmp_path: Path) -> None:
    into = tmp_path / "linux"
    into.mkdir()
    (into / "x").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="not an empty directory"):
        apply_to_repo(toy_base, queue, into)
    with pytest.raises(UserError, match="not an empty directory"):
        apply_to_repo(toy_base, queue, into / "x")
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
