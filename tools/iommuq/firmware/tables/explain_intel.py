# SPDX-License-Identifier: GPL-2.0-only
"""Explain a DMAR table.  Source: drivers/iommu/intel/iommu.c, intel_iommu_get_resv_regions(),
and drivers/iommu/intel/dmar.c, dmar_insert_dev_scope()."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from iommuq.firmware.tables import classes as pci
from iommuq.firmware.tables import dmar
from iommuq.firmware.tables.acpi import text
from iommuq.firmware.tables.dmar import Dmar, Rmrr, Scope
from iommuq.firmware.tables.sanity import span

_EITHER = "direct-relaxable if it is a USB controller or a display, else direct, refused"


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
        yield from (f"    {_name(scope, unit.segment, names)}" for scope in unit.scopes)
    if not units:
        yield "  none: Linux cannot use this table"
    yield ""
    yield "Regions:"
    regions = [one for one in table.structures if isinstance(one, Rmrr)]
    for region in regions:
        yield f"  RMRR {span(region.base, region.size)}, segment {region.segment:04x}"
        yield from _devices(region, names, classes)
    if not regions:
        yield "  none: no device is refused because of this table"
    others = [line for one in table.structures for line in _other(one, names)]
    if others:
        yield ""
        yield "Other structures:"
        yield from others


def _devices(
    region: Rmrr, names: Mapping[int, str], classes: Mapping[str, int] | None
) -> Iterator[str]:
    for scope in region.scopes:
        name = _name(scope, region.segment, names)
        if not scope.is_pci:
            yield f"    {name}: Linux ignores it here"
        elif scope.kind == dmar.BRIDGE:
            yield f"    {name} and every device below it; each: {_EITHER}"
        else:
            yield f"    {name}{_verdict(scope.place(region.segment), classes)}"
    if not region.scopes:
        yield "    for no device"


def _verdict(place: str, classes: Mapping[str, int] | None) -> str:
    if classes is None:
        return f": {_EITHER}"
    code = classes.get(place)
    if code is None:
        return f", not among the given devices: {_EITHER}"
    if pci.is_relaxable(code):
        return f", {pci.name(code)}: direct-relaxable, not refused"
    return f", {pci.name(code)}: direct, refused to VFIO and iommufd"


def _name(scope: Scope, segment: int, names: Mapping[int, str]) -> str:
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
    yield from (f"    {_name(scope, segment, names)}" for scope in scopes)
