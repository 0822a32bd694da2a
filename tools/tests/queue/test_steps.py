# SPDX-License-Identifier: GPL-2.0-only
"""The steps of a queue: what is made, what is remembered, what is said when a patch is refused."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import iommuq.system.git.objects
import toy
from iommuq.bases.sources import Base
from iommuq.queue.model import Queue, load_queue
from iommuq.queue.overlay import Overlay
from iommuq.queue.steps import Step, make_step, make_steps
from iommuq.system.errors import UserError, VerdictError
from iommuq.system.git.command import git

NEW = "drivers/iommu/new.h"


@pytest.fixture
def git_calls(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[object]]:
    """Record the git commands that make objects."""
    calls: list[Sequence[object]] = []

    def recorder(*words: object, **options: Any) -> object:
        calls.append(words)
        return git(*words, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(iommuq.system.git.objects, "git", recorder)
    return calls


def labels(steps: Sequence[Step]) -> list[str]:
    return [step.label for step in steps]


def show(base: Base, what: str) -> str:
    return toy.git("show", "--no-patch", what, cwd=base.git_dir)


def test_steps(toy_base: Base, toy_queue: Queue, toy_work: Path) -> None:
    steps = make_steps(toy_base, toy_queue, None)
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
    toy_base: Base,
    toy_queue: Queue,
    monkeypatch: pytest.MonkeyPatch,
    hermetic: Path,
    tmp_path: Path,
) -> None:
    first = make_steps(toy_base, toy_queue, None)
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
    assert make_steps(toy_base, toy_queue, None) == first


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("base", ["base"]),
        ("baseline", ["baseline"]),
        ("0001", ["baseline", "0001"]),
        ("resv/0002-toy-drop-check.patch", ["baseline", "0001", "0002"]),
    ],
)
def test_stop_after(toy_base: Base, toy_queue: Queue, to: str, expected: list[str]) -> None:
    whole = make_steps(toy_base, toy_queue, toy.OVERLAY)
    steps = make_steps(toy_base, toy_queue, toy.OVERLAY, to=to)
    assert labels(steps) == expected
    if to == "base":
        assert steps[0].commit == toy_base.commit
    else:
        assert steps == whole[: len(steps)]


def test_stop_after_what_is_not_there(toy_base: Base, toy_queue: Queue) -> None:
    with pytest.raises(UserError, match="no patch '0007'"):
        make_steps(toy_base, toy_queue, None, to="0007")


@pytest.mark.parametrize("to", [None, "baseline", "0001"])
def test_one_step_is_the_last_of_all(toy_base: Base, toy_queue: Queue, to: str | None) -> None:
    step = make_step(toy_base, toy_queue, toy.OVERLAY, to=to)
    assert step == make_steps(toy_base, toy_queue, toy.OVERLAY, to=to)[-1]


def test_empty_queue(toy_base: Base, queue_maker: toy.QueueMaker) -> None:
    queue = load_queue(queue_maker.folder, "6.12")
    (step,) = make_steps(toy_base, queue, None)
    assert (step.label, step.commit) == ("baseline", toy_base.commit)


def test_overlay_is_in_the_tree_and_not_in_the_commit(toy_base: Base, toy_queue: Queue) -> None:
    bare = make_steps(toy_base, toy_queue, None)
    laid = make_steps(toy_base, toy_queue, toy.OVERLAY)
    assert [step.commit for step in laid] == [step.commit for step in bare]
    for before, after in zip(bare, laid, strict=True):
        names = toy.git("diff", "--name-only", before.tree, after.tree, cwd=toy_base.git_dir)
        assert names.splitlines() == [toy.IOMMU_C, "drivers/iommu/tests/k.c"]


def test_another_overlay_makes_other_trees(toy_base: Base, toy_queue: Queue) -> None:
    first = make_steps(toy_base, toy_queue, toy.OVERLAY)
    edited = Overlay((("drivers/iommu/tests/k.c", b"int j;\n", "100644"),), ())
    second = make_steps(toy_base, toy_queue, edited)
    assert [step.commit for step in second] == [step.commit for step in first]
    assert not {step.tree for step in second} & {step.tree for step in first}


def test_two_at_once(toy_base: Base, toy_queue: Queue) -> None:
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(make_steps, toy_base, toy_queue, toy.OVERLAY) for _ in range(4)]
        results = [run.result() for run in runs]
    assert all(result == make_steps(toy_base, toy_queue, toy.OVERLAY) for result in results)


def test_overlay_that_does_not_fit(toy_base: Base, toy_queue: Queue) -> None:
    overlay = Overlay((), (("no/such.c", "x\n"),))
    with pytest.raises(VerdictError, match=r"6\.12 baseline: there is no file no/such\.c"):
        make_steps(toy_base, toy_queue, overlay)


def test_second_call_runs_no_git(
    toy_base: Base, toy_queue: Queue, git_calls: list[Sequence[object]]
) -> None:
    first = make_steps(toy_base, toy_queue, toy.OVERLAY)
    assert git_calls
    git_calls.clear()
    assert make_steps(toy_base, toy_queue, toy.OVERLAY) == first
    assert git_calls == []


def test_only_what_changed_is_made_again(
    toy_base: Base, toy_queue: Queue, queue_maker: toy.QueueMaker, git_calls: list[Sequence[object]]
) -> None:
    first = make_steps(toy_base, toy_queue, None)
    git_calls.clear()
    last = queue_maker.folder / queue_maker.names[-1]
    last.write_text(last.read_text().replace("Because of toys.", "Because."), encoding="utf-8")
    second = make_steps(toy_base, load_queue(queue_maker.folder, "6.12"), None)
    assert second[:2] == first[:2]
    assert second[2].tree == first[2].tree
    assert second[2].commit != first[2].commit
    assert [words[0] for words in git_calls] == ["read-tree", "apply", "write-tree"]


@pytest.mark.parametrize("text", ["", "garbage", "\xff", "../../x y", "a" * 40])
def test_damaged_memory_is_no_memory(toy_base: Base, toy_queue: Queue, text: str) -> None:
    first = make_steps(toy_base, toy_queue, None)
    for path in (toy_base.git_dir / "iommuq-steps").iterdir():
        path.write_bytes(text.encode("latin-1"))
    assert make_steps(toy_base, toy_queue, None) == first


def test_memory_that_cannot_be_written(toy_base: Base, toy_queue: Queue) -> None:
    (toy_base.git_dir / "iommuq-steps").write_text("in the way", encoding="utf-8")
    assert labels(make_steps(toy_base, toy_queue, toy.OVERLAY)) == ["baseline", "0001", "0002"]


def test_lost_objects_are_made_again(toy_base: Base, toy_queue: Queue) -> None:
    first = make_steps(toy_base, toy_queue, None, to="0001")
    toy.lose_objects(toy_base.git_dir, toy_base.commit)
    # 0002 is new: it needs the tree of 0001, which is remembered and gone.
    steps = make_steps(toy_base, toy_queue, None)
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
    assert "is probably in" in error.hint


def test_patch_for_another_file(toy_base: Base, queue_maker: toy.QueueMaker) -> None:
    mail = queue_maker.mail("toy: x", {toy.IOMMU_C: ("int ret = 3;", "int ret = 30;")})
    queue_maker.add("resv/0001-toy.patch", mail.replace(b"iommu/iommu.c", b"iommu/gone.c"))
    error = refused(toy_base, queue_maker)
    assert "drivers/iommu/gone.c: does not exist in the tree" in error.what


def test_patch_like_nothing_there(toy_base: Base, queue_maker: toy.QueueMaker) -> None:
    mail = queue_maker.mail("toy: x", {"README": ("A toy.", "The toy.")})
    queue_maker.add("resv/0001-toy.patch", mail.replace(b"-A toy.", b"-Something else."))
    assert refused(toy_base, queue_maker).hint == "no similar text in README"


def test_new_file_that_exists(toy_base: Base, queue_maker: toy.QueueMaker) -> None:
    queue_maker.three()
    mail = queue_maker.mail("toy: x", {"drivers/other.h": "/* other */\n"})
    queue_maker.add("resv/0003-x.patch", mail.replace(b"drivers/other.h", NEW.encode()))
    assert f"{NEW}: already exists in the tree" in refused(toy_base, queue_maker).what
