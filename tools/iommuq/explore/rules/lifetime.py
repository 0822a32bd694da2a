# SPDX-License-Identifier: GPL-2.0-only
"""Rule 2: no domain is freed in use, and nothing is attached to a freed one."""

from __future__ import annotations

from collections.abc import Iterator

from iommuq.explore import wire
from iommuq.explore.rules.model import Breach, Moment, Rule


def freed(moment: Moment) -> Iterator[Breach]:
    """Find domains that were freed while hardware used them."""
    if moment.after.freed_in_use:
        yield Breach(
            "lifetime.freed",
            "a domain was freed while a device was attached to it",
            "state.freed_in_use == 0",
        )


def attached(moment: Moment) -> Iterator[Breach]:
    """Find attaches to a domain that had been freed."""
    if moment.after.freed_attached:
        yield Breach(
            "lifetime.attached", "a freed domain was attached", "state.freed_attached == 0"
        )


def believed(moment: Moment) -> Iterator[Breach]:
    """Find groups whose domain has been freed."""
    for number, group in enumerate(moment.after.groups):
        for name in ("domain", "default_domain", "blocking_domain"):
            if getattr(group, name) == wire.FREED:
                yield Breach(
                    "lifetime.believed",
                    f"group {number} has a pointer to a freed domain",
                    f"state.group[{number}].{name} != SIM_FREED",
                )
                break


_SOURCE = (
    "include/linux/iommu.h, iommu_domain_free(); 20230607035145.343698-1-baolu.lu@linux.intel.com"
)

RULES = (
    Rule("lifetime.freed", "No domain is freed while it is in use.", _SOURCE, freed),
    Rule("lifetime.attached", "Nothing is attached to a freed domain.", _SOURCE, attached),
    Rule(
        "lifetime.believed", "No group points to a freed domain.", _SOURCE, believed, lasting=True
    ),
)
