# SPDX-License-Identifier: GPL-2.0-only
"""The device entries of an IVHD: the devices behind one of AMD's IOMMUs.

Source: AMD I/O Virtualization Technology (IOMMU) Specification, section 5.2.2."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from iommuq.firmware.tables.acpi import Reader, pack, text
from iommuq.firmware.tables.sanity import Oddity

ALL, SELECT, START, END = 0x01, 0x02, 0x03, 0x04
ALIAS_SELECT, ALIAS_START = 0x42, 0x43
EXTENDED_SELECT, EXTENDED_START = 0x46, 0x47
SPECIAL = 0x48
ACPI_HID = 0xF0

IOAPIC, HPET = 1, 2
#: Kinds of the UID of an ACPI device.
UID_NONE, UID_INTEGER, UID_STRING = 0, 1, 2

# From here on the type does not tell the length of the entry.
_UNSIZED = 0x80


@dataclass(frozen=True)
class Select:
    """An entry of four bytes: `ALL`, `SELECT`, `START` or `END` (of a range).

    :ivar devid: requester ID; unused with `ALL`.
    :ivar settings: interrupts of the device that are passed through.
    """

    kind: int
    devid: int
    settings: int = 0

    def encode(self) -> bytes:
        """Return its bytes."""
        return pack("device entry", "BHB", self.kind, self.devid, self.settings)


@dataclass(frozen=True)
class Alias:
    """A device, or the start of a range, whose requests have the ID of another device.

    :ivar kind: `ALIAS_SELECT` or `ALIAS_START`.
    :ivar source: requester ID that the IOMMU sees.
    """

    kind: int
    devid: int
    source: int
    settings: int = 0
    reserved: tuple[int, int] = (0, 0)

    def encode(self) -> bytes:
        """Return its bytes."""
        low, high = self.reserved
        fields = (self.kind, self.devid, self.settings, low, self.source, high)
        return pack("device entry", "BHBBHB", *fields)


@dataclass(frozen=True)
class Extended:
    """A device, or the start of a range, with further settings.

    :ivar kind: `EXTENDED_SELECT` or `EXTENDED_START`.
    :ivar extended: bit 31: no ATS.
    """

    kind: int
    devid: int
    extended: int
    settings: int = 0

    def encode(self) -> bytes:
        """Return its bytes."""
        fields = (self.kind, self.devid, self.settings, self.extended)
        return pack("device entry", "BHBI", *fields)


@dataclass(frozen=True)
class Special:
    """An I/O APIC or HPET.

    :ivar variety: `IOAPIC` or `HPET`.
    :ivar handle: its number.
    :ivar source: requester ID that it uses.
    """

    variety: int
    handle: int
    source: int
    settings: int = 0
    devid: int = 0

    def encode(self) -> bytes:
        """Return its bytes."""
        fields = (SPECIAL, self.devid, self.settings, self.handle, self.source, self.variety)
        return pack("device entry", "BHBBHB", *fields)


@dataclass(frozen=True)
class AcpiDevice:
    """A device of the ACPI name space.

    :ivar devid: requester ID that it uses.
    :ivar hid: hardware ID, eight bytes.
    :ivar cid: compatible ID, eight bytes.
    :ivar uid_kind: `UID_NONE`, `UID_INTEGER` or `UID_STRING`.
    """

    devid: int
    hid: bytes
    cid: bytes = bytes(8)
    uid_kind: int = UID_NONE
    uid: bytes = b""
    settings: int = 0

    @property
    def name(self) -> str:
        """Its HID and UID, as in ``AMDI0020:1``."""
        if self.uid_kind == UID_NONE:
            return text(self.hid)
        if self.uid_kind == UID_INTEGER:
            return f"{text(self.hid)}:{int.from_bytes(self.uid, 'little')}"
        return f"{text(self.hid)}:{text(self.uid)}"

    def encode(self) -> bytes:
        """Return its bytes."""
        fields = (ACPI_HID, self.devid, self.settings, self.hid, self.cid, self.uid_kind)
        return pack("device entry", "BHB8s8sBB", *fields, len(self.uid)) + self.uid


@dataclass(frozen=True)
class Other:
    """Padding, or an entry of unknown type, which kernels skip; *body* is all but the type."""

    kind: int
    body: bytes

    def encode(self) -> bytes:
        """Return its bytes."""
        return pack("device entry", "B", self.kind) + self.body


DeviceEntry: TypeAlias = Select | Alias | Extended | Special | AcpiDevice | Other


def starts_range(entry: DeviceEntry) -> bool:
    """Return whether an entry is the start of a range."""
    kinds = (START, ALIAS_START, EXTENDED_START)
    return isinstance(entry, Select | Alias | Extended) and entry.kind in kinds


def encode(entries: Iterable[DeviceEntry]) -> bytes:
    """Return the bytes of entries."""
    return b"".join(entry.encode() for entry in entries)


def decode(reader: Reader) -> tuple[DeviceEntry, ...]:
    """Read entries to the end of a window.

    :raises TableError: an entry is cut short, or of unknown length.
    """
    entries = []
    while reader.left:
        (kind,) = reader.peek("B", "a device entry")
        what = f"device entry of type 0x{kind:02x}"
        if kind == ACPI_HID:
            *_fixed, length = reader.peek("BHB8s8sBB", what)
            entries.append(_decode(reader.part(22 + length, 22, what), kind))
        elif kind >= _UNSIZED:
            hint = "Linux cannot read it either; report it to the vendor of the firmware"
            raise reader.error(f"{what}: unknown length", hint=hint)
        else:
            entries.append(_decode(reader.part(4 << (kind >> 6), 4, what), kind))
    return tuple(entries)


def _decode(part: Reader, kind: int) -> DeviceEntry:
    what = "device entry"
    if kind in (ALL, SELECT, START, END):
        return Select(*part.unpack("BHB", what))
    if kind in (ALIAS_SELECT, ALIAS_START):
        _kind, devid, settings, low, source, high = part.unpack("BHBBHB", what)
        return Alias(kind, devid, source, settings, (low, high))
    if kind in (EXTENDED_SELECT, EXTENDED_START):
        _kind, devid, settings, extended = part.unpack("BHBI", what)
        return Extended(kind, devid, extended, settings)
    if kind == SPECIAL:
        _kind, devid, settings, handle, source, variety = part.unpack("BHBBHB", what)
        return Special(variety, handle, source, settings, devid)
    if kind == ACPI_HID:
        _kind, devid, settings, hid, cid, uid_kind, _length = part.unpack("BHB8s8sBB", what)
        return AcpiDevice(devid, hid, cid, uid_kind, part.rest(), settings)
    part.unpack("B", what)
    return Other(kind, part.rest())


def findings(entries: Sequence[DeviceEntry], offset: int) -> list[Oddity]:
    """Return what is odd about ranges.

    :param offset: the byte of the table where the first entry begins.
    """
    found = []
    start: tuple[int, int] | None = None
    for entry in entries:
        if isinstance(entry, Select) and entry.kind == END:
            if start is None:
                found.append(Oddity(offset, "the end of a range of devices without a start"))
            elif entry.devid < start[1]:
                found.append(Oddity(offset, "a range of devices ends before its start"))
            start = None
        elif not isinstance(entry, Other):
            if start is not None:
                found.append(Oddity(start[0], "the start of a range of devices without an end"))
            start = None
            if starts_range(entry):
                start = offset, entry.devid
        offset += len(entry.encode())
    if start is not None:
        found.append(Oddity(start[0], "the start of a range of devices without an end"))
    return found
