# SPDX-License-Identifier: GPL-2.0-only
"""Turn a stream of files into one commit with ``git fast-import``.

Takes half the time of ``git add`` in an unpacked tree, and ignores .gitignore.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from iommuq.bases.providers.job import BASE_REF, Job, base_commit, kernel_version
from iommuq.system import progress
from iommuq.system.errors import UserError
from iommuq.system.run import pipeline

#: Increase when the same files get another commit id.
FORMAT = 1

# A fixed name and time: the id depends on the files alone.
_WHO = b"iommuq <iommuq@localhost> 0 +0000"

# A kernel has about 100 symbolic links; Linux follows 40 in a row (MAXSYMLINKS).
_LINKS, _FOLLOWED, _DEPTH = 1000, 40, 256
# Bytes of a Makefile: the version is at its beginning.
_MAKEFILE = 64 << 10

_FAST_IMPORT = (
    "git",
    # 6.12: level 0 is not faster, it writes 1.4 GB instead of 0.3 GB.
    *("-c", "core.compression=1", "-c", "pack.compression=1"),
    # Always a pack: `iommuq.bases.sources` looks for it.
    *("-c", "fastimport.unpackLimit=0"),
    # Deltas take 32 s and save little.
    *("fast-import", "--quiet", "--done", "--depth=0"),
)


class Snapshot:
    """The files of one tree; a top directory that contains all of them is left out.

    :ivar commit: the id of the commit, after `importing`.
    :ivar kernel: the version in the Makefile of the tree, after `finish`.
    """

    def __init__(self, sink: IO[bytes], step: progress.Task, where: str) -> None:
        self._sink = sink
        self._step = step
        self._where = where
        # path -> (mode, mark); the last one of the same path counts.
        self._entries: dict[str, tuple[bytes, int]] = {}
        self._makefiles: dict[str, bytes] = {}
        self._links: dict[str, str] = {}
        self._marks = 0
        self.commit = ""
        self.kernel = ""

    def add_file(self, path: str, data: bytes, *, mode: int) -> None:
        """Add a regular file.

        :param mode: its permissions; only the owner's execute bit is kept.
        :raises UserError: the path is outside the tree or in a ``.git``.
        """
        path = self._check(path)
        self._add(path, data, b"100755" if mode & stat.S_IXUSR else b"100644")
        # The tree's own, or the one in the directory that may hold all of it.
        top = next(iter(self._entries)).partition("/")[0]
        if path in ("Makefile", f"{top}/Makefile"):
            self._makefiles[path] = data[:_MAKEFILE]

    def add_symlink(self, path: str, target: str) -> None:
        """Add a symbolic link.

        :raises UserError: as for `add_file`.
        """
        path = self._check(path)
        self._add(path, os.fsencode(target), b"120000")
        self._links[path] = target

    def add_hardlink(self, path: str, to: str) -> None:
        """Add a second name of a file that was added before.

        :raises UserError: there is no such file, or as for `add_file`.
        """
        path, to = self._check(path), self._check(to)
        if to not in self._entries:
            raise UserError(f"{self._where}: {path} is a link to {to}, which does not exist")
        self._entries[path] = self._entries[to]
        self._links.pop(path, None)
        if to in self._links:
            self._links[path] = self._links[to]

    def finish(self) -> None:
        """Write the commit.

        :raises UserError: this is no kernel, a symbolic link leads out of it or to a directory
            that contains it, or a path leads through a link or a file.
        """
        prefix = self._common_prefix()
        for path in self._entries:
            above = path
            while above := above.rpartition("/")[0]:
                if above in self._entries:
                    raise UserError(f"{self._where}: {path} is below {above}, no directory")
        if len(self._links) > _LINKS:
            raise UserError(f"{self._where}: more than {_LINKS} symbolic links")
        for path, target in self._links.items():
            self._check_link(path, target, prefix)
        makefile = self._makefiles.get(f"{prefix}Makefile", b"").decode("utf-8", "replace")
        self.kernel = kernel_version(makefile, self._where)
        message = f"Linux {self.kernel}\n".encode()
        self._sink.write(
            b"commit %s\nauthor %s\ncommitter %s\ndata %d\n%s\n"
            % (BASE_REF.encode(), _WHO, _WHO, len(message), message)
        )
        for path, (mode, mark) in self._entries.items():
            name = _quote(os.fsencode(path.removeprefix(prefix)))
            self._sink.write(b"M %s :%d %s\n" % (mode, mark, name))
        self._sink.write(b"done\n")

    def _add(self, path: str, data: bytes, mode: bytes) -> None:
        self._marks += 1
        self._sink.write(b"blob\nmark :%d\ndata %d\n" % (self._marks, len(data)))
        self._sink.write(data)
        self._sink.write(b"\n")
        self._entries[path] = (mode, self._marks)
        self._links.pop(path, None)
        self._step.update(done=self._marks, note=path)

    def _check(self, path: str) -> str:
        """Return *path* normalised, or raise `UserError`."""
        clean = PurePosixPath(path)
        if clean.is_absolute() or ".." in clean.parts or not clean.parts:
            raise UserError(f"{self._where}: {path!r} is outside the tree")
        if any(part.lower() == ".git" for part in clean.parts):
            raise UserError(f"{self._where}: {path!r} is in a directory of git")
        return str(clean)

    def _check_link(self, path: str, target: str, prefix: str) -> None:
        """Resolve a link as the kernel does, with the links on its way."""
        here, waiting = path.split("/")[:-1], target.split("/")[::-1]
        what = f"{self._where}: {path} is a link to {target}"
        followed = 1
        while waiting:
            part = waiting.pop()
            if target.startswith("/") or (part == ".." and len(here) <= prefix.count("/")):
                raise UserError(f"{what}, outside the tree")
            if part == "..":
                here.pop()
            elif part not in ("", "."):
                here.append(part)
                after = self._links.get("/".join(here))
                if after is not None:
                    here.pop()
                    followed += 1
                    waiting += after.split("/")[::-1]
            if followed > _FOLLOWED or len(here) > _DEPTH:
                raise UserError(f"{what}, which has no end")
        if path.startswith("/".join([*here, ""])):
            raise UserError(f"{what}, which contains it")

    def _common_prefix(self) -> str:
        """Return ``dir/`` if all files are in one directory, else an empty string."""
        tops = {path.partition("/")[0] for path in self._entries}
        top = tops.pop() if len(tops) == 1 else ""
        return f"{top}/" if top and top not in self._entries else ""


def _quote(path: bytes) -> bytes:
    for plain, escaped in ((b"\\", b"\\\\"), (b'"', b'\\"'), (b"\n", b"\\n")):
        path = path.replace(plain, escaped)
    return b'"%s"' % path


@contextlib.contextmanager
def importing(job: Job, title: str, where: Path | str) -> Iterator[Snapshot]:
    """Make a commit in the repository of the job of all files that the block adds.

    :param title: title of the progress line.
    :param where: name of the source, for messages.
    :return: the snapshot that the block fills.
    :raises UserError: the files are not those of a kernel.
    :raises DiskFull: no space is left.
    """
    command = ["git", f"--git-dir={job.repo}", *_FAST_IMPORT[1:]]
    with (
        progress.task(title, log=job.log) as step,
        pipeline(command, cwd=job.work, feed=True, log_path=job.log) as sink,
    ):
        snapshot = Snapshot(sink, step, str(where))
        yield snapshot
        snapshot.finish()
    snapshot.commit = base_commit(job.repo)
