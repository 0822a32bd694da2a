# SPDX-License-Identifier: GPL-2.0-only
"""The plugin for pytest, and the tutorial, on Linux 6.12."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import tutorialrun
from iommuq.cli.pytest_plugin import inventory
from iommuq.system import files
from realrun import LIMIT

pytestmark = pytest.mark.real


def test_every_test_of_the_kernel_is_an_item(tmp_path: Path) -> None:
    words = ["kunit", "explore", "selftests/iommu", "selftests/suites.toml", "--iommu-base", "6.12"]
    words += ["--iommu-on", "um", "-n", "2", "-q", f"--junitxml={tmp_path}/junit.xml"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "iommuq.cli.pytest_plugin",
            "-p",
            "no:cacheprovider",
            *words,
        ],
        cwd=files.project_root(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # What is read off the sources is what the kernel runs.
    assert "but not collected" not in done.stdout
    assert "KUnit on User-mode Linux" in done.stdout
    assert "selftests on User-mode Linux" in done.stdout
    (suite,) = ElementTree.parse(tmp_path / "junit.xml").getroot()
    cases = {case.get("name"): [child.tag for child in case] for case in suite}
    assert cases["iommu_set_domain.blocked_refused"] == []
    assert cases["resv_direct.mixed_group.direct_last.bind_refused"] == []
    # UML has no huge pages.
    assert cases["iommufd.vfio_compat_mock_domain.Ver1v2.huge_map"] == ["skipped"]
    root = files.project_root()
    lanes = ("kunit", "selftest")
    there = {
        found.test for lane in lanes for found in inventory.everything(lane, root, "6.12", None)
    }
    assert set(cases) == there


def test_the_first_hour(tmp_path: Path) -> None:
    project = tmp_path / "project"
    for name in ("patches", "kunit", "explore", "selftests", "docs"):
        shutil.copytree(tutorialrun.ROOT / name, project / name)
    tutorialrun.make_checkout(project)
    tutorialrun.follow(project, dict(os.environ), LIMIT)
