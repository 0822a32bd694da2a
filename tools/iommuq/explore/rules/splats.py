# SPDX-License-Identifier: GPL-2.0-only
"""Rule 10: no splat, and nothing is left at the end of a sequence.

What a splat is, the console tells; see `iommuq.results.console.splats`.
"""

from __future__ import annotations

from collections.abc import Iterator

from iommuq.explore.rules.model import Breach, Moment, Rule

_LEFT = {1: "domains", 2: "reserved regions", 4: "groups"}


def printed(moment: Moment) -> Iterator[Breach]:
    """Find splats."""
    if moment.after.splats:
        yield Breach("splats.printed", "the kernel printed a splat", "state.splats == 0")


def left(moment: Moment) -> Iterator[Breach]:
    """Find what was not freed."""
    if moment.after.leaks:
        names = [name for bit, name in _LEFT.items() if moment.after.leaks & bit]
        yield Breach("splats.left", f"{' and '.join(names)} were not freed", "state.leaks == 0")


RULES = (
    Rule(
        "splats.printed",
        "No splat: KASAN, lockdep, debug objects, WARN.",
        "Documentation/process/deprecated.rst; Documentation/dev-tools/kasan.rst",
        printed,
    ),
    Rule("splats.left", "Nothing is left at the end.", "iommu.c, iommu_group_release()", left),
)
