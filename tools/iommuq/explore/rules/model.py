# SPDX-License-Identifier: GPL-2.0-only
"""What a rule is, what it sees, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from iommuq.explore import wire
from iommuq.explore.operations import Operation
from iommuq.explore.wire import Device, State

#: Operations after which a device may be in a group, or may have been refused.
JOINS = ("add", "rescan")


@dataclass(frozen=True)
class Breach:
    """A rule that does not hold.

    :ivar rule: its name, ``regions.lost``.
    :ivar text: what is wrong, in one line.
    :ivar expect: the expression in C that is false in ``struct iommu_sim_state state``.
    :ivar dev: the number of the device that it is about; -1: of none.
    """

    rule: str
    text: str
    expect: str
    dev: int = -1


def _group_of(operation: Operation, after: State) -> int:
    """Return the number of the group that a device joins, or whose type is written."""
    if operation.kind in JOINS:
        return after.devices[operation.dev].group
    return operation.group


def _is_over(number: int, after: State) -> bool:
    """Tell whether a device that waited is in the default domain, as its group is."""
    device = after.devices[number]
    group = after.groups[device.group]
    return (
        bool(device.flags & wire.GROUPED)
        and not group.owner
        and device.own == group.domain == group.default_domain
    )


@dataclass
class History:
    """What has happened in a sequence, as far as a state does not tell.

    :ivar operations: all so far.
    :ivar failed: devices whose probe met a failed allocation.
    :ivar short: devices in a group where an allocation failed since they joined it.
    :ivar waiting: devices that have joined a group in use, and are not in its domain.
    :ivar refused: devices that a failure has kept out of a group that is still there.
    """

    operations: list[Operation] = field(default_factory=list)
    failed: set[int] = field(default_factory=set)
    short: set[int] = field(default_factory=set)
    waiting: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)

    def note(self, operation: Operation, after: State) -> None:
        """Add an operation and what came of it."""
        self.operations.append(operation)
        if operation.kind in JOINS:
            self.failed.discard(operation.dev)
            if after.alloc_hit and not after.devices[operation.dev].flags & wire.GROUPED:
                self.failed.add(operation.dev)
            # One that joins later has its regions reserved then.
            self.refused.discard(operation.dev)
            if after.faulted and not after.devices[operation.dev].flags & wire.GROUPED:
                self.refused.add(operation.dev)
            self.short.discard(operation.dev)
            self.waiting.discard(operation.dev)
            device = after.devices[operation.dev]
            group = after.groups[device.group]
            in_use = bool(group.owner) or group.domain != group.default_domain
            elsewhere = device.own != group.domain
            users = device.own >= wire.PAGING and device.own in after.user
            if device.regions and not users and (in_use or elsewhere):
                self.waiting.add(operation.dev)
        self.refused -= {
            number
            for number in self.refused
            if not after.groups[after.devices[number].group].exists
        }
        self.waiting -= {number for number in self.waiting if _is_over(number, after)}
        if after.alloc_hit and operation.kind in (*JOINS, "set_type"):
            number = _group_of(operation, after)
            self.short.update(
                at
                for at, each in enumerate(after.devices)
                if each.flags & wire.GROUPED and each.group == number
            )


@dataclass(frozen=True)
class Moment:
    """One operation of a sequence, with the states around it.

    :ivar present: numbers and states of the devices that are plugged in.
    :ivar number: how many operations there were, with this one.
    """

    operation: Operation
    before: State
    after: State
    history: History
    present: list[tuple[int, Device]] = field(init=False)
    number: int = field(init=False)

    def __post_init__(self) -> None:
        found = [
            (number, device)
            for number, device in enumerate(self.after.devices)
            if device.flags & wire.PRESENT
        ]
        object.__setattr__(self, "present", found)
        object.__setattr__(self, "number", len(self.history.operations))

    @property
    def refused(self) -> bool:
        """Whether the operation returned an error."""
        return self.after.ret < 0


Check = Callable[[Moment], Iterable[Breach]]


@dataclass(frozen=True)
class Rule:
    """One rule.

    :ivar name: ``<group>.<rule>``.
    :ivar says: the rule in one sentence.
    :ivar source: where it is from: a mail, a document, a comment in the kernel.
    :ivar check: yields each breach after one operation.
    :ivar lasting: a breach is of the state, and lasts until an operation ends it; else it
        is of the operation.
    """

    name: str
    says: str
    source: str
    check: Check
    lasting: bool = False
