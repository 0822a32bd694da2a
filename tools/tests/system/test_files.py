# SPDX-License-Identifier: GPL-2.0-only
"""Tests of `iommuq.system.files`: where things are."""

from __future__ import annotations

from pathlib import Path

import pytest

import iommuq
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
