# SPDX-License-Identifier: GPL-2.0-only
"""Build the programs of the guest: ``selftests/firmware``, which runs the steps of a scenario,
and ``selftests/calibrate``, which measures the emulated IOMMU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from iommuq.system import files
from iommuq.system.errors import CommandFailed, UserError
from iommuq.system.files import file_sha256
from iommuq.system.toolchain import compiled

GUEST_PATH = "/suites/steps"
_FLAGS = ("-O2", "-Wall", "-static", "-D_GNU_SOURCE")


#: The program that measures.
CALIBRATE_PATH = "/suites/calibrate"
# What it shares with the first one.
_SHARED = ("claim", "config", "edu", "folder", "known", "log", "text")


def sources() -> list[Path]:
    """Return the C files and headers of the program."""
    return sorted((files.project_root() / "selftests/firmware").glob("*.[ch]"))


def calibration_sources() -> list[Path]:
    """Return the C files and headers of the program that measures."""
    own = sorted((files.project_root() / "selftests/calibrate").glob("*.[ch]"))
    return own + [path for path in sources() if path.suffix == ".h" or path.stem in _SHARED]


def key() -> str:
    """Return a hash of the sources and flags."""
    return _key(sources())


def calibration_key() -> str:
    """Return a hash of the sources and flags of the program that measures."""
    return _key(calibration_sources())


def build() -> Path:
    """Return the program; build it unless it is in the cache.

    :raises UserError: it does not compile.
    :raises ToolMissing: there is no compiler.
    :raises InfraError: the cache cannot be written.
    """
    return _build("steps", "firmware", sources())


def build_calibration() -> Path:
    """Return the program that measures; errors as for `build`."""
    return _build("calibrate", "calibrate", calibration_sources())


def _key(paths: Sequence[Path]) -> str:
    return files.hash_of(*_FLAGS, *(f"{path.name} {file_sha256(path)}" for path in paths))


def _build(name: str, folder: str, paths: Sequence[Path]) -> Path:
    path = files.cache_dir() / "firmware" / f"{name}-{_key(paths)[:32]}"
    if path.exists():
        return path
    code = [source for source in paths if source.suffix == ".c"]
    log = files.new_log(f"firmware-{name}")
    try:
        return compiled(path, _FLAGS, code, log=log)
    except CommandFailed as error:
        what = f"selftests/{folder} does not compile"
        raise UserError(what, hint=f"full log: {log}") from error
