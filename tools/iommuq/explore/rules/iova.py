# SPDX-License-Identifier: GPL-2.0-only
"""Rule 8: no IOVA is handed out inside a region of any device of the group."""

from __future__ import annotations

from collections.abc import Iterator

from iommuq.explore import wire
from iommuq.explore.rules.model import JOINS, Breach, Moment, Rule


def inside(moment: Moment) -> Iterator[Breach]:
    """Find buffers of a driver that lie inside a region."""
    if moment.operation.kind != "dma_map":
        return
    for number, device in moment.present:
        if device.bufs_bad & ~moment.before.devices[number].bufs_bad:
            yield Breach(
                "iova.inside",
                f"device {number} got an IOVA inside a reserved region of its group",
                f"state.dev[{number}].bufs_bad == 0",
                number,
            )


def joined(moment: Moment) -> Iterator[Breach]:
    """Find devices that join where a buffer lies in their region."""
    if moment.operation.kind not in JOINS:
        return
    # One that waits until the buffer is gone has not joined.
    if moment.operation.dev in moment.history.waiting:
        return
    for number, device in moment.present:
        if device.bufs_bad & ~moment.before.devices[number].bufs_bad:
            yield Breach(
                "iova.joined",
                f"a region of device {moment.operation.dev} is where device {number} has a buffer",
                f"state.dev[{number}].bufs_bad == 0",
                number,
            )


def twice(moment: Moment) -> Iterator[Breach]:
    """Find pages that were mapped twice."""
    if moment.after.map_twice:
        yield Breach(
            "iova.twice",
            "a page was mapped that is mapped already, of which VT-d warns",
            "state.map_twice == 0",
        )


def reached(moment: Moment) -> Iterator[Breach]:
    """Find buffers that a driver has just mapped and its device does not reach."""
    if moment.operation.kind != "dma_map" or moment.after.ret:
        return
    number = moment.operation.dev
    device = moment.after.devices[number]
    group = moment.after.groups[device.group]
    # Nothing is attached yet, or its user has attached something else.
    if group.attached or device.flags & wire.DEFERRED or not device.flags & wire.GROUPED:
        return
    # That is the breach of belief.domain.
    if device.hw != group.domain:
        return
    if device.bufs & ~moment.before.devices[number].bufs & ~device.bufs_ok:
        yield Breach(
            "iova.reached",
            f"device {number} does not reach a buffer that its driver has mapped",
            f"state.dev[{number}].bufs == state.dev[{number}].bufs_ok",
            number,
        )


def lost(moment: Moment) -> Iterator[Breach]:
    """Find drivers that lost a buffer without a failure."""
    if moment.after.faulted:
        return
    for number, device in moment.present:
        before = moment.before.devices[number]
        group = moment.after.groups[device.group]
        # A user that attaches without a claim takes what the driver has mapped away.
        if group.attached or group.recovery_cnt or device.flags & wire.DEFERRED:
            continue
        if device.bufs & before.bufs & before.bufs_ok & ~device.bufs_ok:
            yield Breach(
                "iova.lost",
                f"device {number} does not reach a buffer of its driver any more",
                f"state.dev[{number}].bufs == state.dev[{number}].bufs_ok",
                number,
            )


_SOURCE = "dma-iommu.c, iommu_dma_init_domain(), iova_reserve_iommu_regions()"

RULES = (
    Rule("iova.inside", "No IOVA is inside a region of the group.", _SOURCE, inside),
    Rule("iova.joined", "No device joins whose region is in use.", _SOURCE, joined),
    Rule("iova.twice", "No page is mapped twice.", "intel/iommu.c, __domain_mapping()", twice),
    Rule("iova.reached", "A device reaches what its driver maps.", _SOURCE, reached),
    Rule("iova.lost", "A driver keeps what it has mapped.", _SOURCE, lost),
)
