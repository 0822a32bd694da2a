# SPDX-License-Identifier: GPL-2.0-only
"""Paths of the project, the cache, the results and the logs.

``IOMMUQ_ROOT``, ``IOMMUQ_CACHE_DIR`` and ``IOMMUQ_STATE_DIR`` override the defaults (XDG).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from iommuq.system import progress
from iommuq.system.errors import InfraError, UserError


def project_root() -> Path:
    """Return the checkout that holds ``patches/``, ``kunit/`` and ``selftests/``.

    :raises UserError: no ``patches`` directory in ``IOMMUQ_ROOT``, or, if that is not set,
        in the checkout of the package, the current directory or its parents.
    """
    override = os.environ.get("IOMMUQ_ROOT")
    if override:
        root = Path(override).resolve()
        if (root / "patches").is_dir():
            return root
        raise UserError(f"IOMMUQ_ROOT={override}: no patches/ directory there")
    here = Path(__file__).resolve().parents[3]
    for candidate in (here, Path.cwd(), *Path.cwd().parents):
        if (candidate / "patches").is_dir():
            return candidate
    raise UserError("not in a checkout of the project", hint="cd to it, or set IOMMUQ_ROOT")


def cache_dir() -> Path:
    """Return the directory for what can be made again: sources, builds, images.

    :raises UserError: git could not have a repository there.
    """
    override = os.environ.get("IOMMUQ_CACHE_DIR")
    found = Path(override).resolve() if override else Path(platformdirs.user_cache_dir("iommuq"))
    check_folder(found)
    return found


def check_folder(path: Path) -> None:
    """Check that git can have a repository in a folder: its alternates are lines of UTF-8.

    :raises UserError: it cannot.
    """
    if not str(path).isprintable():
        raise UserError(f"{str(path)!r}: control characters, or not UTF-8", hint="use another path")


def state_dir() -> Path:
    """Return the directory for the results of runs."""
    override = os.environ.get("IOMMUQ_STATE_DIR")
    return Path(override).resolve() if override else Path(platformdirs.user_state_dir("iommuq"))


def log_dir() -> Path:
    """Return the directory of the full logs."""
    return state_dir() / "logs"


@contextlib.contextmanager
def hold(path: Path, holder: str) -> Iterator[None]:
    """Hold a file lock during the block; the kernel drops it if the process dies.

    :param path: the lock file; its directory must exist.
    :param holder: what the user is told to wait for.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        with progress.task(f"Waiting for {holder}"):
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def read_text(path: Path, *, hint: str = "", most: int | None = None) -> str:
    """Return the text of a file of the user's.

    :param most: the largest size in bytes.
    :raises UserError: it cannot be read, is no regular file, or too large, or not UTF-8, or has a
        NUL byte.
    """
    try:
        status = path.stat()
        # A FIFO would have us wait, and a device may have no end.
        if stat.S_IFMT(status.st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            raise UserError(f"{path}: not a regular file", hint=hint)
        if most is not None and status.st_size > most:
            raise UserError(f"{path}: larger than {most} bytes", hint=hint)
        text = path.read_text("utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", hint=hint) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}") from error
    head, nul, _ = text.partition("\0")
    if nul:
        raise UserError(f"{path}:{head.count(chr(10)) + 1}: NUL byte")
    return text


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file at once, keeping its permissions: readers see all of it or the old one.

    :raises OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        temporary.write_bytes(data)
        if path.exists():
            temporary.chmod(path.stat().st_mode & 0o777)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, data: object) -> None:
    """Replace a JSON file at once, and make its directory.

    :raises InfraError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(data, indent=1).encode())
    except OSError as error:
        raise InfraError(f"{path}: {error.strerror}") from error


#: Seconds; older logs and archives are removed when a new one is made.
KEEP = 30 * 24 * 3600.0


def forget_old(folder: Path, pattern: str = "*") -> None:
    """Remove the files of a folder that were not changed for `KEEP`."""
    limit = time.time() - KEEP
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < limit:
                path.unlink()


def new_log(what: str) -> Path:
    """Create an empty log.

    :param what: what is logged, such as ``build-6.12-um-0001``.
    :return: a path in the log directory; its name has the time, *what* and the process id.
    """
    folder = log_dir()
    folder.mkdir(parents=True, exist_ok=True)
    forget_old(folder, "*.log")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", what)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    # The same step twice in a second, or in two threads, gets two logs.
    for number in itertools.count(1):
        end = f".{number}.log" if number > 1 else ".log"
        path = folder / f"{stamp}-{name}-{os.getpid()}{end}"
        with contextlib.suppress(FileExistsError):
            path.touch(exist_ok=False)
            break
    return path


def hash_of(*words: str) -> str:
    """Return the sha256 of words, one a line, in hexadecimal digits."""
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


_hashes: dict[tuple[int, ...], str] = {}
# A change in the same tick of the clock may leave the times of a file as they are.
_TICK = 10**9  # ns


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal digits; a process reads the same file once."""
    with path.open("rb") as file:
        now = os.fstat(file.fileno())
        key = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
        if key not in _hashes:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if time.time_ns() - max(now.st_mtime_ns, now.st_ctime_ns) < _TICK:
                return found
            _hashes[key] = found
        return _hashes[key]
