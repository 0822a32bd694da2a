# SPDX-License-Identifier: GPL-2.0-only
"""Explain an IVRS table.  Source: drivers/iommu/amd/init.c, init_unity_map_range(), and
drivers/iommu/amd/iommu.c, amd_iommu_get_resv_regions()."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from iommuq.firmware.tables import classes as pci
from iommuq.firmware.tables import ivhd, ivrs
from iommuq.firmware.tables.ivhd import AcpiDevice, Alias, Extended, Other, Select, Special
from iommuq.firmware.tables.ivrs import EXCLUSION, UNITY, Ivhd, Ivmd, Ivrs
from iommuq.firmware.tables.sanity import span

_SPECIAL = {ivhd.IOAPIC: "I/O APIC", ivhd.HPET: "HPET"}
#: Devices that are named one by one for a region.
_LISTED = 64


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
        yield from (f"    {line}" for line in _entries(unit))
    if not units:
        yield "  none: Linux cannot use this table"
    yield ""
    yield "Regions:"
    regions = [block for block in table.blocks if isinstance(block, Ivmd)]
    for region in regions:
        yield f"  IVMD {region.kind:x}h {span(region.start, region.size)}, {_use(region)}"
        yield f"    {_who(region)}: {_verdict(region)}"
        if classes is not None:
            yield from (f"      {line}" for line in _present(region, classes))
    if not regions:
        yield "  none: no device is refused because of this table"
    others = [block for block in table.blocks if isinstance(block, ivrs.Unknown)]
    if others:
        yield ""
        yield "Other blocks:"
        for block in others:
            yield f"  unknown type 0x{block.kind:02x}, {len(block.body) + 4} bytes"


def _use(region: Ivmd) -> str:
    if region.flags & EXCLUSION:
        return "exclusion range (not translated)"
    rights = ((ivrs.READ, "read"), (ivrs.WRITE, "write"))
    may = [word for flag, word in rights if region.flags & flag]
    kind = "unity map" if region.flags & UNITY else "neither unity map nor exclusion range"
    return f"{kind}, {' and '.join(may) or 'no access'}"


def _verdict(region: Ivmd) -> str:
    """Return how Linux handles a region; the class of the device does not matter."""
    if region.flags & EXCLUSION:
        return "direct, read and write (Linux makes it a unity map), refused to VFIO and iommufd"
    if region.flags & UNITY:
        return "direct, refused to VFIO and iommufd"
    return "Linux ignores it"


def _who(region: Ivmd) -> str:
    if region.kind == ivrs.ALL:
        return f"every device of segment {region.segment:04x}"
    if region.kind == ivrs.RANGE:
        first, last = region.devices
        return f"every device from {region.segment:04x}:{bdf(first)} to {bdf(last)}"
    return f"{region.segment:04x}:{bdf(region.devid)}"


def _present(region: Ivmd, classes: Mapping[str, int]) -> Iterator[str]:
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


def _entries(unit: Ivhd) -> Iterator[str]:
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
        line = _entry(entry)
        start = ""
        if ivhd.starts_range(entry):
            start = line
        else:
            yield line
    if start:
        yield f"{start}, a range without an end"


def _entry(entry: Select | Alias | Extended | Special | AcpiDevice) -> str:
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
