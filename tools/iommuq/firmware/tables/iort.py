# SPDX-License-Identifier: GPL-2.0-only
"""IORT, the table of Arm's SMMUs: its nodes, their ID mappings and the regions of RMR nodes.

Source: Arm DEN 0049, IO Remapping Table, chapter 3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from iommuq.firmware.tables import acpi
from iommuq.firmware.tables.acpi import HEADER_SIZE, Header, Reader, pack, text
from iommuq.firmware.tables.sanity import Oddity, Reserved, check, check_revision

SIGNATURE = b"IORT"

ITS_GROUP, NAMED_COMPONENT, ROOT_COMPLEX, SMMU, SMMU_V3, PMCG, RMR, IWB = range(8)
_NAMES = {
    ITS_GROUP: "ITS group",
    NAMED_COMPONENT: "named component",
    ROOT_COMPLEX: "PCI root complex",
    SMMU: "SMMU",
    SMMU_V3: "SMMUv3",
    PMCG: "performance counters",
    RMR: "RMR",
    IWB: "interrupt wire bridge",
}

#: Flags of an RMR node.
REMAP_PERMITTED, PRIVILEGED = 1, 2
#: Base and size of a region must be multiples of this (section 3.1.1.9).
GRANULE = 0x10000
REVISIONS = range(8)
#: Linux ignores RMR nodes of tables with a lower revision.
RMR_REVISION = 5

_NODE_SIZE, _MAPPING_SIZE, _DESCRIPTOR_SIZE = 16, 20, 20
_FIRST = HEADER_SIZE + 12
_HEADER = Header(SIGNATURE, RMR_REVISION)


@dataclass(frozen=True)
class IdMapping:
    """A mapping from input IDs to output IDs of another node (section 3.1.2).

    :ivar count: number of IDs, less one.
    :ivar target: the byte of the table where the other node begins.
    :ivar flags: bit 0: all inputs map to a single output ID.
    """

    source: int
    count: int
    output: int
    target: int
    flags: int = 0

    @property
    def is_single(self) -> bool:
        """Whether there is a single output ID."""
        return bool(self.flags & 1)

    def encode(self) -> bytes:
        """Return its bytes."""
        fields = (self.source, self.count, self.output, self.target, self.flags)
        return pack("ID mapping", "5I", *fields)


@dataclass(frozen=True)
class MemoryRange:
    """A memory range descriptor of an RMR node: first address, bytes (section 3.1.1.9)."""

    base: int
    size: int
    reserved: int = 0

    def encode(self) -> bytes:
        """Return its bytes."""
        return pack("memory range descriptor", "QQI", self.base, self.size, self.reserved)


@dataclass(frozen=True)
class Node:
    """A node, kept as bytes, because it has offsets into itself.

    :ivar kind: `RMR`, `ROOT_COMPLEX` and so on.
    :ivar mapping_count: number of ID mappings, which start at *mapping_offset*.
    :ivar body: all after the first sixteen bytes.
    """

    kind: int
    revision: int
    identifier: int
    mapping_count: int
    mapping_offset: int
    body: bytes

    @property
    def kind_name(self) -> str:
        """Name of the kind."""
        return _NAMES.get(self.kind, f"node of unknown type {self.kind}")

    @property
    def size(self) -> int:
        """Size of the whole node in bytes."""
        return _NODE_SIZE + len(self.body)

    @cached_property
    def mappings(self) -> tuple[IdMapping, ...]:
        """The ID mappings; as in Linux none if their offset is 0."""
        at = self.mapping_offset
        count = self.mapping_count if at else 0
        reader = self._window(at, _MAPPING_SIZE * count)
        return tuple(IdMapping(*reader.unpack("5I", "ID mapping")) for _ in range(count))

    @property
    def rmr_flags(self) -> int:
        """The flags of an RMR node."""
        return self._field(0)

    @cached_property
    def ranges(self) -> tuple[MemoryRange, ...]:
        """The memory ranges of an RMR node; as in Linux none if their offset is 0."""
        at = self.ranges_offset
        count = self._field(4) if at else 0
        reader = self._window(at, _DESCRIPTOR_SIZE * count)
        return tuple(MemoryRange(*reader.unpack("QQI", "RMR")) for _ in range(count))

    @property
    def ranges_offset(self) -> int:
        """Offset of the memory ranges in an RMR node."""
        return self._field(8)

    @property
    def segment(self) -> int:
        """The PCI segment of a root complex."""
        return self._field(12)

    @property
    def base(self) -> int:
        """The address of the registers of an SMMU."""
        return int.from_bytes(self.body[:8], "little")

    @property
    def object_name(self) -> str:
        """The ACPI path of a named component."""
        return text(self.body[13:].split(b"\0", 1)[0])

    def encode(self) -> bytes:
        """Return its bytes."""
        head = pack("node", "BHBI", self.kind, self.size, self.revision, self.identifier)
        return head + pack("node", "II", self.mapping_count, self.mapping_offset) + self.body

    def _field(self, at: int) -> int:
        return int.from_bytes(self.body[at : at + 4], "little")

    def _window(self, at: int, size: int) -> Reader:
        # parse() has checked that it lies within the node.
        return Reader(bytes(_NODE_SIZE) + self.body, at, at + size, self.kind_name)


@dataclass(frozen=True)
class Iort:
    """An IORT table (section 3.1).

    :ivar before: bytes between the table's own fields and the first node.
    :ivar after: bytes after the last node.
    """

    nodes: tuple[Node, ...]
    header: Header = _HEADER
    reserved: int = 0
    before: bytes = b""
    after: bytes = b""

    def encode(self) -> bytes:
        """Return the table's bytes, with length and checksum.

        :raises UserError: a value does not fit its field.
        """
        head = pack("IORT", "III", len(self.nodes), _FIRST + len(self.before), self.reserved)
        nodes = b"".join(node.encode() for node in self.nodes)
        return self.header.encode(head + self.before + nodes + self.after)

    def places(self) -> dict[int, Node]:
        """Return the nodes by the byte of the table where they begin."""
        found = {}
        offset = _FIRST + len(self.before)
        for node in self.nodes:
            found[offset] = node
            offset += node.size
        return found

    def raised(self) -> Iort:
        """Return the table with the next OEM revision; see `Header.raised`."""
        return replace(self, header=self.header.raised())


def parse(data: bytes, *, name: str = "IORT") -> Iort:
    """Read an IORT table.

    :param name: the file or table, for messages.
    :raises TableError: it is malformed; the byte is named.
    """
    header, reader = acpi.split(data, SIGNATURE, name)
    count, first, reserved = reader.unpack("III", "IORT")
    if not _FIRST <= first <= reader.end:
        what = f"offset of the first node is 0x{first:x}, outside of the table"
        raise acpi.TableError(what, offset=HEADER_SIZE + 4, name=name)
    before = reader.part(first - reader.offset, 0, "padding").rest()
    # This ends for any count, as a node has at least sixteen bytes.
    nodes = [_node(reader, name) for _ in range(count)]
    return Iort(tuple(nodes), header, reserved, before, reader.rest())


def _node(reader: Reader, name: str) -> Node:
    kind, length = reader.peek("BH", "a node")
    what = _NAMES.get(kind, f"node of unknown type {kind}")
    start = reader.offset
    least = _NODE_SIZE + (12 if kind == RMR else 0)
    part = reader.part(length, least, what)
    kind, length, revision, identifier, mappings, at = part.unpack("BHBIII", what)
    node = Node(kind, revision, identifier, mappings, at, part.rest())
    _inside(node, at, mappings * _MAPPING_SIZE, start, f"{what}: the ID mappings", name)
    if kind == RMR:
        size = int.from_bytes(node.body[4:8], "little") * _DESCRIPTOR_SIZE
        _inside(node, node.ranges_offset, size, start, f"{what}: the memory ranges", name)
    return node


def _inside(node: Node, at: int, size: int, start: int, what: str, name: str) -> None:
    if size and at and (at < _NODE_SIZE or at + size > node.size):
        text = f"{what} take bytes 0x{at:x} to 0x{at + size:x} of a node of {node.size} bytes"
        raise acpi.TableError(text, offset=start, name=name)


def findings(table: Iort) -> list[Oddity]:
    """Return what is odd about the regions and mappings of a table, in its order."""
    nodes = table.places()
    claims, found = [], check_revision(table.header.revision, REVISIONS)
    for offset, node in nodes.items():
        found += [Oddity(offset, text) for text in _odd_mappings(node, nodes)]
        if node.kind != RMR:
            continue
        if not node.mappings:
            found.append(Oddity(offset, "RMR node without a device"))
        if not node.ranges:
            found.append(Oddity(offset, "RMR node without a region"))
        who = tuple((one.target, one.output, one.count) for one in node.mappings)
        for number, one in enumerate(node.ranges):
            place = offset + node.ranges_offset + number * _DESCRIPTOR_SIZE
            claims.append(Reserved(place, one.base, one.size, who, "RMR"))
    if claims and table.header.revision < RMR_REVISION:
        text = f"table revision {table.header.revision} is less than {RMR_REVISION}"
        found.append(Oddity(8, f"{text}: Linux ignores the RMR nodes"))
    return sorted(found + check(claims, granule=GRANULE), key=lambda finding: finding.offset)


def _odd_mappings(node: Node, nodes: Mapping[int, Node]) -> Iterator[str]:
    for number, mapping in enumerate(node.mappings):
        target = nodes.get(mapping.target)
        where = f"{node.kind_name}: ID mapping {number}"
        if target is None:
            yield f"{where} refers to byte 0x{mapping.target:x}, where no node begins"
        elif node.kind == RMR and target.kind not in (SMMU, SMMU_V3):
            yield f"{where} refers to {target.kind_name} at 0x{mapping.target:x}, not to an SMMU"
        if not mapping.is_single and max(mapping.source, mapping.output) + mapping.count >= 1 << 32:
            yield f"{where} goes beyond the highest ID"


def devices(table: Iort, rmr: Node) -> Iterator[tuple[Node, IdMapping, int, int]]:
    """Yield the devices of an RMR node.

    :return: a node with IDs that map to those of the RMR node, the mapping, and the first and
        the last input ID.
    """
    nodes = table.places()
    wanted = [one for one in rmr.mappings if one.target in nodes]
    for node in table.nodes:
        if node.kind not in (NAMED_COMPONENT, ROOT_COMPLEX):
            continue
        for mapping in node.mappings:
            for one in wanted:
                if one.target != mapping.target:
                    continue
                last = 0 if mapping.is_single else mapping.count
                low = max(one.output, mapping.output)
                high = min(one.output + one.count, mapping.output + last)
                if low <= high:
                    shift = mapping.source - mapping.output
                    yield node, mapping, low + shift, high + shift
