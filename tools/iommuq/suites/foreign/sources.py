# SPDX-License-Identifier: GPL-2.0-only
"""The sources of suites of others.  The user fetches them; nothing here uses the network."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from iommuq.suites.foreign.table import Suite
from iommuq.system import files
from iommuq.system.errors import UserError, os_errors_as
from iommuq.system.files import file_sha256, hash_of

#: Bytes and entries of a suite's sources, without those of git.
MOST_BYTES = 256 << 20
MOST_FILES = 20_000
_GIT = ".git"
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Sources:
    """Where the sources of a suite are.

    :ivar path: None if they are missing.
    :ivar missing: why, and the command that gets them.
    """

    path: Path | None
    missing: str = ""


def folder() -> Path:
    """Return where sources are looked for by default."""
    return files.cache_dir() / "foreign"


def find(suite: Suite, given: Path | None) -> Sources:
    """Return the sources of a suite, or why there are none.

    :param given: the directory that has them, by the name of the suite, taken as they are; by
        default those in the cache, which must be at the commit of the table.
    """
    if given is not None:
        path = given / suite.name
        return Sources(path) if path.is_dir() else Sources(None, f"there is no {path}")
    path = folder() / suite.name
    place = shlex.quote(str(path))
    checkout = f"git -C {place} checkout --quiet --detach {suite.commit}"
    if not path.is_dir():
        command = f"git clone {suite.url} {place} && {checkout}"
        return Sources(None, f"not fetched; get it with: {command}")
    head = _head(path)
    if head != suite.commit:
        command = f"git -C {place} fetch origin && {checkout}"
        where = f"HEAD is at {head[:12]}" if _COMMIT.fullmatch(head) else "HEAD is at no commit"
        what = f"{path}: {where}, not at {suite.commit[:12]}; get it with: {command}"
        return Sources(None, what)
    return Sources(path)


def _head(path: Path) -> str:
    # By hand: git would run what the configuration of a foreign repository names.
    try:
        # An open of a FIFO must not wait.
        fd = os.open(path / _GIT / "HEAD", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return ""
            return file.read(64).decode("ascii").strip()
    except (OSError, ValueError):
        return ""


def listed(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the regular files below a directory, by their names from there, in order.

    Links are left out, and what is git's.

    :raises UserError: there are too many, or they are too large.
    """
    count = size = 0
    with os_errors_as(UserError, path):
        for here, folders, names in os.walk(path, onerror=_refuse):
            folders[:] = sorted(name for name in folders if name != _GIT)
            # Directories and links, too: they take time, although they are no sources.
            count += len(folders) + len(names)
            _bound(path, count, size)
            for name in sorted(names):
                found = (Path(here) / name).lstat()
                if not stat.S_ISREG(found.st_mode):
                    continue
                size += found.st_size
                _bound(path, count, size)
                yield str((Path(here) / name).relative_to(path)), found


def _bound(path: Path, count: int, size: int) -> None:
    if count > MOST_FILES or size > MOST_BYTES:
        most = f"{MOST_FILES} files and directories, or {MOST_BYTES >> 20} MiB"
        raise UserError(f"{path}: more than {most}", hint="is that a suite's sources?")


def _refuse(error: OSError) -> None:
    raise error


def key(path: Path) -> str:
    """Return a hash of all files; errors as for `listed`.

    A name is bytes, in any encoding or none.
    """
    with os_errors_as(UserError, path):
        words = [
            f"{os.fsencode(name).hex()} {found.st_mode & 0o111 != 0} {file_sha256(path / name)}"
            for name, found in listed(path)
        ]
    return hash_of(*words)


def copy(path: Path, into: Path) -> None:
    """Copy the sources; errors as for `listed`."""
    with os_errors_as(UserError, path):
        for name, found in listed(path):
            target = into / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path / name, target, follow_symlinks=False)
            target.chmod(0o755 if found.st_mode & 0o111 else 0o644)
