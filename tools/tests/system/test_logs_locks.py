# SPDX-License-Identifier: GPL-2.0-only
"""Tests of `iommuq.system.files` and `iommuq.system.files`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iommuq.system import files


def test_a_log_has_a_name_of_its_own() -> None:
    first = files.new_log("build-6.12-um-resv-direct/0001")
    assert first.parent == files.log_dir()
    assert "build-6.12-um-resv-direct-0001" in first.name
    first.touch()
    second = files.new_log("build-6.12-um-resv-direct/0001")
    assert second != first
    second.touch()
    assert files.new_log("build-6.12-um-resv-direct/0001") not in (first, second)


def test_old_logs_go() -> None:
    old, young = files.new_log("old"), files.new_log("young")
    for path, age in ((old, files.KEEP + 60), (young, files.KEEP - 60)):
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    other = old.with_name("notes.txt")
    other.touch()
    os.utime(other, (0, 0))
    files.new_log("new")
    assert not old.exists()
    assert young.exists()
    assert other.exists()


HOLD = """
import sys, time
from pathlib import Path
from iommuq.system import files
with files.hold(Path(sys.argv[1]), "another test"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_of_one_who_is_killed_is_free(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lock"
    words = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        killer = subprocess.Popen(["sh", "-c", f"sleep 0.8; kill -9 {holder.pid}"])
        begin = time.monotonic()
        with files.hold(path, "another test"):
            assert time.monotonic() - begin > 0.5
        killer.wait()
    assert "Waiting for another test: " in capsys.readouterr().err


def test_a_lock_is_let_go_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), files.hold(tmp_path / "lock", "nobody"):
        raise ValueError("mine")
    with files.hold(tmp_path / "lock", "nobody"):
        pass
