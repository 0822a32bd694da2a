# SPDX-License-Identifier: GPL-2.0-only
"""The bounds of the cache."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from iommuq.system import cache
from iommuq.system.errors import UserError
from iommuq.system.files import cache_dir

KIB = 1024
DAY = 86400.0


def image(name: str, days: float, size: int = 64 * KIB) -> Path:
    """Make an image that was used some days ago."""
    folder = cache_dir() / "images" / name
    folder.mkdir(parents=True)
    (folder / "linux").write_bytes(b"x" * size)
    record = folder / "image.json"
    record.write_text("{}")
    when = time.time() - days * DAY
    os.utime(record, (when, when))
    return folder


def archive(name: str, days: float) -> Path:
    path = cache_dir() / "initramfs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 64 * KIB)
    when = time.time() - days * DAY
    os.utime(path, (when, when))
    return path


def test_what_was_used_longest_ago_goes_first() -> None:
    oldest, old = image("a", 9), archive("b.cpio", 8)
    newer, newest = image("c", 7), image("d", 6)
    freed = cache.shrink(150 * KIB)
    assert [path.exists() for path in (oldest, old, newer, newest)] == [False, False, True, True]
    assert freed >= 128 * KIB
    # There is room for the rest.
    assert cache.shrink(150 * KIB) == 0


def test_what_may_be_in_use_stays() -> None:
    kept = image("a", 0.01)
    assert cache.shrink(0) == 0
    assert kept.exists()


def test_image_without_a_record_counts_by_its_folder() -> None:
    folder = image("a", 3)
    (folder / "image.json").unlink()
    os.utime(folder, (1.0, 1.0))
    cache.shrink(0)
    assert not folder.exists()


def test_limit_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOMMUQ_CACHE_GIB", "0.5")
    assert cache.limit() == cache.GIB // 2
    for bad in ("much", "-1", "nan", "inf", ""):
        monkeypatch.setenv("IOMMUQ_CACHE_GIB", bad)
        with pytest.raises(UserError, match="IOMMUQ_CACHE_GIB"):
            cache.limit()


def test_clean_removes_what_is_asked_for() -> None:
    source = cache_dir() / "bases" / "6.12" / "repo.git"
    source.mkdir(parents=True)
    objects = cache_dir() / "trees" / "6.12" / "obj-um"
    objects.mkdir(parents=True)
    half = cache_dir() / "images" / ".6.12.tmp-x"
    built = image("a", 0)
    half.mkdir()
    cache.clean()
    assert [path.exists() for path in (built, half, objects, source)] == [False, False, True, True]
    cache.clean(trees=True)
    assert [path.exists() for path in (objects, source)] == [False, True]
    cache.clean(trees=True, bases=True)
    assert not source.exists()


def test_clean_of_nothing() -> None:
    assert cache.clean(trees=True, bases=True) == 0
