# SPDX-License-Identifier: GPL-2.0-only
"""IVRS, the table of AMD's IOMMU: its blocks, read and written byte for byte.

Source: AMD I/O Virtualization Technology (IOMMU) Specification, chapter 5."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

from iommuq.firmware.tables import acpi, ivhd
from iommuq.firmware.tables.acpi import Header, Reader, pack
from iommuq.firmware.tables.ivhd import DeviceEntry
from iommuq.firmware.tables.sanity import Oddity, Reserved, check, check_revision

SIGNATURE = b"IVRS"
#: Where the first block begins.
FIRST = 48
REVISIONS = range(1, 3)
_HEADER = Header(SIGNATURE)

HARDWARE = (0x10, 0x11, 0x40)
ALL, SELECT, RANGE = 0x20, 0x21, 0x22
MEMORY = (ALL, SELECT, RANGE)

#: Flags of an IVMD.
UNITY, READ, WRITE, EXCLUSION = 1, 2, 4, 8


@dataclass(frozen=True)
class Ivhd:
    """An IOMMU and the devices behind it (section 5.2.2).

    :ivar kind: one of `HARDWARE`; one IOMMU may have a block of each type.
    :ivar devid: requester ID of the IOMMU.
    :ivar base: address of its registers.
    :ivar features: images of two registers; None in a block of type 10h.
    """

    NAME: ClassVar[str] = "IVHD"
    kind: int
    devid: int
    base: int
    entries: tuple[DeviceEntry, ...] = ()
    segment: int = 0
    flags: int = 0
    capability: int = 0
    info: int = 0
    attributes: int = 0
    features: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if (self.features is None) != (self.kind == 0x10):
            raise ValueError("an IVHD has features unless it is of type 10h")

    def encode(self) -> bytes:
        """Return its bytes."""
        fields = (self.capability, self.base, self.segment, self.info, self.attributes)
        body = pack(self.NAME, "HQHHI", *fields)
        if self.features is not None:
            body += pack(self.NAME, "QQ", *self.features)
        return _block(self.kind, self.flags, self.devid, body + ivhd.encode(self.entries))


@dataclass(frozen=True)
class Ivmd:
    """A region that devices need (section 5.2.3).

    :ivar kind: `ALL` devices of the segment, one (`SELECT`) or a `RANGE` of them.
    :ivar flags: of `UNITY`, `READ`, `WRITE` and `EXCLUSION`.
    :ivar devid: requester ID of the device, or of the first one; unused with `ALL`.
    :ivar aux: requester ID of the last device of a `RANGE`.
    :ivar start: first address.
    :ivar size: in bytes.
    """

    NAME: ClassVar[str] = "IVMD"
    kind: int
    flags: int
    start: int
    size: int
    devid: int = 0
    aux: int = 0
    segment: int = 0
    reserved: bytes = bytes(6)
    rest: bytes = b""

    @property
    def devices(self) -> tuple[int, int]:
        """The first and the last requester ID."""
        if self.kind == ALL:
            return 0, 0xFFFF
        return self.devid, self.aux if self.kind == RANGE else self.devid

    def encode(self) -> bytes:
        """Return its bytes."""
        fields = (self.aux, self.segment, self.reserved, self.start, self.size)
        body = pack(self.NAME, "HH6sQQ", *fields) + self.rest
        return _block(self.kind, self.flags, self.devid, body)


@dataclass(frozen=True)
class Unknown:
    """A block of unknown type; kernels skip it."""

    NAME: ClassVar[str] = "block of unknown type"
    kind: int
    flags: int
    body: bytes

    @property
    def devid(self) -> int:
        """The bytes where known blocks have a requester ID; Linux reads them as one."""
        return int.from_bytes(self.body[:2], "little")

    def encode(self) -> bytes:
        """Return its bytes."""
        return pack("block", "BBH", self.kind, self.flags, 4 + len(self.body)) + self.body


Block: TypeAlias = Ivhd | Ivmd | Unknown


@dataclass(frozen=True)
class Ivrs:
    """An IVRS table (section 5.2.1).

    :ivar info: bits 14:8 are those of a physical address, 21:15 those of a virtual one.
    """

    blocks: tuple[Block, ...]
    header: Header = _HEADER
    info: int = 0
    reserved: int = 0

    def encode(self) -> bytes:
        """Return the table's bytes, with length and checksum.

        :raises UserError: a value does not fit its field.
        """
        head = pack("IVRS", "IQ", self.info, self.reserved)
        return self.header.encode(head + b"".join(block.encode() for block in self.blocks))

    def places(self) -> Iterator[tuple[int, Block]]:
        """Yield each block with the byte of the table where it begins."""
        offset = FIRST
        for block in self.blocks:
            yield offset, block
            offset += len(block.encode())

    def hardware_type(self) -> int | None:
        """Return the type of the IVHDs that Linux uses; None without a block.

        It is the type of the last block with the requester ID of the first block.
        Source: drivers/iommu/amd/init.c, get_highest_supported_ivhd_type().
        """
        if not self.blocks:
            return None
        first, last = self.blocks[0].devid, self.blocks[0].kind
        for block in self.blocks:
            if block.kind > max(HARDWARE):
                break
            if block.devid == first:
                last = block.kind
        return last

    def with_ivmd(
        self,
        start: int,
        size: int,
        *,
        kind: int = SELECT,
        devid: int = 0,
        last: int = 0,
        flags: int = UNITY | READ | WRITE,
        segment: int = 0,
    ) -> Ivrs:
        """Return the table with one more IVMD, at its end; the parameters are those of `Ivmd`.

        :param last: requester ID of the last device of a `RANGE`.
        """
        region = Ivmd(kind, flags, start, size, devid, last, segment)
        return replace(self, blocks=(*self.blocks, region))

    def raised(self) -> Ivrs:
        """Return the table with the next OEM revision; see `Header.raised`."""
        return replace(self, header=self.header.raised())


def parse(data: bytes, *, name: str = "IVRS") -> Ivrs:
    """Read an IVRS table.

    :param name: the file or table, for messages.
    :raises TableError: it is malformed; the byte is named.
    """
    header, reader = acpi.split(data, SIGNATURE, name)
    info, reserved = reader.unpack("IQ", "IVRS")
    blocks: list[Block] = []
    while reader.left:
        kind, flags, length = reader.peek("BBH", "a block")
        if kind in HARDWARE:
            blocks.append(_ivhd(reader.part(length, 24 if kind == 0x10 else 40, Ivhd.NAME)))
        elif kind in MEMORY:
            blocks.append(_ivmd(reader.part(length, 32, Ivmd.NAME)))
        else:
            part = reader.part(length, 4, f"block of unknown type 0x{kind:02x}")
            part.unpack("BBH", "block")
            blocks.append(Unknown(kind, flags, part.rest()))
    return Ivrs(tuple(blocks), header, info, reserved)


def findings(table: Ivrs) -> list[Oddity]:
    """Return what is odd about the regions and device entries of a table, in its order."""
    claims, found = [], check_revision(table.header.revision, REVISIONS)
    for offset, block in table.places():
        if isinstance(block, Ivhd):
            found += ivhd.findings(block.entries, offset + (24 if block.kind == 0x10 else 40))
        if not isinstance(block, Ivmd):
            continue
        first, last = block.devices
        claim = Reserved(offset, block.start, block.size, (block.segment, first, last), block.NAME)
        claims.append(claim)
        if first > last:
            found.append(Oddity(offset, f"{claim.name}: its last device comes before its first"))
        if not block.flags & (UNITY | EXCLUSION):
            text = "neither a unity map nor an exclusion range; Linux ignores it"
            found.append(Oddity(offset, f"{claim.name} is {text}"))
        elif not block.flags & (READ | WRITE | EXCLUSION):
            found.append(Oddity(offset, f"{claim.name} may be neither read nor written"))
    chosen = table.hardware_type()
    if table.blocks and chosen not in HARDWARE:
        offset = next(offset for offset, block in table.places() if block.kind == chosen)
        found.append(Oddity(offset, "Linux finds no IVHD to use and leaves the IOMMU off"))
    return sorted(found + check(claims), key=lambda finding: finding.offset)


def _block(kind: int, flags: int, devid: int, body: bytes) -> bytes:
    return pack("block", "BBHH", kind, flags, 6 + len(body), devid) + body


def _ivhd(reader: Reader) -> Ivhd:
    kind, flags, _length, devid = reader.unpack("BBHH", Ivhd.NAME)
    capability, base, segment, info, attributes = reader.unpack("HQHHI", Ivhd.NAME)
    features = None
    if kind != 0x10:
        one, two = reader.unpack("QQ", Ivhd.NAME)
        features = (one, two)
    entries = ivhd.decode(reader)
    rest = (segment, flags, capability, info, attributes, features)
    return Ivhd(kind, devid, base, entries, *rest)


def _ivmd(reader: Reader) -> Ivmd:
    kind, flags, _length, devid = reader.unpack("BBHH", Ivmd.NAME)
    aux, segment, reserved, start, size = reader.unpack("HH6sQQ", Ivmd.NAME)
    return Ivmd(kind, flags, start, size, devid, aux, segment, reserved, reader.rest())
