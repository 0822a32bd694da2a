# SPDX-License-Identifier: GPL-2.0-only
"""Explain a table, with the terms of ``/sys/kernel/iommu_groups/*/reserved_regions``.

Sources: drivers/iommu/intel/iommu.c, intel_iommu_get_resv_regions(); intel/dmar.c,
dmar_insert_dev_scope(); amd/init.c, init_unity_map_range(); amd/iommu.c,
amd_iommu_get_resv_regions(); drivers/acpi/arm64/iort.c, iort_node_get_rmr_info() and
iort_get_rmrs()."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from iommuq.firmware.tables import anytable, dmar, iort, ivhd, ivrs
from iommuq.firmware.tables import classes as pci
from iommuq.firmware.tables.acpi import text
from iommuq.firmware.tables.dmar import Dmar, Rmrr, Scope
from iommuq.firmware.tables.iort import NAMED_COMPONENT, RMR, RMR_REVISION, ROOT_COMPLEX, Iort, Node
from iommuq.firmware.tables.ivhd import AcpiDevice, Alias, Extended, Other, Select, Special
from iommuq.firmware.tables.ivrs import EXCLUSION, UNITY, Ivhd, Ivmd, Ivrs
from iommuq.firmware.tables.sanity import span
from iommuq.system.progress import one_line

#: Devices that are listed for a region at most.
_LISTED = 64
_EITHER = "direct-relaxable if it is a USB controller or a display, else direct, refused"
_SPECIAL = {ivhd.IOAPIC: "I/O APIC", ivhd.HPET: "HPET"}
#: Pairs of mappings that are compared at most.
_WORK = 1_000_000
_LEGEND = (
    "direct            mapped 1:1 at all times; since 6.6 VFIO and iommufd are refused the",
    "                  device, and with it its IOMMU group; before, only by VT-d's driver",
    "direct-relaxable  mapped 1:1 for the kernel's own drivers; nothing is refused",
)


def explain(path: Path, classes: Mapping[str, int] | None = None) -> list[str]:
    """Explain a table.

    :param path: a file with the table, as in /sys/firmware/acpi/tables.
    :param classes: as from `classes.read`; None: unknown.
    :return: lines of text.
    :raises UserError: the file cannot be read.
    :raises TableError: the table is malformed; file and byte are named.
    """
    return describe(anytable.load_table(path), classes)


def describe(table: anytable.Table, classes: Mapping[str, int] | None = None) -> list[str]:
    """Explain a table that was read already; see `explain`."""
    return [_safe(line) for line in _lines(table, classes)]


def _lines(table: anytable.Table, classes: Mapping[str, int] | None) -> Iterator[str]:
    if isinstance(table, Dmar):
        told = list(explain_dmar(table, classes))
    elif isinstance(table, Ivrs):
        told = list(explain_ivrs(table, classes))
    else:
        told = list(explain_iort(table))
    yield from told
    found = anytable.findings(table)
    if found:
        yield ""
        yield "Problems:"
        yield from (f"  {finding}" for finding in found)
    if any("direct" in line for line in told):
        yield ""
        yield from _LEGEND


def _safe(line: str) -> str:
    """Return a line without control characters, with its indentation."""
    indent = len(line) - len(line.lstrip(" "))
    return (" " * indent + one_line(line)).rstrip()


def explain_dmar(table: Dmar, classes: Mapping[str, int] | None) -> Iterator[str]:
    """Yield lines about the units, regions and other structures of a table.

    :param classes: as from `classes.read`; None: unknown.
    """
    yield f"DMAR, Intel VT-d: {table.header.describe()}"
    features = [f"addresses of {table.width + 1} bits"]
    features += ["interrupt remapping"] if table.flags & 1 else ["no interrupt remapping"]
    features += ["x2APIC opt-out"] if table.flags & 2 else []
    features += ["DMA protection at boot"] if table.flags & 4 else []
    yield f"  {', '.join(features)}"
    names = {one.number: text(one.name) for one in table.structures if isinstance(one, dmar.Andd)}
    yield ""
    yield "Hardware units:"
    units = [one for one in table.structures if isinstance(one, dmar.Drhd)]
    for unit in units:
        yield f"  DRHD, registers at 0x{unit.base:x}, segment {unit.segment:04x}: " + (
            "all devices that no other unit has" if unit.flags & 1 else "the devices listed"
        )
        yield from (f"    {_scope_name(scope, unit.segment, names)}" for scope in unit.scopes)
    if not units:
        yield "  none: Linux cannot use this table"
    yield ""
    yield "Regions:"
    regions = [one for one in table.structures if isinstance(one, Rmrr)]
    for region in regions:
        yield f"  RMRR {span(region.base, region.size)}, segment {region.segment:04x}"
        yield from _rmrr_devices(region, names, classes)
    if not regions:
        yield "  none: no device is refused because of this table"
    others = [line for one in table.structures for line in _other(one, names)]
    if others:
        yield ""
        yield "Other structures:"
        yield from others


def _rmrr_devices(
    region: Rmrr, names: Mapping[int, str], classes: Mapping[str, int] | None
) -> Iterator[str]:
    for scope in region.scopes:
        name = _scope_name(scope, region.segment, names)
        if not scope.is_pci:
            yield f"    {name}: Linux ignores it here"
        elif scope.kind == dmar.BRIDGE:
            yield f"    {name} and every device below it; each: {_EITHER}"
        else:
            yield f"    {name}{_rmrr_verdict(scope.place(region.segment), classes)}"
    if not region.scopes:
        yield "    for no device"


def _rmrr_verdict(place: str, classes: Mapping[str, int] | None) -> str:
    if classes is None:
        return f": {_EITHER}"
    code = classes.get(place)
    if code is None:
        return f", not among the given devices: {_EITHER}"
    if pci.is_relaxable(code):
        return f", {pci.name(code)}: direct-relaxable, not refused"
    return f", {pci.name(code)}: direct, refused to VFIO and iommufd"


def _scope_name(scope: Scope, segment: int, names: Mapping[int, str]) -> str:
    """Return the name of a device, with its whole path if the short form omits some of it."""
    short = scope.short()
    if scope.kind == dmar.NAMESPACE:
        return f"ACPI device {names.get(scope.number, 'without a name')} as {short}"
    if not scope.is_pci:
        return f"{scope.kind_name} {scope.number} as {short}"
    prefix = "bridge " if scope.kind == dmar.BRIDGE else ""
    if len(scope.path) == 1 and segment == 0:
        return f"{prefix}{short}"
    return f"{prefix}{short} ({scope.place(segment)})"


def _other(one: object, names: Mapping[int, str]) -> Iterator[str]:
    scopes: Sequence[Scope] = ()
    segment = 0
    if isinstance(one, dmar.Atsr):
        what = "all root ports" if one.flags & 1 else "the root ports listed"
        yield f"  ATSR, ATS may be used below {what}, segment {one.segment:04x}"
        scopes, segment = one.scopes, one.segment
    elif isinstance(one, dmar.Rhsa):
        yield f"  RHSA, unit at 0x{one.base:x} is in proximity domain {one.domain}"
    elif isinstance(one, dmar.Andd):
        yield f"  ANDD, ACPI device {one.number} is {text(one.name)}"
    elif isinstance(one, dmar.Satc):
        yield f"  SATC, integrated devices with a translation cache, segment {one.segment:04x}"
        scopes, segment = one.scopes, one.segment
    elif isinstance(one, dmar.Sidp):
        yield f"  SIDP, properties of integrated devices, segment {one.segment:04x}"
        scopes, segment = one.scopes, one.segment
    elif isinstance(one, dmar.Unknown):
        yield f"  unknown type {one.kind}, {len(one.body) + 4} bytes; Linux ignores it"
    yield from (f"    {_scope_name(scope, segment, names)}" for scope in scopes)


def bdf(devid: int) -> str:
    """Return a requester ID as bus, device and function, such as ``00:05.0``."""
    return f"{devid >> 8:02x}:{devid >> 3 & 0x1F:02x}.{devid & 7}"


def explain_ivrs(table: Ivrs, classes: Mapping[str, int] | None) -> Iterator[str]:
    """Yield lines about the units and regions of a table.

    :param classes: as from `classes.read`; None: unknown.
    """
    yield f"IVRS, AMD IOMMU: {table.header.describe()}"
    physical, virtual = table.info >> 8 & 0x7F, table.info >> 15 & 0x7F
    yield f"  physical addresses of {physical} bits, virtual ones of {virtual}"
    yield ""
    yield "Hardware units:"
    chosen = table.hardware_type()
    units = [block for block in table.blocks if isinstance(block, Ivhd)]
    for unit in units:
        ignored = unit.kind != chosen and chosen in ivrs.HARDWARE
        use = f"; ignored: Linux uses {chosen:x}h" if ignored else ""
        yield (
            f"  IVHD {unit.kind:x}h, IOMMU {unit.segment:04x}:{bdf(unit.devid)}, "
            f"registers at 0x{unit.base:x}{use}"
        )
        yield from (f"    {line}" for line in _ivhd_entries(unit))
    if not units:
        yield "  none: Linux cannot use this table"
    yield ""
    yield "Regions:"
    regions = [block for block in table.blocks if isinstance(block, Ivmd)]
    for region in regions:
        yield f"  IVMD {region.kind:x}h {span(region.start, region.size)}, {_ivmd_use(region)}"
        yield f"    {_ivmd_devices(region)}: {_ivmd_verdict(region)}"
        if classes is not None:
            yield from (f"      {line}" for line in _ivmd_present(region, classes))
    if not regions:
        yield "  none: no device is refused because of this table"
    others = [block for block in table.blocks if isinstance(block, ivrs.Unknown)]
    if others:
        yield ""
        yield "Other blocks:"
        for block in others:
            yield f"  unknown type 0x{block.kind:02x}, {len(block.body) + 4} bytes"


def _ivmd_use(region: Ivmd) -> str:
    if region.flags & EXCLUSION:
        return "exclusion range (not translated)"
    rights = ((ivrs.READ, "read"), (ivrs.WRITE, "write"))
    may = [word for flag, word in rights if region.flags & flag]
    kind = "unity map" if region.flags & UNITY else "neither unity map nor exclusion range"
    return f"{kind}, {' and '.join(may) or 'no access'}"


def _ivmd_verdict(region: Ivmd) -> str:
    """Return how Linux handles a region; the class of the device does not matter."""
    if region.flags & EXCLUSION:
        return "direct, read and write (Linux makes it a unity map), refused to VFIO and iommufd"
    if region.flags & UNITY:
        return "direct, refused to VFIO and iommufd"
    return "Linux ignores it"


def _ivmd_devices(region: Ivmd) -> str:
    if region.kind == ivrs.ALL:
        return f"every device of segment {region.segment:04x}"
    if region.kind == ivrs.RANGE:
        first, last = region.devices
        return f"every device from {region.segment:04x}:{bdf(first)} to {bdf(last)}"
    return f"{region.segment:04x}:{bdf(region.devid)}"


def _ivmd_present(region: Ivmd, classes: Mapping[str, int]) -> Iterator[str]:
    """Yield the devices of a region that the machine has."""
    first, last = region.devices
    found = []
    for place, code in sorted(classes.items()):
        segment, _, rest = place.partition(":")
        # IVRS names devices by ID, not by the path through bridges.
        if "/" in rest or int(segment, 16) != region.segment:
            continue
        bus, _, slot = rest.partition(":")
        device, _, function = slot.partition(".")
        if first <= int(bus, 16) << 8 | int(device, 16) << 3 | int(function) <= last:
            found.append(f"{place}, {pci.name(code)}")
    yield from found[:_LISTED]
    if len(found) > _LISTED:
        yield f"and {len(found) - _LISTED} more"
    if not found:
        yield "no such device in this machine"


def _ivhd_entries(unit: Ivhd) -> Iterator[str]:
    start = ""
    for entry in unit.entries:
        if isinstance(entry, Select) and entry.kind == ivhd.END:
            yield f"{start or 'a range without a start'} to {bdf(entry.devid)}"
            start = ""
            continue
        if isinstance(entry, Other):
            # Type 0 and 40h are padding.
            if entry.kind & 0x3F:
                yield f"device entry of unknown type 0x{entry.kind:02x}"
            continue
        if start:
            yield f"{start}, a range without an end"
        line = _ivhd_entry(entry)
        start = ""
        if ivhd.starts_range(entry):
            start = line
        else:
            yield line
    if start:
        yield f"{start}, a range without an end"


def _ivhd_entry(entry: Select | Alias | Extended | Special | AcpiDevice) -> str:
    if isinstance(entry, Select):
        return "every device" if entry.kind == ivhd.ALL else bdf(entry.devid)
    if isinstance(entry, Alias):
        return f"(seen as {bdf(entry.source)}) {bdf(entry.devid)}"
    if isinstance(entry, Extended):
        return f"{'(no ATS) ' if entry.extended >> 31 else ''}{bdf(entry.devid)}"
    if isinstance(entry, Special):
        what = _SPECIAL.get(entry.variety, f"special device of kind {entry.variety},")
        return f"{what} {entry.handle} as {bdf(entry.source)}"
    return f"ACPI device {entry.name} as {bdf(entry.devid)}"


def explain_iort(table: Iort) -> Iterator[str]:
    """Yield lines about the nodes and regions of a table."""
    nodes = table.places()
    yield f"IORT, Arm SMMU: {table.header.describe()}"
    yield ""
    yield "Nodes:"
    for offset, node in nodes.items():
        if node.kind == RMR:
            continue
        yield f"  byte 0x{offset:x}: {_node_name(node)}"
        yield from (f"    {line}" for line in _mappings(node, nodes))
    if not nodes:
        yield "  none"
    yield ""
    yield "Regions:"
    rmrs = [(offset, node) for offset, node in nodes.items() if node.kind == RMR]
    some = sum(len(node.mappings) for _, node in rmrs)
    known = some * sum(len(node.mappings) for node in table.nodes) <= _WORK
    for offset, node in rmrs:
        yield f"  RMR node at byte 0x{offset:x}: {_rmr_verdict(node, table.header.revision)}"
        yield from (f"    {span(one.base, one.size)}" for one in node.ranges)
        yield from (f"    IDs of {line}" for line in _mappings(node, nodes))
        yield from (f"    for {line}" for line in _rmr_devices(table, node, known))
    if not rmrs:
        yield "  none: no device is refused because of this table"
    if any("PCI" in node.kind_name for node in table.nodes) and rmrs:
        yield (
            "  Linux uses them for PCI devices only if firmware also preserves the bus numbers, "
            "with _DSM function 5"
        )


def _rmr_verdict(node: Node, revision: int) -> str:
    if revision < RMR_REVISION:
        return f"ignored by Linux: the table's revision is less than {RMR_REVISION}"
    if node.rmr_flags & iort.REMAP_PERMITTED:
        return "direct-relaxable, not refused (firmware permits to remap)"
    return "direct, refused to VFIO and iommufd"


def _node_name(node: Node) -> str:
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
        where = (
            f"{_node_name(target)} at byte 0x{one.target:x}" if target else f"byte 0x{one.target:x}"
        )
        out = _ids(one.output, one.output + (0 if one.is_single else one.count))
        if node.kind == RMR:
            yield f"{where}: {_ids(one.output, one.output + one.count)}"
        elif one.is_single:
            yield f"all IDs to {out} of {where}"
        else:
            yield f"{_ids(one.source, one.source + one.count)} to {out} of {where}"


def _ids(first: int, last: int) -> str:
    return f"0x{first:x}" if first == last else f"0x{first:x}-0x{last:x}"


def _rmr_devices(table: Iort, rmr: Node, known: bool) -> Iterator[str]:
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
            yield _node_name(node)
    more = sum(1 for _ in found)
    if more:
        yield f"{more} more"
    if not count:
        yield "no device of the table"
