# SPDX-License-Identifier: GPL-2.0-only
"""Build the program that does a scenario's steps in the guest: ``selftests/firmware``."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

from iommuq.system import files
from iommuq.system.errors import CommandFailed, InfraError, UserError
from iommuq.system.run import run

#: What it is called in the guest.
GUEST_PATH = "/suites/steps"
_FLAGS = ("-O2", "-Wall", "-static", "-D_GNU_SOURCE")
_LIMIT = 60.0


def sources() -> list[Path]:
    """Return its C files and headers."""
    return sorted((files.project_root() / "selftests" / "firmware").glob("*.[ch]"))


def key() -> str:
    """Return a hash of what it is built from."""
    words = [*_FLAGS, *(f"{path.name} {_hash(path)}" for path in sources())]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def build() -> Path:
    """Return the program, building it if it was not built before.

    :raises UserError: it does not compile.
    :raises ToolMissing: there is no compiler.
    :raises InfraError: the cache cannot be written.
    """
    path = files.cache_dir() / "firmware" / f"steps-{key()[:32]}"
    if path.exists():
        return path
    # Two steps of a proof may want it at once, each in a thread.
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
            f"{path.parent}: {error.strerror}", hint="IOMMUQ_CACHE_DIR names another place"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
