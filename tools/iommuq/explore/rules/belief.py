# SPDX-License-Identifier: GPL-2.0-only
"""Rule 4: what the core believes is what hardware has."""

from __future__ import annotations

from collections.abc import Iterator

from iommuq.explore import wire
from iommuq.explore.rules.model import Breach, Moment, Rule


def domain(moment: Moment) -> Iterator[Breach]:
    """Find devices that are not in the domain of their group."""
    after = moment.after
    for number, device in moment.present:
        if not device.flags & wire.GROUPED or device.flags & (wire.DEFERRED | wire.RESETTING):
            continue
        group = after.groups[device.group]
        # Left alone, or where it has no more than its region.
        if number in moment.history.waiting and _waits(device, after):
            continue
        if device.hw == group.domain or {device.hw, group.domain} <= {wire.NONE, wire.BLOCKED}:
            continue
        yield Breach(
            "belief.domain",
            f"device {number} is not in the domain that the core has for group {device.group}",
            f"state.dev[{number}].hw == state.group[{device.group}].domain",
            number,
        )


def _waits(device: wire.Device, after: wire.State) -> bool:
    """Tell whether a device that waits is blocked, attached to nothing, or to its own domain."""
    if device.own in (wire.NONE, wire.BLOCKED, after.groups[device.group].blocking_domain):
        return True
    others = {wire.FREED, *after.user}
    for each in after.groups:
        others |= {each.domain, each.default_domain, each.blocking_domain}
    return device.hw >= wire.PAGING and device.hw not in others


def group(moment: Moment) -> Iterator[Breach]:
    """Find groups in a domain that their users have not chosen, or with other devices."""
    for number, each in enumerate(moment.after.groups):
        if not each.exists:
            continue
        devices = [
            device
            for _, device in moment.present
            if device.group == number and device.flags & wire.GROUPED
        ]
        if each.nr_devs != len(devices):
            yield Breach(
                "belief.group",
                f"group {number} has {each.nr_devs} devices and not {len(devices)}",
                f"state.group[{number}].nr_devs == {len(devices)}",
            )
        claimed = each.claimed or any(device.config & wire.CLAIMED for device in devices)
        if each.attached:
            wanted = {each.attached}
        elif claimed:
            wanted = {wire.BLOCKED, each.blocking_domain} - {wire.NONE}
        else:
            wanted = {each.default_domain}
        if each.domain not in wanted:
            yield Breach(
                "belief.group",
                f"group {number} is not in the domain that its users have chosen",
                " || ".join(f"state.group[{number}].domain == {one}" for one in sorted(wanted)),
            )


def old(moment: Moment) -> Iterator[Breach]:
    """Find attaches for which a driver was told of another domain than it had."""
    if moment.after.wrong_old:
        yield Breach(
            "belief.old",
            "a driver was told to leave another domain than the device is in",
            "state.wrong_old == 0",
        )


def _pasids(moment: Moment) -> Iterator[tuple[int, int, int, int]]:
    """Yield device, index of the PASID, what hardware has, and what its user has attached."""
    for number, device in moment.present:
        if device.flags & wire.RESETTING or not device.flags & wire.GROUPED:
            continue
        yield number, 0, device.pasid0, device.user_pasid0
        yield number, 1, device.pasid1, device.user_pasid1


def pasid(moment: Moment) -> Iterator[Breach]:
    """Find PASIDs that are not in the domain of their user."""
    for number, index, hw, wanted in _pasids(moment):
        if wanted and hw != wanted:
            yield Breach(
                "belief.pasid",
                f"PASID {index + 1} of device {number} is not in the domain of its user",
                f"state.dev[{number}].pasid[{index}] == state.dev[{number}].user_pasid[{index}]",
                number,
            )


def pasid_left(moment: Moment) -> Iterator[Breach]:
    """Find PASIDs that are in a domain and have no user."""
    devices = moment.after.devices
    for number, index, hw, wanted in _pasids(moment):
        if wanted or not hw:
            continue
        group = [each for each in devices if each.group == devices[number].group]
        if not any(hw in (each.user_pasid0, each.user_pasid1) for each in group):
            yield Breach(
                "belief.pasid_left",
                f"PASID {index + 1} of device {number} is in a domain without a user",
                f"state.dev[{number}].pasid[{index}] == SIM_NONE",
                number,
            )


def ungrouped(moment: Moment) -> Iterator[Breach]:
    """Find devices that the core does not know, and that hardware has in a paging domain."""
    for number, device in moment.present:
        if device.flags & wire.GROUPED or device.own < wire.PAGING:
            continue
        yield Breach(
            "belief.ungrouped",
            f"device {number} is in no group and has a domain",
            f"state.dev[{number}].own <= SIM_BLOCKED",
            number,
        )


_SOURCE = "iommu.c, struct iommu_group: domain"

RULES = (
    Rule(
        "belief.group",
        "A group is in its user's domain, blocked if it has only an owner, else in its own.",
        "iommu.c, __iommu_group_set_core_domain(), __iommu_take_dma_ownership()",
        group,
        lasting=True,
    ),
    Rule(
        "belief.old",
        "A driver is told which domain a device leaves.",
        "include/linux/iommu.h, struct iommu_domain_ops: attach_dev",
        old,
    ),
    Rule("belief.domain", "A device is in the domain of its group.", _SOURCE, domain, lasting=True),
    Rule(
        "belief.pasid",
        "A PASID is in the domain that was attached to it.",
        "iommu.c, iommu_attach_device_pasid()",
        pasid,
        lasting=True,
    ),
    Rule(
        "belief.pasid_left",
        "A PASID without a user is in no domain.",
        "iommu.c, iommu_detach_device_pasid()",
        pasid_left,
        lasting=True,
    ),
    Rule(
        "belief.ungrouped",
        "A device without a group has no domain.",
        _SOURCE,
        ungrouped,
        lasting=True,
    ),
)
