# SPDX-License-Identifier: GPL-2.0-only
"""Run the command line on real kernels, as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from iommuq.system import files

#: Seconds for one command: a cold build of the slowest architecture and more.
LIMIT = 3000


def iommuq(*words: str, root: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    environment = None if root is None else {**os.environ, "IOMMUQ_ROOT": str(root)}
    return subprocess.run(
        [sys.executable, "-m", "iommuq", *words],
        env=environment,
        cwd=files.project_root(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
