# SPDX-License-Identifier: GPL-2.0-only
"""Temporary directories; those of a process that was killed are removed by the next one.

The owner holds a lock on its directory, which the kernel drops if the process dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from iommuq.system.run import run

#: The names begin with it; below a given directory, with a dot before.
PREFIX = "iommuq-tmp-"

_swept: set[Path] = set()


@contextlib.contextmanager
def temporary_folder(kind: str, parent: Path | None = None) -> Iterator[Path]:
    """Make a directory, and remove it after the block unless it was renamed.

    :param kind: what it is for, a part of its name.
    :param parent: the directory to make it in, for a rename; by default ``TMPDIR``.
    :raises OSError: it cannot be made.
    """
    place = Path(tempfile.gettempdir()) if parent is None else parent
    if place not in _swept:
        _swept.add(place)
        sweep(place)
    with contextlib.ExitStack() as stack:
        owned = False
        while not owned:  # Another process may take it for an old one before the lock.
            name = f"{'.' if parent else ''}{PREFIX}{kind}-"
            path = Path(tempfile.mkdtemp(prefix=name, dir=place))
            owned = stack.enter_context(_locked(path, wait=True)) and path.exists()
        try:
            yield path
        finally:
            remove(path)


def sweep(place: Path) -> None:
    """Remove this user's temporary directories whose process is gone."""
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if entry.name.lstrip(".").startswith(PREFIX):
                path = Path(entry.path)
                with _locked(path, wait=False) as gone:
                    if gone:
                        remove(path)


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Lock a directory of ours in the block; a link is not followed.

    :return: whether that worked; a maker does without a lock where there are none (NFS).
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        works = os.fstat(handle).st_uid == os.geteuid()
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            works = wait
        yield works
    finally:
        os.close(handle)


def remove(folder: Path) -> None:
    """Remove a directory of any depth and with any modes, and what is mounted in it."""
    for place in _mounted(folder):
        run(["umount", "--lazy", "--", place], cwd=folder.parent, check=False, watched=True)
    if _mounted(folder):
        # Of the user, who may not unmount it: its content is not ours.
        return
    # rmtree() is recursive, and could exceed Python's limit.
    with contextlib.suppress(OSError, RecursionError):
        shutil.rmtree(folder)
    for words in (("rm", "-rf"), ("chmod", "-R", "u+rwX"), ("rm", "-rf")):
        if folder.exists():
            run([*words, "--", folder], cwd=folder.parent, check=False, watched=True)


def _mounted(folder: Path) -> list[str]:
    """Return what is mounted at or below a directory, the last first."""
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    # proc(5): blanks and backslashes are in octal.
    places = [
        re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), line.split()[4])
        for line in text.splitlines()
    ]
    return [each for each in places[::-1] if Path(each).is_relative_to(folder.resolve())]
