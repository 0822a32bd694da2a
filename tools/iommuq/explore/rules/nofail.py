# SPDX-License-Identifier: GPL-2.0-only
"""Rule 6: what must not fail does not leave a device in the domain that it was to leave."""

from __future__ import annotations

from collections.abc import Iterator

from iommuq.explore import wire
from iommuq.explore.rules.model import Breach, Moment, Rule

#: Operations without an error that a caller could act on.
VOID = ("release_group", "release_device", "detach_group", "detach_device", "detach_pasid",
        "unbind", "remove", "unmap", "dma_unmap", "free", "reset_done", "end")  # fmt: skip
_LEAVES = ("detach_group", "detach_device")


def failed(moment: Moment) -> Iterator[Breach]:
    """Find errors of what returns none."""
    if moment.operation.kind in VOID and moment.refused:
        yield Breach("nofail.failed", "it returned an error and must not", "state.ret == 0")


def stayed(moment: Moment) -> Iterator[Breach]:
    """Find devices that are still in a domain after they were detached from it."""
    if moment.operation.kind not in _LEAVES or moment.after.ret:
        return
    left = {group.attached for group in moment.before.groups if group.attached}
    left -= {group.attached for group in moment.after.groups}
    for number, device in moment.present:
        if device.hw in left and not device.flags & wire.RESETTING:
            yield Breach(
                "nofail.stayed",
                f"device {number} is still in the domain that it was detached from",
                f"state.dev[{number}].hw != {device.hw}",
                number,
            )


_SOURCE = "iommu.c, IOMMU_SET_DOMAIN_MUST_SUCCEED"

RULES = (
    Rule("nofail.failed", "Calls that must not fail do not.", _SOURCE, failed),
    Rule("nofail.stayed", "A detached device leaves the domain.", _SOURCE, stayed),
)
