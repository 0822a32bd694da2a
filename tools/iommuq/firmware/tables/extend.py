# SPDX-License-Identifier: GPL-2.0-only
"""Give a machine's table more regions, whichever IOMMU it has.

The table is one that the machine itself has, so that all else in it stays true.  What comes
out is meant for the initramfs: its OEM revision is raised, or Linux would ignore it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from iommuq.firmware.tables import dmar, ivrs
from iommuq.firmware.tables.acpi import text
from iommuq.system.errors import UserError

_FUNCTION = re.compile(r"([0-9a-f]{1,2})\.([0-7])")
_PLACE = re.compile(r"(?:([0-9a-f]{4}):)?([0-9a-f]{2}):([0-9a-f./]+)")


@dataclass(frozen=True)
class Device:
    """A PCI function, by the way to it and by its requester ID.

    Intel's table wants the way, which does not depend on how buses are numbered; AMD's
    wants the ID, which does.

    :ivar path: device and function, from the root bus downwards.
    :ivar devid: bus << 8 | device << 3 | function, as the kernel will number it; it may be
        left out for a device on the root bus.
    :ivar bus: the number of the root bus.
    """

    path: tuple[tuple[int, int], ...]
    devid: int | None = None
    segment: int = 0
    bus: int = 0

    @classmethod
    def parse(cls, place: str, devid: int | None = None) -> Device:
        """Return the device at a place such as ``00:05.0`` or ``0000:00:07.0/02.0``.

        :raises UserError: it is none.
        """
        match = _PLACE.fullmatch(place.lower())
        steps = [_FUNCTION.fullmatch(step) for step in match[3].split("/")] if match else []
        path = tuple((int(step[1], 16), int(step[2])) for step in steps if step)
        if not match or len(path) != len(steps) or any(device > 31 for device, _ in path):
            raise UserError(
                f"no PCI device: {place!r}", hint="write 00:05.0, or 00:07.0/02.0 behind a bridge"
            )
        return cls(path, devid, int(match[1] or "0", 16), int(match[2], 16))

    @property
    def scope(self) -> dmar.Scope:
        """The device as Intel's table names it."""
        return dmar.Scope(dmar.ENDPOINT, self.bus, self.path)

    @property
    def requester(self) -> int:
        """The device as AMD's table names it.

        :raises UserError: it is behind a bridge, and its ID was not given.
        """
        if self.devid is not None:
            return self.devid
        if len(self.path) != 1:
            raise UserError(
                f"the requester ID of {self.scope.place(self.segment)} is not known",
                hint="give the one that the kernel numbers it by",
            )
        [(device, function)] = self.path
        return self.bus << 8 | device << 3 | function


class Spread(Enum):
    """How one region is written for several devices; Intel's table knows only `EACH`."""

    EACH = "each"
    RANGE = "range"
    ALL = "all"


@dataclass(frozen=True)
class Region:
    """A region to be claimed; it need not make sense, since firmware's often do not.

    :ivar base: the first address.
    :ivar size: in bytes.
    :ivar flags: of an IVMD; an RMRR has none.
    """

    base: int
    size: int
    devices: tuple[Device, ...] = ()
    spread: Spread = Spread.EACH
    flags: int = ivrs.UNITY | ivrs.READ | ivrs.WRITE


def extend(table: bytes, regions: Sequence[Region]) -> bytes:
    """Return a DMAR or IVRS table with more regions.

    :param table: as the firmware made it; its signature says which it is.
    :raises TableError: the table is malformed.
    :raises UserError: it is of another kind, or cannot say what a region says.
    """
    signature = table[:4]
    if signature == dmar.SIGNATURE:
        return _extend_dmar(dmar.parse(table), regions).raised().encode()
    if signature == ivrs.SIGNATURE:
        return _extend_ivrs(ivrs.parse(table), regions).raised().encode()
    raise UserError(
        f"table {text(signature) or 'without a name'} cannot be given regions",
        hint="DMAR and IVRS can",
    )


def _extend_dmar(table: dmar.Dmar, regions: Sequence[Region]) -> dmar.Dmar:
    for region in regions:
        if region.spread is not Spread.EACH or region.flags & ivrs.EXCLUSION:
            what = "an RMRR is for single devices, and is no exclusion range"
            raise UserError(what, hint="use a machine with amd-iommu")
        segments = {device.segment for device in region.devices}
        if len(segments) > 1:
            raise UserError("an RMRR is for devices of one segment", hint="use one for each")
        scopes = [device.scope for device in region.devices]
        limit = region.base + region.size - 1
        table = table.with_rmrr(region.base, limit, scopes, *segments)
    return table


def _extend_ivrs(table: ivrs.Ivrs, regions: Sequence[Region]) -> ivrs.Ivrs:
    for region in regions:
        base, size, flags = region.base, region.size, region.flags
        segments = {device.segment for device in region.devices} or {0}
        if region.spread is Spread.EACH:
            for device in region.devices:
                table = table.with_ivmd(
                    base, size, devid=device.requester, flags=flags, segment=device.segment
                )
            continue
        for segment in sorted(segments):
            if region.spread is Spread.ALL:
                table = table.with_ivmd(base, size, kind=ivrs.ALL, flags=flags, segment=segment)
                continue
            ids = [one.requester for one in region.devices if one.segment == segment]
            if not ids:
                raise UserError("a range of devices needs its first and its last device")
            table = table.with_ivmd(
                base,
                size,
                kind=ivrs.RANGE,
                devid=min(ids),
                last=max(ids),
                flags=flags,
                segment=segment,
            )
    return table
