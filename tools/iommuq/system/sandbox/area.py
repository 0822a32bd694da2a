# SPDX-License-Identifier: GPL-2.0-only
"""A directory of a fixed size: a file system of its own, in a file beside the directory.

Only root can mount one; after a SIGKILL `iommuq.system.temporary` unmounts it.  Elsewhere
`iommuq.system.sandbox.watch` counts what is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iommuq.system.errors import CommandTimeout, DiskFull, ToolMissing
from iommuq.system.run import run
from iommuq.system.sandbox.model import Limits

_LIMIT = 120.0
# No journal: the content is thrown away.  No space is kept for root.
_FORMAT = ("-q", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1", "-m", "0")
# In a MiB: more would leave no room for their content.
_MOST_FILES = 64
_MOUNT = ("mount", "-o", "loop,nosuid,nodev,noatime")


@contextmanager
def opened(folder: Path, limits: Limits) -> Iterator[bool]:
    """Mount a file system of ``limits.disk`` MiB on an empty directory for the block.

    :return: whether it is one; False where we may not mount or lack the programs.
    """
    image = folder.with_name(f"{folder.name}.image")
    there = os.geteuid() == 0 and _mounted(folder, image, limits)
    try:
        yield there
    finally:
        if there:
            words = ("umount", "--lazy", folder)
            run(words, cwd=folder.parent, check=False, timeout=_LIMIT)
            image.unlink(missing_ok=True)


def _mounted(folder: Path, image: Path, limits: Limits) -> bool:
    try:
        with image.open("xb") as file:
            os.truncate(file.fileno(), limits.disk << 20)
        form = ("mkfs.ext4", *_FORMAT, "-N", str(min(limits.files, limits.disk * _MOST_FILES)))
        for words in ((*form, image), (*_MOUNT, image, folder)):
            done = run(words, cwd=folder.parent, check=False, timeout=_LIMIT, watched=True)
            if done.returncode != 0:
                break
        else:
            (folder / "lost+found").rmdir()
            return True
    except (OSError, ToolMissing, CommandTimeout, DiskFull):
        pass
    image.unlink(missing_ok=True)
    return False
