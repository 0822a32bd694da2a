# SPDX-License-Identifier: GPL-2.0-only
"""Read and write what all ACPI tables share: header, checksum, fields.

Source: ACPI specification, section 5.2.6, System Description Table Header."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from iommuq.system.errors import UserError
from iommuq.system.progress import one_line

#: Largest size of a table in bytes.
SIZE_LIMIT = 1 << 20

HEADER_SIZE = 36
_LENGTH_AT, _CHECKSUM_AT = 4, 9
_REVISION_MAX = 0xFFFFFFFF

_DUMP = "dump the table again, as root: cat /sys/firmware/acpi/tables/NAME >FILE"


class TableError(UserError):
    """A table is malformed.

    :param offset: the byte of the table that is wrong.
    :param name: the file or table.
    """

    def __init__(self, what: str, *, offset: int, name: str, hint: str = _DUMP) -> None:
        super().__init__(f"{one_line(name)}: byte 0x{offset:x}: {what}", hint=hint)
        self.offset = offset


@dataclass(frozen=True)
class Header:
    """The header of a table, without length and checksum, which are computed.

    :ivar signature: four bytes, such as ``b"DMAR"``.
    :ivar revision: the version of the table's format.
    :ivar oem_id: six bytes; identifies the table together with *oem_table_id*.
    :ivar oem_table_id: eight bytes.
    :ivar oem_revision: Linux replaces a table only by one with a higher OEM revision.
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
        """Return the whole table: header and *body*, with length and checksum.

        :raises UserError: a value does not fit its field.
        """
        fields = (self.oem_id, self.oem_table_id, self.oem_revision)
        creator = (self.creator_id, self.creator_revision)
        size = HEADER_SIZE + len(body)
        head = pack("header", "4sIBB", self.signature, size, self.revision, 0)
        table = bytearray(head + pack("header", "6s8sI4sI", *fields, *creator) + body)
        table[_CHECKSUM_AT] = -sum(table) & 0xFF
        return bytes(table)

    def raised(self) -> Header:
        """Return the header with the next OEM revision, so that Linux uses the table.

        Source: drivers/acpi/tables.c, acpi_table_initrd_override().

        :raises UserError: the OEM revision has its highest value.
        """
        if self.oem_revision >= _REVISION_MAX:
            what = f"{text(self.signature)}: OEM revision has its highest value"
            raise UserError(what, hint="Linux cannot replace this table")
        return replace(self, oem_revision=self.oem_revision + 1)

    def describe(self) -> str:
        """Return the revision and origin of the table as text."""
        return (
            f"revision {self.revision}, made by {text(self.oem_id)} {text(self.oem_table_id)}, "
            f"OEM revision 0x{self.oem_revision:x}"
        )


class Reader:
    """A window on a table, read from its begin to its end.

    :ivar offset: the next byte of the table.
    :ivar end: the byte after the window.
    """

    __slots__ = ("_data", "_name", "end", "offset")

    def __init__(self, data: bytes, offset: int, end: int, name: str) -> None:
        self._data = data
        self._name = name
        self.offset = offset
        self.end = end

    @property
    def left(self) -> int:
        """Number of unread bytes."""
        return self.end - self.offset

    def unpack(self, form: str, what: str) -> tuple[Any, ...]:
        """Read the next fields.

        :param form: format of `struct` without the byte order, which is little-endian.
        :param what: the structure, for messages.
        :raises TableError: the window is too short.
        """
        size = struct.calcsize(f"<{form}")
        if self.left < size:
            raise self.error(f"{what} is cut short: {size} bytes wanted, {self.left} left")
        fields = struct.unpack_from(f"<{form}", self._data, self.offset)
        self.offset += size
        return fields

    def peek(self, form: str, what: str) -> tuple[Any, ...]:
        """Return what `unpack` returns, without moving on."""
        here = self.offset
        fields = self.unpack(form, what)
        self.offset = here
        return fields

    def rest(self) -> bytes:
        """Read the rest of the window."""
        data = self._data[self.offset : self.end]
        self.offset = self.end
        return data

    def part(self, length: int, least: int, what: str) -> Reader:
        """Skip the next structure and return a window on it.

        :param length: its length in bytes, as the table says.
        :param least: its minimal length, above 0.
        :raises TableError: it is shorter, or ends after this window.
        """
        if length < least:
            raise self.error(f"{what} has length {length}, minimum is {least}")
        if length > self.left:
            raise self.error(f"{what} has length {length}, but only {self.left} bytes are left")
        window = Reader(self._data, self.offset, self.offset + length, self._name)
        self.offset += length
        return window

    def error(self, what: str, *, hint: str = _DUMP) -> TableError:
        """Return the error *what* for the next byte."""
        return TableError(what, offset=self.offset, name=self._name, hint=hint)


@dataclass(frozen=True)
class Layout:
    """The fixed fields of a structure, in their order in the table.

    :ivar name: the structure, for messages.
    :ivar form: format of `struct` without the byte order.
    :ivar fields: the attributes of its class.
    """

    name: str
    form: str
    fields: tuple[str, ...]

    def pack(self, structure: object) -> bytes:
        """Return the fields of a structure as bytes; see `pack`."""
        return pack(self.name, self.form, *(getattr(structure, name) for name in self.fields))

    def unpack(self, reader: Reader) -> dict[str, Any]:
        """Read the fields, by name; see `Reader.unpack`."""
        return dict(zip(self.fields, reader.unpack(self.form, self.name), strict=True))


def split(data: bytes, signature: bytes, name: str) -> tuple[Header, Reader]:
    """Check the header of a table.

    :param signature: the expected signature.
    :param name: the file or table, for messages.
    :return: the header, and a window on the rest.
    :raises TableError: wrong signature, length or checksum.
    """
    whole = Reader(data, 0, len(data), name)
    if data[:4] != signature:
        raise unwanted(data, (signature,), name)
    first, length, revision, _checksum = whole.unpack("4sIBB", "the header")
    creator = whole.unpack("6s8sI4sI", "the header")
    if length != len(data):
        if length < HEADER_SIZE:
            what = f"length {length} is less than a header, {HEADER_SIZE}"
        else:
            what = f"length {length}, but there are {len(data)} bytes"
        raise TableError(what, offset=_LENGTH_AT, name=name, hint=_other_form(data))
    left = sum(data) & 0xFF
    if left:
        what = f"wrong checksum: the sum of all bytes is 0x{left:02x}, not 0"
        raise TableError(what, offset=_CHECKSUM_AT, name=name)
    return Header(first, revision, *creator), whole


def unwanted(data: bytes, signatures: tuple[bytes, ...], name: str) -> TableError:
    """Return the error for a table that has none of the expected signatures."""
    wanted = " or ".join(text(signature) for signature in signatures)
    what = f"signature {text(data[:4]) or 'missing'}, expected {wanted}"
    return TableError(what, offset=0, name=name, hint=_other_form(data))


def read(path: Path) -> bytes:
    """Read a file with a table, without checking the content.

    :raises UserError: it cannot be read, is empty or is too big.
    """
    name = one_line(str(path))
    try:
        # O_NONBLOCK: opening a named pipe must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise UserError(f"{name}: not a regular file", hint=_DUMP)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except PermissionError as error:
        raise UserError(f"{name}: {error.strerror}", hint="read it as root") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{name}: {reason}") from error
    if not data:
        raise TableError("the file is empty", offset=0, name=name)
    if len(data) > SIZE_LIMIT:
        what = f"more than {SIZE_LIMIT >> 20} MiB: not a table"
        raise TableError(what, offset=SIZE_LIMIT, name=name)
    return data


def pack(what: str, form: str, *fields: object) -> bytes:
    """Return fields as bytes: the reverse of `Reader.unpack`.

    :param what: the structure, for messages.
    :raises UserError: a value does not fit its field.
    """
    try:
        data = struct.pack(f"<{form}", *fields)
    except struct.error as error:
        raise UserError(f"{what}: a value does not fit its field: {error}") from error
    # struct cuts or pads bytes of the wrong length silently.
    if struct.unpack(f"<{form}", data) != fields:
        raise UserError(f"{what}: a value does not have the length of its field")
    return data


def text(raw: bytes) -> str:
    """Return the characters of a field without padding, others than ASCII escaped."""
    return "".join(
        chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in raw.rstrip(b"\0 ")
    )


def _other_form(data: bytes) -> str:
    """Return a hint for a file that is no binary table."""
    start = data[:256].lstrip()
    if b" @ 0x" in start:
        return "output of acpidump: convert it with `acpixtract -a FILE`"
    if start.startswith((b"/*", b"[0", b"DefinitionBlock")):
        return "disassembled table: compile it with `iasl FILE`"
    return _DUMP
