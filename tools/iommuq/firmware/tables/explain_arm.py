# SPDX-License-Identifier: GPL-2.0-only
"""Explain an IORT table.

Source: drivers/acpi/arm64/iort.c, iort_node_get_rmr_info() and iort_get_rmrs()."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from iommuq.firmware.tables import iort
from iommuq.firmware.tables.explain_amd import bdf
from iommuq.firmware.tables.iort import NAMED_COMPONENT, RMR, RMR_REVISION, ROOT_COMPLEX, Iort, Node
from iommuq.firmware.tables.sanity import span

#: Pairs of mappings that are compared at most.
_WORK = 1_000_000
#: Devices that are listed for an RMR node at most.
_LISTED = 64


def explain_iort(table: Iort) -> Iterator[str]:
    """Yield lines about the nodes and regions of a table."""
    nodes = table.places()
    yield f"IORT, Arm SMMU: {table.header.describe()}"
    yield ""
    yield "Nodes:"
    for offset, node in nodes.items():
        if node.kind == RMR:
            continue
        yield f"  byte 0x{offset:x}: {_name(node)}"
        yield from (f"    {line}" for line in _mappings(node, nodes))
    if not nodes:
        yield "  none"
    yield ""
    yield "Regions:"
    rmrs = [(offset, node) for offset, node in nodes.items() if node.kind == RMR]
    some = sum(len(node.mappings) for _, node in rmrs)
    known = some * sum(len(node.mappings) for node in table.nodes) <= _WORK
    for offset, node in rmrs:
        yield f"  RMR node at byte 0x{offset:x}: {_verdict(node, table.header.revision)}"
        yield from (f"    {span(one.base, one.size)}" for one in node.ranges)
        yield from (f"    IDs of {line}" for line in _mappings(node, nodes))
        yield from (f"    for {line}" for line in _devices(table, node, known))
    if not rmrs:
        yield "  none: no device is refused because of this table"
    if any("PCI" in node.kind_name for node in table.nodes) and rmrs:
        yield (
            "  Linux uses them for PCI devices only if firmware also preserves the bus numbers, "
            "with _DSM function 5"
        )


def _verdict(node: Node, revision: int) -> str:
    if revision < RMR_REVISION:
        return f"ignored by Linux: the table's revision is less than {RMR_REVISION}"
    if node.rmr_flags & iort.REMAP_PERMITTED:
        return "direct-relaxable, not refused (firmware permits to remap)"
    return "direct, refused to VFIO and iommufd"


def _name(node: Node) -> str:
    if node.kind == NAMED_COMPONENT:
        return f"{node.kind_name} {node.object_name}"
    if node.kind == ROOT_COMPLEX:
        return f"{node.kind_name} of segment {node.segment:04x}"
    if node.kind in (iort.SMMU, iort.SMMU_V3):
        return f"{node.kind_name} with registers at 0x{node.base:x}"
    return node.kind_name


def _mappings(node: Node, nodes: Mapping[int, Node]) -> Iterator[str]:
    for one in node.mappings:
        target = nodes.get(one.target)
        where = f"{_name(target)} at byte 0x{one.target:x}" if target else f"byte 0x{one.target:x}"
        out = _ids(one.output, one.output + (0 if one.is_single else one.count))
        if node.kind == RMR:
            yield f"{where}: {_ids(one.output, one.output + one.count)}"
        elif one.is_single:
            yield f"all IDs to {out} of {where}"
        else:
            yield f"{_ids(one.source, one.source + one.count)} to {out} of {where}"


def _ids(first: int, last: int) -> str:
    return f"0x{first:x}" if first == last else f"0x{first:x}-0x{last:x}"


def _devices(table: Iort, rmr: Node, known: bool) -> Iterator[str]:
    if not known:
        yield "unknown devices: too many mappings to search"
        return
    found = iort.devices(table, rmr)
    count = 0
    for node, mapping, low, high in islice(found, _LISTED):
        count += 1
        if node.kind == ROOT_COMPLEX and not mapping.is_single and high <= 0xFFFF:
            last = "" if low == high else f" to {bdf(high)}"
            yield f"PCI {node.segment:04x}:{bdf(low)}{last}"
        else:
            yield _name(node)
    more = sum(1 for _ in found)
    if more:
        yield f"{more} more"
    if not count:
        yield "no device of the table"
