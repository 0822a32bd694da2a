# SPDX-License-Identifier: GPL-2.0-only
"""Provider ``directory``: a local source tree, in the state when it is fetched."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from iommuq.bases.providers.job import Job, Provided
from iommuq.bases.providers.snapshot import Snapshot, importing
from iommuq.system.errors import UserError
from iommuq.system.tables import Table, require


@dataclass(frozen=True)
class DirectorySource(Table):
    """A ``[source]`` table with ``provider = "directory"``.

    :ivar path: the top of the tree; relative to the folder of ``base.toml``.
    """

    path: str
    provider: Literal["directory"] = "directory"

    def __post_init__(self) -> None:
        require(self.path, "path is empty")

    @property
    def label(self) -> str:
        """Its name in messages."""
        return self.path

    def provide(self, job: Job) -> Provided:
        """Make a commit of all files below a directory except ``.git``.

        :raises UserError: there is no such directory, it is no kernel, or it has
            sockets, devices or links that lead out of it.
        """
        top = job.place(self.path)
        if not top.is_dir():
            raise UserError(f"{top}: no such directory", hint=f"see {job.folder / 'base.toml'}")
        if (top / ".config").exists():
            job.notice(f"{top} has a .config, builds with O= will fail: run `make mrproper` there")
        with importing(job, f"Importing the sources of {job.name} ({top})", top) as snapshot:
            for folder, names, files in os.walk(top, onerror=_stop):
                # .git is a directory, or in a work tree a file.
                names[:] = sorted(name for name in names if name != ".git")
                for name in sorted({*files, *names} - {".git"}):
                    _add(Path(folder, name), top, snapshot)
        job.verify(snapshot.kernel, "")
        return Provided(snapshot.kernel, "", snapshot.commit, snapshot.kernel)


def _stop(error: OSError) -> None:
    raise error


def _add(path: Path, top: Path, snapshot: Snapshot) -> None:
    inside = str(path.relative_to(top))
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        snapshot.add_symlink(inside, str(path.readlink()))
    elif stat.S_ISREG(mode):
        snapshot.add_file(inside, path.read_bytes(), mode=mode)
    elif not stat.S_ISDIR(mode):
        raise UserError(f"{path}: neither a file, a directory nor a link")
