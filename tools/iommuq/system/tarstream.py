# SPDX-License-Identifier: GPL-2.0-only
"""Read an untrusted tar archive from a pipe, within limits; nothing is unpacked.

Python 3.11.2 of Debian 12 has no ``filter="data"``, which is for unpacking to a disk anyway."""

from __future__ import annotations

import functools
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, cast

from iommuq.system.errors import InfraError, UserError

# tarfile copies the rest of a block for each header; its default of 10 KiB takes 15 % longer.
_BLOCK = 512
# Bytes between the data of two members: headers, long names, the maps of sparse files.
_HEADERS = 16 << 10
# Bytes of a path and of the target of a link.
_PATH = 255
# Seconds of CPU time; a kernel takes about 10.
_SECONDS = 60.0


@dataclass(frozen=True)
class Limits:
    """What an archive may hold.

    :ivar total: bytes of the whole archive.
    :ivar file: bytes of a member whose data is read.
    :ivar members: their number.
    """

    total: int
    file: int
    members: int


class _Stream:
    """A pipe that counts, and notes a read at its end: tarfile needs no end blocks.

    :ivar near: bytes that tarfile may read for the current member.
    """

    def __init__(self, pipe: IO[bytes], where: str, total: int) -> None:
        self._read = pipe.read
        self._where = where
        self._total = self._left = total
        self.near = _HEADERS
        self.short = False

    def read(self, size: int) -> bytes:
        data = self._read(size)
        self.short = not data
        self._left -= len(data)
        self.near -= len(data)
        if self._left < 0:
            raise UserError(f"{self._where}: unpacks to more than {self._total >> 20} MiB")
        if self.near < 0:
            raise UserError(f"{self._where}: headers of more than {_HEADERS >> 10} KiB")
        return data


def members(
    pipe: IO[bytes], where: str, limits: Limits
) -> Iterator[tuple[tarfile.TarInfo, Callable[[], bytes]]]:
    """Yield each member of an archive, and a function that returns its data.

    :param where: name of the archive, for messages.
    :raises UserError: it exceeds a limit, is malformed, or has a sparse file.
    :raises InfraError: it is cut short.
    """
    stream = _Stream(pipe, where, limits.total)
    begin = time.thread_time()
    number = 0
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|", bufsize=_BLOCK) as archive:
            for number, member in enumerate(archive, 1):
                _check(member, where)
                if number > limits.members:
                    raise UserError(f"{where}: more than {limits.members} members")
                if time.thread_time() > begin + _SECONDS:
                    raise UserError(f"{where}: reading it takes more than {_SECONDS:.0f} s")
                stream.near = member.size * member.isreg() + _HEADERS
                yield member, functools.partial(_data, archive, member, where, limits.file)
                # tarfile would keep all of them in memory, and copy these for each.
                cast("list[tarfile.TarInfo]", archive.members).clear()  # type: ignore[attr-defined]
                archive.pax_headers.clear()  # type: ignore[attr-defined]
    except (tarfile.TarError, EOFError) as error:
        raise InfraError(f"{where}: incomplete tar archive: {error}") from error
    except (ValueError, LookupError, ArithmeticError, RecursionError) as error:
        raise UserError(f"{where}: malformed header after {number} members") from error
    if stream.short:
        raise InfraError(f"{where}: incomplete tar archive: no end blocks")


def _check(member: tarfile.TarInfo, where: str) -> None:
    for text in (member.name, member.linkname):
        if "\0" in text or len(text.encode("utf-8", "surrogateescape")) > _PATH:
            raise UserError(f"{where}: a path has a NUL or more than {_PATH} bytes: {text[:80]!r}")
    if member.issparse() or member.size < 0:
        raise UserError(f"{where}: {member.name} is sparse, or has no size")


def _data(archive: tarfile.TarFile, member: tarfile.TarInfo, where: str, most: int) -> bytes:
    if member.size > most:
        raise UserError(f"{where}: {member.name} has more than {most >> 20} MiB")
    file = archive.extractfile(member)
    assert file is not None
    try:
        data = file.read()
    except (tarfile.TarError, EOFError) as error:
        raise InfraError(f"{where}: incomplete tar archive: {error}") from error
    if len(data) != member.size:
        raise InfraError(f"{where}: incomplete tar archive: {member.name} is cut short")
    return data
