# SPDX-License-Identifier: GPL-2.0-only
"""The lanes of a proof, one file each, and their table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from iommuq.build.workspace import Workspace
from iommuq.proof.lane import Lane
from iommuq.proof.lanes.firmware import FirmwareLane
from iommuq.proof.lanes.kunit import KunitLane
from iommuq.proof.lanes.selftest import SelftestLane
from iommuq.system import arches
from iommuq.system.errors import UserError

__all__ = ["FirmwareLane", "KunitLane", "Lane", "SelftestLane", "open_lanes"]

# The suites of `iommuq prove --suite`.  A new one needs a file here, a line in this table,
# and its name in `iommuq.defaults.SUITES`.
_LANES: dict[str, Callable[[Workspace], Lane]] = {
    "kunit": lambda workspace: KunitLane.open(workspace, arches.get("um")),
    "selftest": lambda workspace: SelftestLane.open(workspace, "um"),
    "firmware": FirmwareLane.open,
}


def open_lanes(workspace: Workspace, wanted: Sequence[str] = ()) -> list[Lane]:
    """Return the lanes of some names; all if empty.

    :raises UserError: there is no lane of one of the names.
    """
    for name in wanted:
        if name not in _LANES:
            raise UserError(f"no suite {name!r}; there are {', '.join(_LANES)}")
    return [make(workspace) for name, make in _LANES.items() if not wanted or name in wanted]
