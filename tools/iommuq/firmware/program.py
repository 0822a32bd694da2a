# SPDX-License-Identifier: GPL-2.0-only
"""Build ``selftests/firmware``, the program that runs the steps of a scenario in the guest."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

from iommuq.system import files
from iommuq.system.errors import CommandFailed, InfraError, UserError
from iommuq.system.files import file_sha256
from iommuq.system.run import run

GUEST_PATH = "/suites/steps"
_FLAGS = ("-O2", "-Wall", "-static", "-D_GNU_SOURCE")
_LIMIT = 60.0


def sources() -> list[Path]:
    """Return the C files and headers of the program."""
    return sorted((files.project_root() / "selftests" / "firmware").glob("*.[ch]"))


def key() -> str:
    """Return a hash of the sources and flags."""
    words = [*_FLAGS, *(f"{path.name} {file_sha256(path)}" for path in sources())]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def build() -> Path:
    """Return the program; build it unless it is in the cache.

    :raises UserError: it does not compile.
    :raises ToolMissing: there is no compiler.
    :raises InfraError: the cache cannot be written.
    """
    path = files.cache_dir() / "firmware" / f"steps-{key()[:32]}"
    if path.exists():
        return path
    # Two threads of a proof may build it at the same time.
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
    code = [source for source in sources() if source.suffix == ".c"]
    log = files.new_log("firmware-steps")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        argv: list[str | Path] = ["gcc", *_FLAGS, "-o", temporary, *code]
        run(argv, cwd=path.parent, timeout=_LIMIT, log_path=log)
        temporary.replace(path)
    except CommandFailed as error:
        raise UserError("selftests/firmware does not compile", hint=f"full log: {log}") from error
    except OSError as error:
        raise InfraError(
            f"{path.parent}: {error.strerror}", hint="set IOMMUQ_CACHE_DIR to another directory"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path
