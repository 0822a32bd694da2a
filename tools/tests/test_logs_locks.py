# SPDX-License-Identifier: GPL-2.0-only
"""Tests of `iommuq.logs` and `iommuq.locks`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iommuq import dirs, locks, logs


def test_a_log_has_a_name_of_its_own() -> None:
    first = logs.new_log("build-6.12-um-resv-direct/0001")
    assert first.parent == dirs.log_dir()
    assert "build-6.12-um-resv-direct-0001" in first.name
    first.touch()
    second = logs.new_log("build-6.12-um-resv-direct/0001")
    assert second != first
    second.touch()
    assert logs.new_log("build-6.12-um-resv-direct/0001") not in (first, second)


def test_old_logs_go() -> None:
    old, young = logs.new_log("old"), logs.new_log("young")
    for path, age in ((old, logs.KEEP + 60), (young, logs.KEEP - 60)):
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    other = old.with_name("notes.txt")
    other.touch()
    os.utime(other, (0, 0))
    logs.new_log("new")
    assert not old.exists()
    assert young.exists()
    assert other.exists()


HOLD = """
import sys, time
from pathlib import Path
from iommuq import locks
with locks.hold(Path(sys.argv[1]), "another test"):
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
        with locks.hold(path, "another test"):
            assert time.monotonic() - begin > 0.5
        killer.wait()
    assert "Waiting for another test: " in capsys.readouterr().err


def test_a_lock_is_let_go_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), locks.hold(tmp_path / "lock", "nobody"):
        raise ValueError("mine")
    with locks.hold(tmp_path / "lock", "nobody"):
        pass
