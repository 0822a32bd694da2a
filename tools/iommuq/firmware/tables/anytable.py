# SPDX-License-Identifier: GPL-2.0-only
"""Read and check a table of any known kind; add regions to DMAR or IVRS, for an initramfs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypeAlias

from iommuq.firmware.tables import acpi, dmar, iort, ivrs
from iommuq.firmware.tables.acpi import text
from iommuq.firmware.tables.sanity import Oddity
from iommuq.system.errors import UserError

Table: TypeAlias = dmar.Dmar | ivrs.Ivrs | iort.Iort
_PARSERS: Mapping[bytes, Callable[..., Table]] = {
    kind.SIGNATURE: kind.parse for kind in (dmar, ivrs, iort)
}
_FUNCTION = re.compile(r"([0-9a-f]{1,2})\.([0-7])")
_PLACE = re.compile(r"(?:([0-9a-f]{4}):)?([0-9a-f]{2}):([0-9a-f./]+)")


def parse(data: bytes, *, name: str = "table") -> Table:
    """Read a table.

    :param name: the file or table, for messages.
    :raises TableError: the table is malformed or of an unknown kind; the byte is named.
    """
    if parse_kind := _PARSERS.get(data[:4]):
        return parse_kind(data, name=name)
    raise acpi.unwanted(data, tuple(_PARSERS), name)


def load_table(path: Path) -> Table:
    """Read a table from a file.

    :raises UserError: the file cannot be read.
    :raises TableError: as for `parse`.
    """
    return parse(acpi.read(path), name=str(path))


def findings(table: Table) -> list[Oddity]:
    """Return what is odd about the regions of a table, in its order."""
    if isinstance(table, dmar.Dmar):
        return dmar.findings(table)
    if isinstance(table, ivrs.Ivrs):
        return ivrs.findings(table)
    return iort.findings(table)


@dataclass(frozen=True)
class Device:
    """A PCI function: DMAR names it by its path, IVRS by its requester ID.

    :ivar path: device and function of each step, from the root bus.
    :ivar devid: bus << 8 | device << 3 | function; optional for a device on the root bus.
    :ivar bus: number of the root bus.
    """

    path: tuple[tuple[int, int], ...]
    devid: int | None = None
    segment: int = 0
    bus: int = 0

    @classmethod
    def parse(cls, place: str, devid: int | None = None) -> Device:
        """Return the device at a place such as ``00:05.0`` or ``0000:00:07.0/02.0``.

        :raises UserError: *place* is malformed.
        """
        match = _PLACE.fullmatch(place.lower())
        steps = [_FUNCTION.fullmatch(step) for step in match[3].split("/")] if match else []
        path = tuple((int(step[1], 16), int(step[2])) for step in steps if step)
        if not match or len(path) != len(steps) or any(device > 31 for device, _ in path):
            raise UserError(
                f"not a PCI device: {place!r}",
                hint="write 00:05.0, or 00:07.0/02.0 behind a bridge",
            )
        return cls(path, devid, int(match[1] or "0", 16), int(match[2], 16))

    @property
    def scope(self) -> dmar.Scope:
        """The device in DMAR."""
        return dmar.Scope(dmar.ENDPOINT, self.bus, self.path)

    @property
    def requester(self) -> int:
        """The device in IVRS.

        :raises UserError: it is behind a bridge, and its ID was not given.
        """
        if self.devid is not None:
            return self.devid
        if len(self.path) != 1:
            what = f"requester ID of {self.scope.place(self.segment)} is unknown"
            raise UserError(what, hint="give the ID that the kernel uses")
        [(device, function)] = self.path
        return self.bus << 8 | device << 3 | function


class Spread(Enum):
    """How the entries of one region name several devices; DMAR knows only `EACH`."""

    EACH = "each"
    RANGE = "range"
    ALL = "all"


@dataclass(frozen=True)
class Reservation:
    """A region to be claimed; not checked, so that bad firmware can be tested.

    :ivar base: first address.
    :ivar size: in bytes.
    :ivar flags: of an IVMD; an RMRR has none.
    """

    base: int
    size: int
    devices: tuple[Device, ...] = ()
    spread: Spread = Spread.EACH
    flags: int = ivrs.UNITY | ivrs.READ | ivrs.WRITE


def extend(table: bytes, regions: Sequence[Reservation]) -> bytes:
    """Return a DMAR or IVRS table with more regions, and a higher OEM revision.

    :param table: the table that the firmware makes.
    :raises TableError: the table is malformed.
    :raises UserError: it is of another kind, or cannot describe a region.
    """
    signature = table[:4]
    if signature == dmar.SIGNATURE:
        return _extend_dmar(dmar.parse(table), regions).raised().encode()
    if signature == ivrs.SIGNATURE:
        return _extend_ivrs(ivrs.parse(table), regions).raised().encode()
    name = text(signature) or "without a name"
    raise UserError(f"no regions can be added to table {name}", hint="use DMAR or IVRS")


def _extend_dmar(table: dmar.Dmar, regions: Sequence[Reservation]) -> dmar.Dmar:
    for region in regions:
        if region.spread is not Spread.EACH or region.flags & ivrs.EXCLUSION:
            what = "an RMRR has single devices only, and is no exclusion range"
            raise UserError(what, hint="use a machine with amd-iommu")
        segments = {device.segment for device in region.devices}
        if len(segments) > 1:
            raise UserError("an RMRR is for devices of one segment", hint="write one RMRR each")
        scopes = [device.scope for device in region.devices]
        limit = region.base + region.size - 1
        table = table.with_rmrr(region.base, limit, scopes, *segments)
    return table


def _extend_ivrs(table: ivrs.Ivrs, regions: Sequence[Reservation]) -> ivrs.Ivrs:
    for region in regions:
        base, size, flags = region.base, region.size, region.flags
        if region.spread is Spread.EACH:
            for device in region.devices:
                table = table.with_ivmd(
                    base, size, devid=device.requester, flags=flags, segment=device.segment
                )
            continue
        for segment in sorted({device.segment for device in region.devices} or {0}):
            common = {"flags": flags, "segment": segment}
            if region.spread is Spread.ALL:
                table = table.with_ivmd(base, size, kind=ivrs.ALL, **common)
                continue
            ids = [one.requester for one in region.devices if one.segment == segment]
            if not ids:
                raise UserError("a range of devices needs its first and its last device")
            ends = {"devid": min(ids), "last": max(ids)}
            table = table.with_ivmd(base, size, kind=ivrs.RANGE, **ends, **common)
    return table
