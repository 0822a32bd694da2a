# SPDX-License-Identifier: GPL-2.0-only
"""Rule 5: an operation that is refused changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from iommuq.explore import wire
from iommuq.explore.rules.model import JOINS, Breach, Moment, Rule


def changed(moment: Moment) -> Iterator[Breach]:
    """Find what a refused operation has changed."""
    if not moment.refused:
        return
    before, after = moment.before, moment.after
    for number, (old, new) in enumerate(zip(before.groups, after.groups, strict=True)):
        if new.recovery_cnt:
            continue
        # A blocking domain is allocated once, and kept.
        same = ("domain", "default_domain", "default_type", "owner", "owner_cnt", "nr_devs")
        for name in same:
            if getattr(old, name) != getattr(new, name):
                yield Breach(
                    "refusal.changed",
                    f"{name} of group {number} was changed by what was refused",
                    f"state.group[{number}].{name} == {getattr(old, name)}",
                )
    for number, (device, now) in enumerate(zip(before.devices, after.devices, strict=True)):
        own = moment.operation.kind in JOINS and moment.operation.dev == number
        if not own and device.hw != now.hw and now.flags & wire.PRESENT:
            yield Breach(
                "refusal.changed",
                f"device {number} is in another domain after what was refused",
                f"state.dev[{number}].hw == {device.hw}",
            )


def touched(moment: Moment) -> Iterator[Breach]:
    """Find devices with direct regions that a refused operation attached."""
    if not moment.refused or moment.after.faulted:
        return
    for number, device in moment.present:
        if device.regions and device.attaches:
            yield Breach(
                "refusal.touched",
                f"device {number} has a direct region and was attached by what was refused",
                f"state.dev[{number}].attaches == 0",
                number,
            )


def joined(moment: Moment) -> Iterator[Breach]:
    """Find what a device has changed for others that was not taken into its group."""
    if moment.operation.kind not in JOINS or moment.after.ret:
        return
    joined = moment.after.devices[moment.operation.dev]
    if joined.flags & wire.GROUPED:
        return
    for number, device in moment.present:
        before = moment.before.devices[number]
        if number != moment.operation.dev and device.hw != before.hw:
            yield Breach(
                "refusal.joined",
                f"device {number} is in another domain, as device {moment.operation.dev} was "
                "refused",
                f"state.dev[{number}].hw == {before.hw}",
                number,
            )


_SOURCE = "iommu.c, __iommu_group_set_domain_internal(): put back after an error"

RULES = (
    Rule("refusal.changed", "What is refused changes nothing.", _SOURCE, changed),
    Rule(
        "refusal.touched",
        "What is refused does not attach a device with direct regions.",
        "20230607035145.343698-1-baolu.lu@linux.intel.com: a driver may block first",
        touched,
    ),
    Rule("refusal.joined", "A device that is refused changes nothing for others.", _SOURCE, joined),
)
