# SPDX-License-Identifier: GPL-2.0-only
"""Rule 1: a device reaches its IOMMU_RESV_DIRECT regions at all times."""

from __future__ import annotations

from collections.abc import Iterator

from iommuq.explore import wire
from iommuq.explore.rules.model import Breach, Moment, Rule
from iommuq.explore.wire import Device

_GROUPED = "!(state.dev[{0}].flags & SIM_S_GROUPED)"
_EXPECT = "(state.dev[{0}].regions & ~state.dev[{0}].reach) == 0"


def _misses(device: Device) -> bool:
    return bool(device.regions & ~device.reach)


def _missing(moment: Moment) -> Iterator[tuple[int, Device]]:
    """Yield the devices that should reach a region of theirs, and do not."""
    for number, device in moment.present:
        if not _misses(device):
            continue
        flags = device.flags
        # Blocked on purpose: the device does no DMA while it is reset.
        if flags & wire.RESETTING:
            continue
        # Nothing is programmed for it, so that the translation of the kernel before stays.
        if flags & wire.DEFERRED:
            continue
        # No driver could be found for it for want of memory: the core does not know it.
        if number in moment.history.failed:
            continue
        yield number, device


def lost(moment: Moment) -> Iterator[Breach]:
    """Find devices of a group that do not reach a region of theirs."""
    for number, device in _missing(moment):
        if device.flags & wire.GROUPED and not device.astray:
            yield Breach(
                "regions.lost",
                f"device {number} does not reach its direct region",
                f"{_GROUPED} || {_EXPECT}".format(number),
                number,
            )


def astray(moment: Moment) -> Iterator[Breach]:
    """Find devices whose region is translated to something else."""
    for number, device in _missing(moment):
        if device.astray:
            yield Breach(
                "regions.astray",
                f"what firmware writes to the direct region of device {number} lands elsewhere",
                f"state.dev[{number}].astray == 0",
                number,
            )


def refused(moment: Moment) -> Iterator[Breach]:
    """Find devices that the core has in no group, and that do not reach a region of theirs."""
    for number, device in _missing(moment):
        if not device.flags & wire.GROUPED and not device.astray:
            yield Breach(
                "regions.refused",
                f"device {number}, which is in no group, does not reach its direct region",
                _EXPECT.format(number),
                number,
            )


def passing(moment: Moment) -> Iterator[Breach]:
    """Find devices that did not reach a region for a moment, and then again."""
    for number, device in moment.present:
        before = moment.before.devices[number]
        if not device.lost or _misses(device) or _misses(before):
            continue
        if moment.after.faulted or not before.flags & wire.PRESENT:
            continue
        if (device.flags | before.flags) & (wire.RESETTING | wire.DEFERRED):
            continue
        yield Breach(
            "regions.passing",
            f"device {number} did not reach its direct region during the operation",
            f"!state.dev[{number}].lost",
            number,
        )


def released(moment: Moment) -> Iterator[Breach]:
    """Find devices that were removed, and have lost a region by that."""
    if moment.operation.kind != "remove":
        return
    number = moment.operation.dev
    device, before = moment.after.devices[number], moment.before.devices[number]
    if not _misses(device) or _misses(before) or not before.flags & wire.GROUPED:
        return
    # A driver without a release_domain decides by itself, one without identity cannot.
    if moment.after.groups[device.group].setup & 7 != 7:
        return
    # Identity would open all memory to them, or to others with their requester ID.
    group = [
        each
        for each in moment.before.devices
        if each.group == device.group and each.flags & wire.PRESENT
    ]
    if device.config & wire.BEHIND or any(each.config & wire.UNTRUSTED for each in group):
        return
    yield Breach(
        "regions.released",
        f"device {number} was removed and does not reach its direct region",
        _EXPECT.format(number),
        number,
    )


_SOURCE = "20230607035145.343698-1-baolu.lu@linux.intel.com; ACPI IVRS, VT-d 8.4, IORT E.d"

RULES = (
    Rule(
        "regions.lost",
        "A device in a group reaches its direct regions.",
        _SOURCE,
        lost,
        lasting=True,
    ),
    Rule(
        "regions.astray",
        "A direct region is translated to itself or not at all.",
        "iommu.c, iommu_create_device_direct_mappings()",
        astray,
        lasting=True,
    ),
    Rule(
        "regions.refused",
        "A device that was not taken into its group reaches its direct regions.",
        _SOURCE,
        refused,
        lasting=True,
    ),
    Rule(
        "regions.passing",
        "A device does not lose its direct regions for a moment.",
        "iommu.c, iommu_setup_default_domain(): mapped before the domain is attached",
        passing,
    ),
    Rule(
        "regions.released",
        "A device that is removed keeps its direct regions.",
        "iommu.c, iommu_deinit_device(), since e94160488e65",
        released,
    ),
)
