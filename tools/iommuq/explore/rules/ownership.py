# SPDX-License-Identifier: GPL-2.0-only
"""Rule 7: a bound driver and an owner exclude each other in an isolation boundary."""

from __future__ import annotations

from collections.abc import Iterator

from iommuq.explore import wire
from iommuq.explore.rules.model import Breach, Moment, Rule


def exclusive(moment: Moment) -> Iterator[Breach]:
    """Find drivers beside an owner, whether or not the core has the device in the group."""
    for number, device in moment.present:
        group = moment.after.groups[device.group]
        if device.flags & wire.BOUND and (group.owner or group.claimed):
            where = "" if device.flags & wire.GROUPED else ", which the core has in no group,"
            yield Breach(
                "ownership.exclusive",
                f"device {number}{where} has a driver, and group {device.group} has an owner",
                f"!(state.dev[{number}].flags & SIM_S_BOUND)",
                number,
            )


def counted(moment: Moment) -> Iterator[Breach]:
    """Find groups whose count of users is not that of their users."""
    for number, group in enumerate(moment.after.groups):
        if not group.exists:
            continue
        users = 1 if group.claimed else 0
        for _, device in moment.present:
            if device.group == number and device.flags & wire.GROUPED:
                users += bool(device.flags & wire.BOUND) + bool(device.config & wire.CLAIMED)
        if group.owner_cnt != users:
            yield Breach(
                "ownership.counted",
                f"owner_cnt of group {number} is {group.owner_cnt}, with {users} users",
                f"state.group[{number}].owner_cnt == {users}",
            )


_SOURCE = "iommu.c, iommu_device_use_default_domain(), iommu_group_claim_dma_owner()"

RULES = (
    Rule(
        "ownership.exclusive",
        "No driver is bound to a device whose isolation boundary has an owner.",
        _SOURCE,
        exclusive,
        lasting=True,
    ),
    Rule(
        "ownership.counted", "The core counts the users of a group.", _SOURCE, counted, lasting=True
    ),
)
