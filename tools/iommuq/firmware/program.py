# SPDX-License-Identifier: GPL-2.0-only
"""Build ``selftests/firmware``, the program that runs the steps of a scenario in the guest."""

from __future__ import annotations

from pathlib import Path

from iommuq.system import files
from iommuq.system.errors import CommandFailed, UserError
from iommuq.system.files import file_sha256
from iommuq.system.toolchain import compiled

GUEST_PATH = "/suites/steps"
_FLAGS = ("-O2", "-Wall", "-static", "-D_GNU_SOURCE")


def sources() -> list[Path]:
    """Return the C files and headers of the program."""
    return sorted((files.project_root() / "selftests" / "firmware").glob("*.[ch]"))


def key() -> str:
    """Return a hash of the sources and flags."""
    words = [*_FLAGS, *(f"{path.name} {file_sha256(path)}" for path in sources())]
    return files.hash_of(*words)


def build() -> Path:
    """Return the program; build it unless it is in the cache.

    :raises UserError: it does not compile.
    :raises ToolMissing: there is no compiler.
    :raises InfraError: the cache cannot be written.
    """
    path = files.cache_dir() / "firmware" / f"steps-{key()[:32]}"
    if path.exists():
        return path
    code = [source for source in sources() if source.suffix == ".c"]
    log = files.new_log("firmware-steps")
    try:
        return compiled(path, _FLAGS, code, log=log)
    except CommandFailed as error:
        raise UserError("selftests/firmware does not compile", hint=f"full log: {log}") from error
