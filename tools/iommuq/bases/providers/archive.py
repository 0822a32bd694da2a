# SPDX-License-Identifier: GPL-2.0-only
"""Read a source archive as a stream, straight into a repository."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

from iommuq.bases.providers.job import Job, Provided
from iommuq.bases.providers.snapshot import Snapshot, importing
from iommuq.system.errors import CommandFailed, InfraError, UserError
from iommuq.system.run import pipeline, tail

# First bytes -> the command that unpacks standard input to standard output.
_DECOMPRESSORS: Sequence[tuple[bytes, tuple[str, ...]]] = (
    # xz is twice as quick with a thread a core; Debian's tarballs have blocks for that.
    (b"\xfd7zXZ\0", ("xz", "-dc", "-T0")),
    (b"\x1f\x8b", ("gzip", "-dc")),
    (b"BZh", ("bzip2", "-dc")),
    (b"\x28\xb5\x2f\xfd", ("zstd", "-dcq")),
)
# tarfile copies what is left of a block for each header; 10 KiB, its default, costs 15 % more.
_BLOCK = 512


class _Stream:
    """A pipe that knows whether its reader wanted more than there was.

    tarfile takes an archive that ends between two members for a whole one, and
    only the empty blocks at the end of a real one keep it from reading on.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self._read = pipe.read
        self.short = False

    def read(self, size: int) -> bytes:
        data = self._read(size)
        if not data:
            self.short = True
        return data


def decompressor(path: Path) -> tuple[str, ...]:
    """Return the command that unpacks *path* from its input to its output."""
    with path.open("rb") as file:
        head = file.read(8)
    for magic, command in _DECOMPRESSORS:
        if head.startswith(magic):
            return command
    return ("cat",)


def import_archive(
    job: Job, path: Path, *, version: str, sha256: str, member: str = ""
) -> Provided:
    """Make a commit of the tar archive in a file.

    :param job: where it goes.
    :param path: a tar archive, compressed or not, or a Debian package.
    :param version: what to call it.
    :param sha256: of the file; empty if nobody is to know.
    :param member: the archive's path in the Debian package; empty for a plain archive.
    :return: the commit and what it holds.
    :raises UserError: the archive holds something that no kernel source has.
    :raises InfraError: it is damaged or cut short, or there was no room.
    """
    if member:
        # GNU tar, and not tarfile: no thread of ours has to pump the data along.
        commands: list[Sequence[str | Path]] = [
            ("dpkg-deb", "--fsys-tarfile", path),
            ("tar", "--extract", "--to-stdout", f"./{member}"),
            ("xz", "-dc", "-T0"),
        ]
    else:
        commands = [("cat", path), decompressor(path)]
    title = f"Importing the sources of {job.name} ({version})"
    with importing(job, title, path.name) as snapshot:
        try:
            with pipeline(*commands, cwd=job.work, log_path=job.log) as pipe:
                _add_members(pipe, snapshot, path.name)
        except CommandFailed as error:
            reason = tail(error.output, 1) or error.what
            raise InfraError(
                f"{path.name}: damaged or cut short: {reason}", hint=f"full log: {job.log}"
            ) from error
    return Provided(version, sha256, snapshot.commit, snapshot.kernel)


def _add_members(pipe: IO[bytes], snapshot: Snapshot, where: str) -> None:
    stream = _Stream(pipe)
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|", bufsize=_BLOCK) as archive:
            for member in archive:
                _add_member(archive, member, snapshot, where)
                # A stream cannot go back, and tarfile would keep every one of them.
                cast("list[tarfile.TarInfo]", archive.members).clear()  # type: ignore[attr-defined]
    except (tarfile.TarError, EOFError) as error:
        raise InfraError(f"{where}: not a whole tar archive: {error}") from error
    if stream.short:
        raise InfraError(f"{where}: not a whole tar archive: it has no end")


def _add_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, snapshot: Snapshot, where: str
) -> None:
    if member.isreg():
        file = archive.extractfile(member)
        assert file is not None
        data = file.read()
        if len(data) != member.size:
            raise tarfile.ReadError(f"{member.name} is cut short")
        snapshot.add_file(member.name, data, mode=member.mode)
    elif member.issym():
        snapshot.add_symlink(member.name, member.linkname)
    elif member.islnk():
        snapshot.add_hardlink(member.name, member.linkname)
    elif not member.isdir():
        raise UserError(f"{where}: {member.name} is a device or another thing that is no source")
