# SPDX-License-Identifier: GPL-2.0-only
"""Temporary directories: a killed process leaves none for good."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import iommuq
from iommuq.system import cache, temporary
from iommuq.system.files import cache_dir
from iommuq.system.temporary import PREFIX, temporary_folder

#: Uses a directory of its own, and is killed in the midst of it if told so.
USER = """
import os, signal, sys
from pathlib import Path
from iommuq.system.git.scratch import scratch
Path("repo/objects").mkdir(parents=True, exist_ok=True)
with scratch([Path("repo").absolute()]) as store:
    (store.folder / "deep/er").mkdir(parents=True)
    (store.folder / "deep").chmod(0)
    if sys.argv[1:]:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty directory for temporary ones, in this process and its children."""
    place = tmp_path / "temp"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    monkeypatch.setenv("TMPDIR", str(place))
    return place


def kill_one(where: Path) -> None:
    words = [sys.executable, "-c", USER, "kill"]
    assert subprocess.run(words, cwd=where, check=False).returncode == -signal.SIGKILL


def test_the_next_run_removes_what_a_killed_one_left(place: Path, tmp_path: Path) -> None:
    kill_one(tmp_path)
    assert len(list(place.iterdir())) == 1
    subprocess.run([sys.executable, "-c", USER], cwd=tmp_path, check=True)
    assert list(place.iterdir()) == []


def test_clean_removes_what_killed_ones_left(place: Path, tmp_path: Path) -> None:
    kill_one(tmp_path)
    left = [cache_dir() / kind / f".{PREFIX}x" for kind in ("images", "reviews", "kernels")]
    for path in left:
        path.mkdir(parents=True)
    with temporary_folder("image", cache_dir() / "images") as used:
        cache.clean()
        assert used.exists()
    assert [path for path in left if path.exists()] == []
    assert list(place.iterdir()) == []


def test_what_is_not_ours_or_in_use_stays(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with temporary_folder("a") as used:
        (place / "iommuq-6.12").mkdir()
        (tmp_path / "outside").mkdir()
        (place / f"{PREFIX}link").symlink_to(tmp_path / "outside")
        dead = place / f"{PREFIX}dead"
        dead.mkdir()
        (dead / "link").symlink_to(tmp_path / "outside")
        (tmp_path / "outside/file").touch()
        with monkeypatch.context() as other:
            other.setattr(os, "geteuid", lambda: os.getuid() + 1)
            temporary.sweep(place)
        assert dead.exists()
        temporary.sweep(place)
        assert sorted(path.name for path in place.iterdir()) == sorted(
            [used.name, "iommuq-6.12", f"{PREFIX}link"]
        )
    assert not used.exists()
    assert (tmp_path / "outside/file").exists()


def test_one_that_is_taken_for_an_old_one_is_made_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process sweeps between the making and the lock."""
    made: list[str] = []
    make = tempfile.mkdtemp

    def swept(**words: str) -> str:
        made.append(make(**words))
        if len(made) == 1:
            temporary.sweep(place)
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", swept)
    with temporary_folder("a") as folder:
        assert folder.is_dir()
        assert made[1:] == [str(folder)]


def test_nothing_else_makes_temporary_files() -> None:
    """Only the system's directory for them may be asked for elsewhere."""
    tools = Path(iommuq.__file__).parents[1]
    found = [
        str(path.relative_to(tools))
        for package in ("iommuq", "iommudrivers")
        for path in (tools / package).rglob("*.py")
        if re.search(
            r"\b(mkdtemp|mkstemp|TemporaryDirectory|\w*TemporaryFile)\b", path.read_text("utf-8")
        )
    ]
    assert found == ["iommuq/system/temporary.py"]


def test_what_a_user_mounted_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may not unmount it must not remove it through the mount."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "precious").write_text("")
    monkeypatch.setattr(temporary, "_mounted", lambda folder: [str(folder / "in")])
    temporary.remove(folder)
    assert (folder / "precious").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_what_is_mounted_is_not_emptied(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("")
    inside = tmp_path / "folder" / "a b"
    inside.mkdir(parents=True)
    subprocess.run(["mount", "--bind", precious, inside], check=True)
    try:
        temporary.remove(tmp_path / "folder")
    finally:
        # Otherwise pytest would remove what is in it.
        subprocess.run(["umount", "--lazy", inside], check=False, capture_output=True)
    assert (precious / "file").exists()
    assert not (tmp_path / "folder").exists()
