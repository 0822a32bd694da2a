# SPDX-License-Identifier: GPL-2.0-only
"""The messages between this process and the simulated IOMMU in the guest.

Their layout is that of ``explore/drivers/iommu/tests/iommu_sim.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from iommuq.explore.operations import Operation

VERSION = 4
DEVICES, GROUPS, DOMAINS, PASIDS = 4, 2, 3, 2
#: Largest number of operations of a message.
MOST = 256
#: What `State.ret` is for an operation that makes no sense in its state.
NOT_NOW = 1

#: Ids of domains; those from PAGING on, but for FREED, are paging domains.
NONE, IDENTITY, BLOCKED, PAGING, FREED = 0, 1, 2, 3, 255

#: `Group.default_type` of a domain that is flushed lazily: IOMMU_DOMAIN_DMA_FQ.
DMA_FQ = 11

#: Bits of `Device.flags`.
PRESENT, GROUPED, BOUND = 1, 2, 8
DEFERRED, RESETTING, DMA_IOMMU, USED = 16, 32, 64, 128
#: Bits of `Device.config`; the low two are the group.
PCI, UNTRUSTED, BEHIND, CLAIMED, DEFERS = 4, 8, 16, 32, 64

_MAGIC = 0x4D495349
_HELLO = struct.Struct("<4I")
_OPERATION = struct.Struct("<12B4x")
_HEAD = struct.Struct("<iI")


class Device(NamedTuple):
    """A device, and what hardware does for it; see struct iommu_sim_dev_state."""

    flags: int
    config: int
    hw: int
    own: int
    pasid0: int
    pasid1: int
    user_pasid0: int
    user_pasid1: int
    regions: int
    reach: int
    astray: int
    bufs: int
    bufs_ok: int
    bufs_bad: int
    attaches: int
    lost: int

    @property
    def group(self) -> int:
        """The number of its group."""
        return self.config & 3


class Group(NamedTuple):
    """A group as the core has it; see struct iommu_sim_group_state."""

    exists: int
    domain: int
    default_domain: int
    default_type: int
    blocking_domain: int
    owner: int
    owner_cnt: int
    nr_devs: int
    recovery_cnt: int
    claimed: int
    attached: int
    setup: int


class State(NamedTuple):
    """The answer to one operation; see struct iommu_sim_state."""

    ret: int
    blocks: int
    fault_hit: int
    alloc_hit: int
    splats: int
    freed_in_use: int
    freed_attached: int
    map_twice: int
    wrong_old: int
    live_domains: int
    leaks: int
    user: tuple[int, ...]
    groups: tuple[Group, ...]
    devices: tuple[Device, ...]

    @property
    def faulted(self) -> bool:
        """Whether a failure was injected, and met."""
        return bool(self.fault_hit or self.alloc_hit)


_GROUP, _DEVICE = len(Group._fields), len(Device._fields)
_USER_AT = _HEAD.size + 9
_GROUPS_AT = _USER_AT + DOMAINS
_DEVICES_AT = _GROUPS_AT + GROUPS * _GROUP
#: Sizes in bytes.
HELLO_SIZE = _HELLO.size
STATE_SIZE = _DEVICES_AT + DEVICES * _DEVICE
#: The state before the first operation.
EMPTY = State(
    *(0,) * 11,
    (0,) * DOMAINS,
    (Group(*(0,) * _GROUP),) * GROUPS,
    (Device(*(0,) * _DEVICE),) * DEVICES,
)


def greeting_is_right(data: bytes) -> bool:
    """Tell whether a guest speaks this protocol."""
    wanted = (_MAGIC, VERSION, _OPERATION.size, STATE_SIZE)
    return len(data) == HELLO_SIZE and _HELLO.unpack(data) == wanted


def message(operations: Sequence[Operation]) -> bytes:
    """Return the message for some operations, at most `MOST`."""
    packed = [_OPERATION.pack(*each.packed()) for each in operations]
    return b"".join([struct.pack("<I", len(packed)), *packed])


def state(data: bytes, start: int = 0) -> State:
    """Return the state at an offset of an answer.

    :raises ValueError: it is malformed.
    """
    ret, blocks = _HEAD.unpack_from(data, start)
    at = start + _GROUPS_AT
    groups = tuple(
        Group._make(data[at + _GROUP * n : at + _GROUP * (n + 1)]) for n in range(GROUPS)
    )
    at = start + _DEVICES_AT
    devices = tuple(
        Device._make(data[at + _DEVICE * n : at + _DEVICE * (n + 1)]) for n in range(DEVICES)
    )
    head = data[start + _HEAD.size : start + _USER_AT]
    user = tuple(data[start + _USER_AT : start + _GROUPS_AT])
    if any(each.config & 3 >= GROUPS for each in devices):
        raise ValueError("a device is in a group that there is not")
    return State._make((ret, blocks, *head, user, groups, devices))
