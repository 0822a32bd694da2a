# SPDX-License-Identifier: GPL-2.0-only
"""Where things live: the project, the cache, the results, the logs.

``IOMMUQ_CACHE_DIR`` and ``IOMMUQ_STATE_DIR`` override the user's directories
of the XDG base directory specification; ``IOMMUQ_ROOT`` names the project when
the package is not installed from a checkout.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from iommuq.errors import UserError


def project_root() -> Path:
    """Return the checkout that holds ``patches/``, ``kunit/`` and ``selftests/``.

    :raises UserError: if neither ``IOMMUQ_ROOT`` nor the package's own place nor
        the current directory or one above it has a ``patches`` directory.
    """
    override = os.environ.get("IOMMUQ_ROOT")
    if override:
        root = Path(override).resolve()
        if (root / "patches").is_dir():
            return root
        raise UserError(f"IOMMUQ_ROOT={override}: no patches/ directory there")
    here = Path(__file__).resolve().parents[2]
    for candidate in (here, Path.cwd(), *Path.cwd().parents):
        if (candidate / "patches").is_dir():
            return candidate
    raise UserError("not in a checkout of the project", hint="cd to it, or set IOMMUQ_ROOT")


def cache_dir() -> Path:
    """Return the directory for whatever can be made again: sources, builds, images."""
    override = os.environ.get("IOMMUQ_CACHE_DIR")
    return Path(override).resolve() if override else Path(platformdirs.user_cache_dir("iommuq"))


def state_dir() -> Path:
    """Return the directory for what must be kept: the results of runs."""
    override = os.environ.get("IOMMUQ_STATE_DIR")
    return Path(override).resolve() if override else Path(platformdirs.user_state_dir("iommuq"))


def log_dir() -> Path:
    """Return the directory that every step writes its full log into."""
    return state_dir() / "logs"
