# SPDX-License-Identifier: GPL-2.0-only
"""Tests of `iommuq.system.files`: where things are."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

import iommuq
from iommuq.system import files
from iommuq.system.errors import UserError
from iommuq.system.files import project_root


def test_the_checkout_of_the_package_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert project_root() == Path(iommuq.__file__).resolve().parents[2]


def test_the_variable_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "patches").mkdir()
    monkeypatch.setenv("IOMMUQ_ROOT", str(tmp_path))
    assert project_root() == tmp_path
    monkeypatch.setenv("IOMMUQ_ROOT", str(tmp_path / "patches"))
    with pytest.raises(UserError, match="no patches/ directory there"):
        project_root()


def test_a_file_is_hashed_once_as_long_as_it_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "linux"
    path.write_bytes(b"one")
    hashed: list[object] = []
    digest = hashlib.file_digest

    def counted(*words: Any) -> Any:
        hashed.append(words)
        return digest(*words)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    # In the same tick of the clock it may change and keep its times.
    assert [files.file_sha256(path) for _ in range(2)] == [hashlib.sha256(b"one").hexdigest()] * 2
    assert len(hashed) == 2
    monkeypatch.setattr(files, "_TICK", 0)
    assert [files.file_sha256(path) for _ in range(3)] == [hashlib.sha256(b"one").hexdigest()] * 3
    assert len(hashed) == 3
    before = path.stat()
    time.sleep(0.02)
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert files.file_sha256(path) == hashlib.sha256(b"two").hexdigest()
