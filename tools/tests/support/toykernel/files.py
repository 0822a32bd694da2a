# SPDX-License-Identifier: GPL-2.0-only
"""The files of the toy kernel and of the project around it, as they lie beside this one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

#: The name of the base.
BASE = "toy"
IOMMU_C = "drivers/iommu/iommu.c"
SUITE_C = "kunit/drivers/iommu/tests/iommu_kunit.c"
FRAGMENT = "kunit/configs/um.config"
KNOWN = f"patches/{BASE}/known-failures.toml"
#: Seconds to wait for what takes a moment, on a machine that is busy with other things.
PATIENCE = 60.0

_HERE = Path(__file__).parent
#: Stands before git in PATH while a stage that is git's is to stall.
GIT = _HERE / "git.sh"


def _read(folder: Path) -> dict[str, str]:
    """Return the files below a folder: path in it and text."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in paths
        # Who edits them may leave some behind.
        if path.suffix != ".pyc"
    }


#: The kernel's source.
FILES: Mapping[str, str] = _read(_HERE / "linux")
#: The project, but for the patches.
PROJECT: Mapping[str, str] = _read(_HERE / "project")
