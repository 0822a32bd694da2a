# SPDX-License-Identifier: GPL-2.0-only
"""Make states of the simulated IOMMU: one where all is well, and changes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from iommuq.explore import wire
from iommuq.explore.choose import CODES
from iommuq.explore.operations import Operation
from iommuq.explore.rules.model import History, Moment
from iommuq.explore.wire import EMPTY, Device, Group, State

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


# Random states, of what a number is decoded in.
_BYTE = st.integers(0, 255)
_SMALL = st.integers(0, 7)
_DEVICES = st.builds(
    Device,
    flags=_BYTE,
    config=st.integers(0, 127).map(lambda value: value & ~2),
    user_pasid0=_SMALL,
    user_pasid1=_SMALL,
    bufs=st.integers(0, 3),
    **{
        name: st.just(0)
        for name in Device._fields
        if name not in ("flags", "config", "user_pasid0", "user_pasid1", "bufs")
    },
)
_GROUPS = st.builds(
    Group,
    exists=st.integers(0, 1),
    claimed=st.integers(0, 2),
    attached=_SMALL,
    **{name: st.just(0) for name in Group._fields if name not in ("exists", "claimed", "attached")},
)
STATES = st.builds(
    lambda user, groups, devices: EMPTY._replace(user=user, groups=groups, devices=devices),
    st.tuples(*[_SMALL] * wire.DOMAINS),
    st.tuples(*[_GROUPS] * wire.GROUPS),
    st.tuples(*[_DEVICES] * wire.DEVICES),
)
NUMBERS = st.integers(1, CODES - 1)
