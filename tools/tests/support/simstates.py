# SPDX-License-Identifier: GPL-2.0-only
"""Make states of the simulated IOMMU: one where all is well, and changes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iommuq.explore import wire
from iommuq.explore.operations import Operation
from iommuq.explore.rules.model import History, Moment
from iommuq.explore.wire import EMPTY, State

#: Flags of a device that is plugged in, and of one that the core has in a group.
PLUGGED = wire.USED | wire.PRESENT
JOINED = PLUGGED | wire.GROUPED
#: The default domain of group 0, and what `Group.default_type` is for it.
DEFAULT, DMA = wire.PAGING, 3

Fields = Mapping[str, Any]


def changed(
    state: State,
    dev: Mapping[int, Fields] | None = None,
    group: Mapping[int, Fields] | None = None,
    **head: Any,
) -> State:
    """Return a state with some fields of some devices and groups changed."""
    devices, groups = list(state.devices), list(state.groups)
    for number, fields in (dev or {}).items():
        devices[number] = devices[number]._replace(**fields)
    for number, fields in (group or {}).items():
        groups[number] = groups[number]._replace(**fields)
    return state._replace(devices=tuple(devices), groups=tuple(groups), **head)


#: Nothing but two drivers that have all static domains.
BARE = changed(EMPTY, group={0: {"setup": 7}, 1: {"setup": 7}})
#: Device 0 is in group 0, which has its default domain.
GOOD = changed(
    BARE,
    dev={0: {"flags": JOINED, "hw": DEFAULT, "own": DEFAULT}},
    group={
        0: {
            "exists": 1,
            "domain": DEFAULT,
            "default_domain": DEFAULT,
            "default_type": DMA,
            "nr_devs": 1,
        }
    },
)


def moment(operation: Operation, after: State, before: State = GOOD) -> Moment:
    """Return the moment of an operation that is the first of its sequence."""
    history = History()
    history.note(operation, after)
    return Moment(operation, before, after, history)
