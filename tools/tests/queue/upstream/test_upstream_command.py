# SPDX-License-Identifier: GPL-2.0-only
"""`iommuq queue upstream`: a whole queue against a base, a directory and a ref of git."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import toy
from commandcall import call
from iommuq.bases.sources import Base
from iommuq.cli.commands import queue
from iommuq.queue.model import Queue, load_queue
from iommuq.queue.upstream.compare.judge import Grade
from iommuq.queue.upstream.patches import FolderTarget, judge_queue
from iommuq.system.errors import UserError


def test_queue_against_a_tree(toy_base: Base, toy_queue: Queue, toy_work: Path) -> None:
    """In the tree that the patches were made in they are all there, in the base none."""
    found = judge_queue(toy_base, toy_queue, FolderTarget(toy_work))
    assert all(each.grade >= Grade.DRIFT for each in found)
    toy.git("checkout", "-q", "HEAD~2", cwd=toy_work)
    found = judge_queue(toy_base, toy_queue, FolderTarget(toy_work))
    assert [each.grade for each in found] == [Grade.ABSENT] * 2


def test_command(
    toy_base: Base, toy_queue: Queue, toy_work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del toy_base, toy_queue
    patched = shutil.copytree(toy_work, toy_work.parent / "patched")
    toy.git("checkout", "-q", "HEAD~3", cwd=toy_work)  # where the base comes from
    call(queue.upstream, "6.12", str(patched), "0002", as_json=False)
    assert "present             0002 toy: drop the check\n" in capsys.readouterr().out
    call(queue.upstream, "6.12", "6.12", None, as_json=True)
    data = json.loads(capsys.readouterr().out)
    assert [patch["verdict"] for patch in data["patches"]] == ["absent", "absent"]
    assert data["patches"][0]["hunks"][0]["file"] == "drivers/iommu/iommu.c"


def test_command_with_a_ref_of_git(
    toy_base: Base,
    toy_queue: Queue,
    toy_work: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del toy_base, toy_queue
    toy.git("tag", "patched", cwd=toy_work)
    toy.git("checkout", "-q", "HEAD~3", cwd=toy_work)  # where the base comes from
    call(queue.upstream, "6.12", f"{toy_work}@patched", "0002", as_json=False)
    assert "present             0002 toy: drop the check\n" in capsys.readouterr().out
    monkeypatch.chdir(toy_work.parent)
    call(queue.upstream, "6.12", f"{toy_work.name}@patched", "0002", as_json=False)
    assert "present             0002 toy: drop the check\n" in capsys.readouterr().out
    call(queue.upstream, "6.12", f"{toy_work}@HEAD", "0002", as_json=False)
    assert "absent              0002 toy: drop the check\n" in capsys.readouterr().out
    with pytest.raises(UserError, match="has no 'v9'"):
        call(queue.upstream, "6.12", f"{toy_work}@v9", None, as_json=False)
    with pytest.raises(UserError, match="is not a git repository"):
        call(queue.upstream, "6.12", f"{toy_work.parent}@v9", None, as_json=False)
    with pytest.raises(UserError, match="no such directory"):
        call(queue.upstream, "6.12", "/nowhere@v9", None, as_json=False)


def test_target_that_is_none(toy_queue: Queue, tmp_path: Path) -> None:
    del toy_queue
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="not a kernel tree"):
        call(queue.upstream, "6.12", str(tmp_path / "empty"), None, as_json=False)
    with pytest.raises(UserError, match=r"no base '9\.9'; there are 6\.1"):
        call(queue.upstream, "6.12", "9.9", None, as_json=False)


def test_git_has_no_part_in_it(toy_queue: Queue, tmp_path: Path) -> None:
    """A directory in a repository that ignores everything is searched all the same."""
    assert load_queue(toy_queue.folder, "6.12")
    subprocess.run(["git", "init", "-q", str(tmp_path / "t")], check=True)
    toy.write_tree(
        tmp_path / "t", {".gitignore": "*\n", "drivers/iommu/b.c": "int special_name;\n"}
    )
    target = FolderTarget(tmp_path / "t")
    assert target.candidates("drivers/iommu/a.c", {"special_name"}, missing=True) == [
        "drivers/iommu/b.c"
    ]
