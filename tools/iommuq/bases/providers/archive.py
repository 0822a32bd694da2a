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

# First bytes of a file, and its decompressor.
_DECOMPRESSORS: Sequence[tuple[bytes, tuple[str, ...]]] = (
    # One thread per core: the tarballs of Debian have blocks for that.
    (b"\xfd7zXZ\0", ("xz", "-dc", "-T0")),
    (b"\x1f\x8b", ("gzip", "-dc")),
    (b"BZh", ("bzip2", "-dc")),
    (b"\x28\xb5\x2f\xfd", ("zstd", "-dcq")),
)
# tarfile copies the rest of a block for each header; its default of 10 KiB takes 15 % longer.
_BLOCK = 512


class _Stream:
    """A pipe that notes a read at its end: tarfile accepts an archive without end blocks."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._read = pipe.read
        self.short = False

    def read(self, size: int) -> bytes:
        data = self._read(size)
        if not data:
            self.short = True
        return data


def decompressor(path: Path) -> tuple[str, ...]:
    """Return the command that decompresses *path* from its input to its output."""
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

    :param path: a tar archive, compressed or not, or a Debian package.
    :param version: recorded in the result.
    :param sha256: recorded in the result; may be empty.
    :param member: path of the archive in a Debian package; empty for a plain archive.
    :raises UserError: the archive has members that no kernel source has.
    :raises InfraError: it is damaged or cut short, or no space is left.
    """
    if member:
        # GNU tar, not tarfile: needs no thread to copy the data.
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
                # tarfile would keep all of them in memory.
                cast("list[tarfile.TarInfo]", archive.members).clear()  # type: ignore[attr-defined]
    except (tarfile.TarError, EOFError) as error:
        raise InfraError(f"{where}: incomplete tar archive: {error}") from error
    if stream.short:
        raise InfraError(f"{where}: incomplete tar archive: no end blocks")


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
        raise UserError(f"{where}: {member.name} is neither a file, a directory nor a link")
