# SPDX-License-Identifier: GPL-2.0-only
"""What all ACPI tables share: their header, their checksum, and reading bytes with care.

Source: ACPI specification, section 5.2.6, System Description Table Header.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from iommuq.system.errors import UserError
from iommuq.system.progress import one_line

#: Bytes that a file with a table may have; real ones have a few hundred.
SIZE_LIMIT = 1 << 20

HEADER_SIZE = 36
_LENGTH_AT, _CHECKSUM_AT = 4, 9
_REVISION_MAX = 0xFFFFFFFF

_DUMP = "dump the table again, as root: cat /sys/firmware/acpi/tables/NAME >FILE"


class TableError(UserError):
    """A table is malformed.

    :param what: what is wrong.
    :param offset: the byte of the table that it is wrong at.
    :param name: the file, or what else to call the table.
    """

    def __init__(self, what: str, *, offset: int, name: str, hint: str = _DUMP) -> None:
        super().__init__(f"{one_line(name)}: byte 0x{offset:x}: {what}", hint=hint)
        self.offset = offset


@dataclass(frozen=True)
class Header:
    """The header of a table, without its length and checksum, which follow from the rest.

    :ivar signature: four bytes, such as ``b"DMAR"``.
    :ivar revision: the version of the table's format.
    :ivar oem_id: six bytes; with *oem_table_id* they say whose table it is.
    :ivar oem_table_id: eight bytes.
    :ivar oem_revision: Linux takes another table in its place only if this is higher.
    :ivar creator_id: four bytes: the tool that made it.
    """

    signature: bytes
    revision: int = 1
    oem_id: bytes = b"IOMMUQ"
    oem_table_id: bytes = b"IOMMUQ  "
    oem_revision: int = 1
    creator_id: bytes = b"IOMQ"
    creator_revision: int = 1

    def encode(self, body: bytes) -> bytes:
        """Return the whole table: header and *body*, with the right length and checksum.

        :raises UserError: a field does not fit its place.
        """
        fields = (self.oem_id, self.oem_table_id, self.oem_revision)
        creator = (self.creator_id, self.creator_revision)
        size = HEADER_SIZE + len(body)
        head = pack("header", "4sIBB", self.signature, size, self.revision, 0)
        table = bytearray(head + pack("header", "6s8sI4sI", *fields, *creator) + body)
        table[_CHECKSUM_AT] = -sum(table) & 0xFF
        return bytes(table)

    def raised(self) -> Header:
        """Return the header with the next OEM revision.

        Linux ignores a table from the initramfs unless its OEM revision is higher than
        that of the firmware's own (drivers/acpi/tables.c, acpi_table_initrd_override()).

        :raises UserError: there is no higher one.
        """
        if self.oem_revision >= _REVISION_MAX:
            raise UserError(
                f"the OEM revision of the {text(self.signature)} is the highest there is",
                hint="Linux takes no table in the place of this one",
            )
        return replace(self, oem_revision=self.oem_revision + 1)

    def describe(self) -> str:
        """Return whose table it is, in words."""
        return (
            f"revision {self.revision}, made by {text(self.oem_id)} {text(self.oem_table_id)}, "
            f"OEM revision 0x{self.oem_revision:x}"
        )


class Reader:
    """A window on a table, read from its begin to its end and never past it.

    :ivar offset: the byte of the table that comes next.
    :ivar end: the byte after the last of the window.
    """

    __slots__ = ("_data", "_name", "end", "offset")

    def __init__(self, data: bytes, offset: int, end: int, name: str) -> None:
        self._data = data
        self._name = name
        self.offset = offset
        self.end = end

    @property
    def left(self) -> int:
        """The number of bytes not read yet."""
        return self.end - self.offset

    def unpack(self, form: str, what: str) -> tuple[Any, ...]:
        """Read the next fields.

        :param form: as of `struct`, without the byte order, which is little-endian.
        :param what: what they are fields of.
        :raises TableError: the window is too short.
        """
        size = struct.calcsize(f"<{form}")
        if self.left < size:
            raise self.error(f"{what} is cut short: {size} bytes wanted, {self.left} left")
        fields = struct.unpack_from(f"<{form}", self._data, self.offset)
        self.offset += size
        return fields

    def peek(self, form: str, what: str) -> tuple[Any, ...]:
        """Return what `unpack` would, and stay."""
        here = self.offset
        fields = self.unpack(form, what)
        self.offset = here
        return fields

    def rest(self) -> bytes:
        """Read all that is left of the window."""
        data = self._data[self.offset : self.end]
        self.offset = self.end
        return data

    def part(self, length: int, least: int, what: str) -> Reader:
        """Go past the next structure and return a window on it.

        :param length: its length in bytes, as the table has it.
        :param least: what it must have to be one, which is more than nothing.
        :raises TableError: it is shorter, or ends after this window.
        """
        if length < least:
            raise self.error(f"{what} has length {length}, but {least} is the least it may have")
        if length > self.left:
            raise self.error(f"{what} has length {length}, but only {self.left} bytes are left")
        window = Reader(self._data, self.offset, self.offset + length, self._name)
        self.offset += length
        return window

    def error(self, what: str, *, hint: str = _DUMP) -> TableError:
        """Return the error that says that *what* is wrong at the next byte."""
        return TableError(what, offset=self.offset, name=self._name, hint=hint)


def split(data: bytes, signature: bytes, name: str) -> tuple[Header, Reader]:
    """Check the header of a table.

    :param signature: what the table must be.
    :param name: the file, or what else to call the table in messages.
    :return: the header, and a window on what comes after it.
    :raises TableError: signature, length or checksum is not as it should be.
    """
    whole = Reader(data, 0, len(data), name)
    if data[:4] != signature:
        raise unwanted(data, (signature,), name)
    first, length, revision, _checksum = whole.unpack("4sIBB", "the header")
    creator = whole.unpack("6s8sI4sI", "the header")
    if length != len(data):
        if length < HEADER_SIZE:
            what = f"length {length} is less than that of a header, {HEADER_SIZE}"
        else:
            what = f"length {length}, but there are {len(data)} bytes"
        raise TableError(what, offset=_LENGTH_AT, name=name, hint=_other_form(data))
    left = sum(data) & 0xFF
    if left:
        raise TableError(
            f"checksum is wrong: all bytes add up to 0x{left:02x}, not 0",
            offset=_CHECKSUM_AT,
            name=name,
        )
    return Header(first, revision, *creator), whole


def unwanted(data: bytes, signatures: tuple[bytes, ...], name: str) -> TableError:
    """Return the error that says that a table is none of those that are wanted."""
    wanted = " or ".join(text(signature) for signature in signatures)
    what = f"signature {text(data[:4]) or 'missing'} where {wanted} is wanted"
    return TableError(what, offset=0, name=name, hint=_other_form(data))


def read(path: Path) -> bytes:
    """Read a file that should hold a table.

    :return: its bytes, which nothing has been checked of but that there are some.
    :raises UserError: it cannot be read, is empty or is too big.
    """
    try:
        # Opening a named pipe must not wait for somebody to write to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise UserError(f"{one_line(str(path))}: no regular file", hint=_DUMP)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except PermissionError as error:
        raise UserError(
            f"{one_line(str(path))}: {error.strerror}", hint="firmware's tables are root's to read"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{one_line(str(path))}: {reason}") from error
    if not data:
        raise TableError("the file is empty", offset=0, name=str(path))
    if len(data) > SIZE_LIMIT:
        raise TableError(
            f"more than {SIZE_LIMIT >> 20} MiB: no table", offset=SIZE_LIMIT, name=str(path)
        )
    return data


def pack(what: str, form: str, *fields: object) -> bytes:
    """Return fields as a table has them: the reverse of `Reader.unpack`.

    :param what: what they are fields of.
    :raises UserError: one of them does not fit.
    """
    try:
        data = struct.pack(f"<{form}", *fields)
    except struct.error as error:
        raise UserError(f"{what}: a value does not fit its field: {error}") from error
    # Bytes of the wrong length are cut or filled up without a word.
    if struct.unpack(f"<{form}", data) != fields:
        raise UserError(f"{what}: a value does not have the length of its field")
    return data


def text(raw: bytes) -> str:
    """Return a table's characters, without the padding and safe for any terminal."""
    return "".join(
        chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in raw.rstrip(b"\0 ")
    )


def _other_form(data: bytes) -> str:
    """Return what to do with a file that is no table, by what it looks like."""
    start = data[:256].lstrip()
    if b" @ 0x" in start:
        return "this is acpidump's text: `acpixtract -a FILE` makes tables of it"
    if start.startswith((b"/*", b"[0", b"DefinitionBlock")):
        return "this is a disassembly: `iasl FILE` makes a table of it"
    return _DUMP
