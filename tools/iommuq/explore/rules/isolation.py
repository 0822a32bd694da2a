# SPDX-License-Identifier: GPL-2.0-only
"""Rule 3: an owner's memory is reached by the owner's devices, and identity by none of them."""

from __future__ import annotations

from collections.abc import Iterator

from iommuq.explore import wire
from iommuq.explore.rules.model import Breach, Moment, Rule

_NOT_IDENTITY = "state.dev[{}].hw != SIM_IDENTITY"


def foreign(moment: Moment) -> Iterator[Breach]:
    """Find devices in a user's domain that is not attached to their group."""
    after = moment.after
    for number, device in enumerate(after.devices):
        if device.hw not in after.user or device.hw < wire.PAGING:
            continue
        if device.hw == after.groups[device.group].attached:
            continue
        yield Breach(
            "isolation.foreign",
            f"device {number} reaches what a user has mapped for others",
            f"state.dev[{number}].hw != state.user[{after.user.index(device.hw)}] || "
            f"state.dev[{number}].hw == state.group[{device.group}].attached",
            number,
        )


def untrusted(moment: Moment) -> Iterator[Breach]:
    """Find untrusted devices in identity."""
    for number, device in enumerate(moment.after.devices):
        present = device.flags & wire.PRESENT
        # A requester ID that a removed device shares is the concern of the others.
        field = "hw" if present else "own"
        if getattr(device, field) == wire.IDENTITY and device.config & wire.UNTRUSTED:
            gone = "" if present else ", which was removed,"
            yield Breach(
                "isolation.untrusted",
                f"device {number}{gone} is untrusted and reaches all memory",
                f"state.dev[{number}].{field} != SIM_IDENTITY",
                number,
            )


def owned(moment: Moment) -> Iterator[Breach]:
    """Find devices of a user in identity."""
    for number, device in moment.present:
        group = moment.after.groups[device.group]
        if device.hw == wire.IDENTITY and (group.owner or group.claimed):
            yield Breach(
                "isolation.owned",
                f"device {number} reaches all memory, and group {device.group} has an owner",
                _NOT_IDENTITY.format(number),
                number,
            )


def in_flight(moment: Moment) -> Iterator[Breach]:
    """Find devices in identity whose driver uses IOVAs."""
    for number, device in moment.present:
        group = moment.after.groups[device.group]
        # A deferred attach comes before the first DMA.
        if device.flags & wire.DEFERRED or not device.flags & wire.BOUND:
            continue
        if device.hw != wire.IDENTITY:
            continue
        if device.flags & wire.DMA_IOMMU and group.default_domain >= wire.PAGING:
            yield Breach(
                "isolation.in_flight",
                f"device {number} takes IOVAs of its driver for physical addresses",
                _NOT_IDENTITY.format(number),
                number,
            )


def shared(moment: Moment) -> Iterator[Breach]:
    """Find devices that got identity through the requester ID that they share."""
    after = moment.after
    for number, device in moment.present:
        if device.hw != wire.IDENTITY or not device.config & wire.BEHIND:
            continue
        group = after.groups[device.group]
        if group.domain == wire.IDENTITY or device.own == wire.IDENTITY:
            continue
        yield Breach(
            "isolation.shared",
            f"device {number} reaches all memory by the requester ID of another",
            _NOT_IDENTITY.format(number),
            number,
        )


def lazy(moment: Moment) -> Iterator[Breach]:
    """Find untrusted devices whose mappings outlive their end."""
    for number, device in moment.present:
        group = moment.after.groups[device.group]
        if not device.config & wire.UNTRUSTED or not device.flags & wire.GROUPED:
            continue
        if group.default_type == wire.DMA_FQ:
            yield Breach(
                "isolation.lazy",
                f"device {number} is untrusted, and group {device.group} unmaps lazily",
                f"state.group[{device.group}].default_type != IOMMU_DOMAIN_DMA_FQ",
                number,
            )


_THREAD = "20230607035145.343698-1-baolu.lu@linux.intel.com"

RULES = (
    Rule(
        "isolation.foreign",
        "What an owner maps is reached by the owner's devices alone.",
        "iommu.c, iommu_group_claim_dma_owner()",
        foreign,
        lasting=True,
    ),
    Rule(
        "isolation.untrusted",
        "An untrusted device is never in identity.",
        f"{_THREAD}; iommu.c, iommu_get_default_domain_type()",
        untrusted,
        lasting=True,
    ),
    Rule(
        "isolation.owned",
        "A device of an owner is never in identity, but by the owner's will.",
        "iommu.c, __iommu_take_dma_ownership()",
        owned,
        lasting=True,
    ),
    Rule(
        "isolation.in_flight",
        "A device whose driver uses IOVAs is not in identity.",
        "dma-iommu.c, iommu_setup_dma_ops()",
        in_flight,
        lasting=True,
    ),
    Rule(
        "isolation.shared",
        "A device does not get identity by a requester ID that it shares.",
        "pci_for_each_dma_alias(); PCI Express to PCI/PCI-X Bridge 1.0, 2.3",
        shared,
        lasting=True,
    ),
    Rule(
        "isolation.lazy",
        "The mappings of an untrusted device end when they are unmapped.",
        "iommu.c, iommu_get_default_domain_type(); Documentation/ABI/testing/"
        "sysfs-kernel-iommu_groups",
        lazy,
        lasting=True,
    ),
)
