# SPDX-License-Identifier: GPL-2.0-only
"""Read a source archive as a stream, straight into a repository."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO

from iommuq.bases.providers.job import Job, Provided
from iommuq.bases.providers.snapshot import Snapshot, importing
from iommuq.system import tarstream
from iommuq.system.errors import CommandFailed, InfraError, IommuqError, UserError
from iommuq.system.groups import Bounds
from iommuq.system.run import pipeline, tail
from iommuq.system.sandbox.reader import boxed
from iommuq.system.tarstream import Limits

# One thread per core: the tarballs of Debian have blocks for that.
_XZ = ("xz", "-dc", "-T0", "--memlimit-mt-decompress=512MiB", "--memlimit-decompress=512MiB")
# First bytes of a file, and its decompressor.
_DECOMPRESSORS: Sequence[tuple[bytes, tuple[str, ...]]] = (
    (b"\xfd7zXZ\0", _XZ),
    (b"\x1f\x8b", ("gzip", "-dc")),
    (b"BZh", ("bzip2", "-dc")),
    # Refuses by itself what needs more than 128 MiB.
    (b"\x28\xb5\x2f\xfd", ("zstd", "-dcq")),
)
# Of xz and zstd.
_TOO_MUCH = ("Memory usage limit", "too much memory")
# Linux 6.12: 1.4 GiB, 92,000 members, 23 MiB.
_MOST = Limits(total=4 << 30, file=128 << 20, members=400_000)
# Most bytes for each of the compressed archive, after the first; a kernel has 11.
_RATIO, _START = 200, 16 << 20

#: For programs that unpack gigabytes.
UNPACKING = Bounds(memory=1 << 30, seconds=600, file=1 << 20)
#: The command that reads a Debian package, and writes its files as a tar archive.
FILES_OF = ("dpkg-deb", "--threads-max=1", "--fsys-tarfile", "-")


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
    :raises UserError: the archive has members that no kernel source has, or too much of them.
    :raises InfraError: it is damaged or cut short, or no space is left.
    """
    if member:
        # GNU tar, not tarfile: needs no thread to copy the data.
        commands: list[Sequence[str | Path]] = [
            ("cat", path),
            FILES_OF,
            ("tar", "--extract", "--to-stdout", f"./{member}"),
            _XZ,
        ]
    else:
        commands = [("cat", path), decompressor(path)]
    title = f"Importing the sources of {job.name} ({version})"
    with importing(job, title, path.name) as snapshot, ExitStack() as stack:
        inside = [
            # The first of them, which opens the file, and reads nothing into it.
            words if words[0] == "cat" else stack.enter_context(boxed(words, bounds=UNPACKING)).argv
            for words in commands
        ]
        try:
            with pipeline(*inside, cwd=job.work, log_path=job.log) as pipe:
                _add_members(pipe, snapshot, path)
        except CommandFailed as error:
            raise unreadable(path, error, f"full log: {job.log}") from error
    return Provided(version, sha256, snapshot.commit, snapshot.kernel)


def unreadable(path: Path, error: CommandFailed, hint: str) -> IommuqError:
    """Return the error for a file that cannot be decompressed, or only with too much memory."""
    reason = tail(error.output, 1) or error.what
    if any(words in error.output for words in _TOO_MUCH):
        return UserError(f"{path.name}: takes too much memory: {reason}")
    return InfraError(f"{path.name}: damaged or cut short: {reason}", hint=hint)


def _add_members(pipe: IO[bytes], snapshot: Snapshot, path: Path) -> None:
    most = replace(_MOST, total=min(_MOST.total, _START + _RATIO * path.stat().st_size))
    for member, data in tarstream.members(pipe, path.name, most):
        if member.isreg():
            snapshot.add_file(member.name, data(), mode=member.mode)
        elif member.issym():
            snapshot.add_symlink(member.name, member.linkname)
        elif member.islnk():
            snapshot.add_hardlink(member.name, member.linkname)
        elif not member.isdir():
            what = "neither a file, a directory nor a link"
            raise UserError(f"{path.name}: {member.name} is {what}")
