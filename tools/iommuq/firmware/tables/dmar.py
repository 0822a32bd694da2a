# SPDX-License-Identifier: GPL-2.0-only
"""DMAR, the table of Intel VT-d: its structures, read and written byte for byte.

Source: Intel Virtualization Technology for Directed I/O, chapter 8, BIOS Considerations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self, TypeAlias

from iommuq.firmware.tables import acpi
from iommuq.firmware.tables.acpi import Header, Layout, Reader, pack
from iommuq.firmware.tables.sanity import ADDRESS_BITS, Oddity, Reserved, check, check_revision

SIGNATURE = b"DMAR"
#: Where the first structure begins.
FIRST = 48
REVISIONS = range(1, 3)
_HEADER = Header(SIGNATURE)

ENDPOINT, BRIDGE, IOAPIC, HPET, NAMESPACE = 1, 2, 3, 4, 5
_SCOPE_NAMES = {
    ENDPOINT: "endpoint",
    BRIDGE: "bridge",
    IOAPIC: "I/O APIC",
    HPET: "HPET",
    NAMESPACE: "ACPI device",
}


@dataclass(frozen=True)
class Scope:
    """A device scope: a device, named by its path from the root bus (section 8.3.1).

    :ivar kind: `ENDPOINT`, `BRIDGE`, `IOAPIC`, `HPET`, `NAMESPACE` or an unknown number.
    :ivar bus: number of the root bus.
    :ivar path: device and function of each step, from the root bus.
    :ivar number: number of the I/O APIC, HPET or ACPI device; 0 for other kinds.
    :ivar flags: used in a SIDP only.
    :ivar odd: an incomplete last entry of the path; kernels ignore it.
    """

    kind: int
    bus: int
    path: tuple[tuple[int, int], ...]
    number: int = 0
    flags: int = 0
    reserved: int = 0
    odd: bytes = b""

    @property
    def kind_name(self) -> str:
        """Name of the kind."""
        return _SCOPE_NAMES.get(self.kind, f"unknown kind {self.kind}")

    @property
    def is_pci(self) -> bool:
        """Whether it names a PCI device, or all devices below a bridge."""
        return self.kind in (ENDPOINT, BRIDGE)

    def place(self, segment: int) -> str:
        """Return the whole path, such as ``0000:00:1c.0/00.0``."""
        steps = "/".join(_steps(self.path)) or "-"
        return f"{segment:04x}:{self.bus:02x}:{steps}"

    def short(self) -> str:
        """Return a short form: ``00:05.0``, or ``00.0 behind bridge 00:1c.0``."""
        steps = list(_steps(self.path))
        if not steps:
            return f"{self.bus:02x}: without a path"
        if len(steps) == 1:
            return f"{self.bus:02x}:{steps[0]}"
        return f"{steps[-1]} behind bridge {self.bus:02x}:{'/'.join(steps[:-1])}"

    def encode(self) -> bytes:
        """Return its bytes."""
        way = b"".join(pack("path", "BB", *step) for step in self.path) + self.odd
        fields = (self.kind, 6 + len(way), self.flags, self.reserved, self.number, self.bus)
        return pack("device scope", "6B", *fields) + way


def _steps(path: tuple[tuple[int, int], ...]) -> Iterator[str]:
    return (f"{device:02x}.{function:x}" for device, function in path)


class _Laid:
    """A structure with fixed fields, and behind them device scopes or the bytes of `REST`."""

    KIND: ClassVar[int]
    LAYOUT: ClassVar[Layout]
    REST: ClassVar[str] = "scopes"

    def encode(self) -> bytes:
        """Return its bytes."""
        rest = getattr(self, self.REST)
        if self.REST == "scopes":
            rest = b"".join(scope.encode() for scope in rest)
        return _structure(self.KIND, self.LAYOUT.pack(self) + rest)

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        """Read what `encode` returns, after type and length."""
        fields = cls.LAYOUT.unpack(reader)
        fields[cls.REST] = _scopes(reader) if cls.REST == "scopes" else reader.rest()
        return cls(**fields)


@dataclass(frozen=True)
class Drhd(_Laid):
    """A remapping hardware unit (section 8.3).

    :ivar base: address of its registers.
    :ivar flags: bit 0: all devices of the segment that no other unit has.
    :ivar size: bits 3:0: N; the registers take 2^N pages.
    """

    KIND: ClassVar[int] = 0
    LAYOUT: ClassVar[Layout] = Layout("DRHD", "BBHQ", ("flags", "size", "segment", "base"))
    base: int
    scopes: tuple[Scope, ...] = ()
    segment: int = 0
    flags: int = 0
    size: int = 0


@dataclass(frozen=True)
class Rmrr(_Laid):
    """A region that devices must be able to reach at all times (section 8.4).

    :ivar base: first address.
    :ivar limit: last address.
    """

    KIND: ClassVar[int] = 1
    LAYOUT: ClassVar[Layout] = Layout("RMRR", "HHQQ", ("reserved", "segment", "base", "limit"))
    base: int
    limit: int
    scopes: tuple[Scope, ...] = ()
    segment: int = 0
    reserved: int = 0

    @property
    def size(self) -> int:
        """Size in bytes; 0 or less if the limit is below the base."""
        return self.limit - self.base + 1


@dataclass(frozen=True)
class Atsr(_Laid):
    """Root ports below which ATS may be used (section 8.5); flags bit 0: all of them."""

    KIND: ClassVar[int] = 2
    LAYOUT: ClassVar[Layout] = Layout("ATSR", "BBH", ("flags", "reserved", "segment"))
    scopes: tuple[Scope, ...] = ()
    segment: int = 0
    flags: int = 0
    reserved: int = 0


@dataclass(frozen=True)
class Rhsa(_Laid):
    """The NUMA proximity domain of the unit with registers at *base* (section 8.6)."""

    KIND: ClassVar[int] = 3
    LAYOUT: ClassVar[Layout] = Layout("RHSA", "IQI", ("reserved", "base", "domain"))
    REST: ClassVar[str] = "rest"
    base: int
    domain: int
    reserved: int = 0
    rest: bytes = b""


@dataclass(frozen=True)
class Andd(_Laid):
    """The *name*, with NUL, of the ACPI device that scopes call by *number* (section 8.7)."""

    KIND: ClassVar[int] = 4
    LAYOUT: ClassVar[Layout] = Layout("ANDD", "3sB", ("reserved", "number"))
    REST: ClassVar[str] = "name"
    number: int
    name: bytes
    reserved: bytes = bytes(3)


@dataclass(frozen=True)
class Satc(_Laid):
    """Integrated devices with an address translation cache (section 8.8)."""

    KIND: ClassVar[int] = 5
    LAYOUT: ClassVar[Layout] = Layout("SATC", "BBH", ("flags", "reserved", "segment"))
    scopes: tuple[Scope, ...] = ()
    segment: int = 0
    flags: int = 0
    reserved: int = 0


@dataclass(frozen=True)
class Sidp(_Laid):
    """Properties of integrated devices, in the flags of their scopes (section 8.9)."""

    KIND: ClassVar[int] = 6
    LAYOUT: ClassVar[Layout] = Layout("SIDP", "HH", ("reserved", "segment"))
    scopes: tuple[Scope, ...] = ()
    segment: int = 0
    reserved: int = 0


@dataclass(frozen=True)
class Unknown:
    """A structure of unknown type; kernels skip it."""

    kind: int
    body: bytes

    def encode(self) -> bytes:
        """Return its bytes."""
        return _structure(self.kind, self.body)


Structure: TypeAlias = _Laid | Unknown


@dataclass(frozen=True)
class Dmar:
    """A DMAR table (section 8.1).

    :ivar width: bits of a host physical address, less one.
    :ivar flags: bit 0: interrupt remapping; bit 1: x2APIC opt-out; bit 2: DMA control opt-in.
    """

    structures: tuple[Structure, ...]
    header: Header = _HEADER
    width: int = 38
    flags: int = 0
    reserved: bytes = bytes(10)

    def encode(self) -> bytes:
        """Return the table's bytes, with length and checksum.

        :raises UserError: a value does not fit its field.
        """
        head = pack("DMAR", "BB10s", self.width, self.flags, self.reserved)
        return self.header.encode(head + b"".join(one.encode() for one in self.structures))

    def places(self) -> Iterator[tuple[int, Structure]]:
        """Yield each structure with the byte of the table where it begins."""
        offset = FIRST
        for structure in self.structures:
            yield offset, structure
            offset += len(structure.encode())

    def with_rmrr(self, base: int, limit: int, scopes: Sequence[Scope], segment: int = 0) -> Dmar:
        """Return the table with an RMRR at its end, from address *base* to *limit*."""
        region = Rmrr(base, limit, tuple(scopes), segment)
        return replace(self, structures=(*self.structures, region))

    def raised(self) -> Dmar:
        """Return the table with the next OEM revision; see `Header.raised`."""
        return replace(self, header=self.header.raised())


def parse(data: bytes, *, name: str = "DMAR") -> Dmar:
    """Read a DMAR table.

    :param name: the file or table, for messages.
    :raises TableError: it is malformed; the byte is named.
    """
    header, reader = acpi.split(data, SIGNATURE, name)
    width, flags, reserved = reader.unpack("BB10s", "DMAR")
    structures = []
    while reader.left:
        kind, length = reader.peek("HH", "a structure")
        known = _KINDS.get(kind)
        what = known.LAYOUT.name if known else f"structure of unknown type {kind}"
        part = reader.part(length, 4, what)
        part.unpack("HH", what)
        structures.append(known.decode(part) if known else Unknown(kind, part.rest()))
    return Dmar(tuple(structures), header, width, flags, reserved)


def findings(table: Dmar) -> list[Oddity]:
    """Return what is odd about the regions of a table, in its order."""
    # Linux rejects the table if the width is less than a page.
    bits = min(table.width + 1, ADDRESS_BITS) if table.width >= 11 else ADDRESS_BITS
    claims, found = [], check_revision(table.header.revision, REVISIONS)
    if table.width < 11:
        found.append(Oddity(36, f"host addresses of {table.width + 1} bits: Linux rejects DMAR"))
    for offset, one in table.places():
        if not isinstance(one, Rmrr):
            continue
        claims.append(
            Reserved(offset, one.base, one.size, (one.segment, one.scopes), one.LAYOUT.name)
        )
        if not any(scope.is_pci for scope in one.scopes):
            found.append(Oddity(offset, f"{claims[-1].name} is for no PCI device"))
        found += [
            Oddity(offset, f"{claims[-1].name}: {scope.place(one.segment)} cannot be a device")
            for scope in one.scopes
            if scope.odd or not scope.path or any(d > 31 or f > 7 for d, f in scope.path)
        ]
    return sorted(found + check(claims, bits=bits), key=lambda finding: finding.offset)


def _structure(kind: int, body: bytes) -> bytes:
    return pack("structure", "HH", kind, 4 + len(body)) + body


def _scopes(reader: Reader) -> tuple[Scope, ...]:
    scopes = []
    while reader.left:
        _kind, length = reader.peek("BB", "a device scope")
        part = reader.part(length, 6, "device scope")
        kind, _length, flags, reserved, number, bus = part.unpack("6B", "device scope")
        way = part.rest()
        even = len(way) & ~1
        path = tuple(zip(way[:even:2], way[1:even:2], strict=True))
        scopes.append(Scope(kind, bus, path, number, flags, reserved, way[even:]))
    return tuple(scopes)


_KINDS: Mapping[int, type[_Laid]] = {
    kind.KIND: kind for kind in (Drhd, Rmrr, Atsr, Rhsa, Andd, Satc, Sidp)
}
