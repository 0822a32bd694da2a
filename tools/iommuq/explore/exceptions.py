# SPDX-License-Identifier: GPL-2.0-only
"""Breaches that are accepted or known, each with a reason, a source and an expiry date.

Each base has a list, ``patches/<base>/explore.toml``.  After an accepted breach the sequence
goes on: the rule is not meant for it, or it is known, and has the signature of what the queue
fixes, so that only its conditions tell the two apart.  Where an entry names an operation, or
a failure in it, the breach is accepted for as long as it lasts; else for as long as the entry
fits.

    [[exception]]
    rules = ["regions.lost"]
    reason = "…"
    source = "…"
    expires = 2027-06-01

    # Of the last operation; without a key, any.
    operations = ["attach_group"]
    faulted = true                  # a failure was injected in it, and met
    attach_failed = true            # it was an attach
    alloc_failed = true             # it was an allocation
    fails_again = true              # and each later such attach of the operation failed
    fail_kinds = ["identity"]       # the attach was to such a domain
    splats = ["iommu_detach_group"]  # each splat is a WARN in one of these functions

    # Of each device that the breach is about.
    places = ["parked"]             # where it is, see `Place`
    identity_safe = false           # identity is no last resort: see iommu_identity_is_safe()
    shared = true                   # it is behind a bridge, and another one is, too
    waiting = true                  # it waits for its group to be free
    late = true                     # it has joined after its group was attached
    beside = true                   # it has joined others
    join_failed = true              # a failure was injected when it joined
    refused = true                  # a failure has kept another one with regions out of its group
    short = true                    # an allocation has failed in its group since it joined
    short_beside = true             # or since another one joined that is there
    mapped_before = true            # a driver had mapped a buffer before a region joined its group
    left_by = ["paging"]            # a failed attach to such a domain left it in what is freed

    # Of each group that the breach is about.
    blocked = false                 # its driver has no blocked domain
    unclaimed = true                # it is attached, and no user has claimed it

After a known one the sequence ends, and it is no find: it is a defect that has been found.

    [[known]]
    signatures = ["regions.lost after add"]     # * stands for anything
    reason = "…"
    source = "…"
    expires = 2027-06-01
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path

from iommuq.explore import wire
from iommuq.explore.finds import Find, splat_key
from iommuq.explore.operations import FAIL_KINDS, Operation, kinds
from iommuq.explore.rules.model import JOINS, Moment
from iommuq.system import tables
from iommuq.system.errors import UserError
from iommuq.system.tables import Table, require

NAME = "explore.toml"

# Bits of `wire.Group.setup`: what the driver has, and that it blocks what it attaches first.
_IDENTITY, _BLOCKED, _CUTS = 1, 2, 8
_DEVICE, _GROUP = re.compile(r"state\.dev\[(\d+)\]"), re.compile(r"state\.group\[(\d+)\]")
# Fields of a device that name a domain.
_DOMAINS = ("hw", "own", "pasid0", "pasid1")


class Place(StrEnum):
    """Where hardware has a device."""

    #: In the default domain, which its group is in.
    DEFAULT = "default"
    #: In another domain that its group is in.
    GROUP = "group"
    #: In nothing: its driver blocks a device before it attaches it, and the attach failed.
    CUT = "cut"
    #: Where it was before, but its attach was deferred, and is not any more.
    UNDEFERRED = "undeferred"
    #: In a domain of last resort: its quarantine domain, identity, or a blocking one.
    PARKED = "parked"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True)
class Exemption(Table):
    """One accepted breach; the docstring of the module explains the keys."""

    rules: tuple[str, ...]
    reason: str
    source: str
    expires: datetime.date
    operations: tuple[str, ...] = ()
    faulted: bool | None = None
    attach_failed: bool | None = None
    alloc_failed: bool | None = None
    fails_again: bool | None = None
    fail_kinds: tuple[str, ...] = ()
    splats: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()
    identity_safe: bool | None = None
    shared: bool | None = None
    waiting: bool | None = None
    late: bool | None = None
    beside: bool | None = None
    join_failed: bool | None = None
    refused: bool | None = None
    short: bool | None = None
    short_beside: bool | None = None
    mapped_before: bool | None = None
    left_by: tuple[str, ...] = ()
    blocked: bool | None = None
    unclaimed: bool | None = None

    def __post_init__(self) -> None:
        require(self.rules, "rules is empty")
        require(self.reason.strip(), "reason is empty")
        require(self.source.strip(), "source is empty")
        for kind in (*self.fail_kinds, *self.left_by):
            require(kind in FAIL_KINDS, f"no attach to a domain of type {kind!r} can fail")

    @property
    def lasts(self) -> bool:
        """Whether a breach is accepted for as long as it lasts: it is of one operation."""
        return bool(self.operations) or any(
            getattr(self, name) is not None for name in _OF_OPERATION
        )

    def covers(self, find: Find, moment: Moment) -> bool:
        """Tell whether it accepts a breach."""
        if find.breach.rule not in self.rules:
            return False
        devices, groups = _devices(find, moment), _groups(find, moment)
        return (
            (not self.operations or moment.operation.kind in self.operations)
            and (not self.fail_kinds or moment.operation.fail_kind in self.fail_kinds)
            and (not self.splats or _are_of(find.splats, self.splats))
            and all(
                getattr(self, name) in (None, test(moment)) for name, test in _OF_OPERATION.items()
            )
            and self._fit(devices, _OF_DEVICE, moment)
            and self._fit(groups, _OF_GROUP, moment)
            and (not self.places or _each(devices, lambda n: _place(n, moment) in self.places))
            and (
                not self.left_by
                or (
                    any(each.fail_kind in self.left_by for each in _operations(moment)[:-1])
                    and _each(devices, lambda n: _was_left(n, moment))
                )
            )
        )

    def _fit(self, numbers: Collection[int], tests: Mapping[str, _Test], moment: Moment) -> bool:
        """Tell whether some devices, or some groups, are what the entry says."""
        asked = [
            (test, value)
            for name, test in tests.items()
            if (value := getattr(self, name)) is not None
        ]
        return not asked or _each(
            numbers, lambda n: all(test(n, moment) == value for test, value in asked)
        )


_Test = Callable[[int, Moment], bool]


def _each(numbers: Collection[int], test: Callable[[int], bool]) -> bool:
    """Tell whether there are some, and all of them pass."""
    return bool(numbers) and all(map(test, numbers))


def _operations(moment: Moment) -> Sequence[Operation]:
    """Return the operations of the sequence, to the last one."""
    return moment.history.operations[: moment.number]


def _devices(find: Find, moment: Moment) -> Collection[int]:
    """Return the devices that a breach is about; none, if it is about a group."""
    breach = find.breach
    if breach.dev >= 0:
        return {breach.dev}
    if breach.rule == "lifetime.freed":
        return {number for number in range(wire.DEVICES) if _lately_freed(number, moment)}
    if named := _DEVICE.findall(breach.expect):
        return {int(number) for number in named}
    if _GROUP.search(breach.expect) or "dev" not in kinds()[moment.operation.kind].fields:
        return ()
    return {moment.operation.dev}


def _groups(find: Find, moment: Moment) -> Collection[int]:
    """Return the groups that a breach is about: of its devices, or of the operation."""
    if devices := _devices(find, moment):
        return {moment.after.devices[number].group for number in devices}
    if named := _GROUP.findall(find.breach.expect):
        return {int(number) for number in named}
    return {moment.operation.group} if "group" in kinds()[moment.operation.kind].fields else ()


def _lately_freed(number: int, moment: Moment) -> list[str]:
    """Return the fields of a device whose domain the last operation has freed."""
    before, after = moment.before.devices[number], moment.after.devices[number]
    return [
        name for name in _DOMAINS if getattr(after, name) == wire.FREED != getattr(before, name)
    ]


def _was_left(number: int, moment: Moment) -> bool:
    """Tell whether a device was in what is freed although its group was in another domain."""
    device, names = moment.before.devices[number], _lately_freed(number, moment)
    group = moment.before.groups[device.group]
    return {"pasid0", "pasid1"}.isdisjoint(names) and all(
        getattr(device, name) != group.domain for name in names
    )


def _place(number: int, moment: Moment) -> Place:
    before, after = moment.before.devices[number], moment.after.devices[number]
    group = moment.after.groups[after.group]
    if not after.flags & wire.PRESENT:
        return Place.ELSEWHERE
    if not after.flags & wire.GROUPED:
        # What could not join goes where those go that have the requester ID of its bridge.
        twin = _twin(number, moment)
        return Place.ELSEWHERE if twin is None else _place(twin, moment)
    if after.hw == group.domain:
        return Place.DEFAULT if group.domain == group.default_domain else Place.GROUP
    if before.flags & ~after.flags & wire.DEFERRED and after.hw == before.hw:
        return Place.UNDEFERRED
    if after.hw == wire.NONE and group.setup & _CUTS:
        return Place.CUT
    taken = {wire.FREED, *moment.after.user}
    for each in moment.after.groups:
        taken |= {each.domain, each.default_domain, each.blocking_domain}
    quarantined = after.hw >= wire.PAGING and after.hw not in taken
    blocking = {wire.IDENTITY, wire.BLOCKED, group.blocking_domain} - {wire.NONE}
    return Place.PARKED if quarantined or after.hw in blocking else Place.ELSEWHERE


def _twin(number: int, moment: Moment) -> int | None:
    """Return a device of the group of a device that has the same requester ID."""
    devices = moment.after.devices
    if not devices[number].config & wire.BEHIND:
        return None
    behind = (wire.PRESENT | wire.GROUPED, wire.BEHIND)
    return next(
        (
            other
            for other in _siblings(number, moment)
            if (devices[other].flags & behind[0], devices[other].config & behind[1]) == behind
        ),
        None,
    )


def _siblings(number: int, moment: Moment) -> Iterable[int]:
    """Yield the other devices that were ever in the group of a device."""
    devices = moment.after.devices
    for other, device in enumerate(devices):
        if other != number and device.flags & wire.USED and device.group == devices[number].group:
            yield other


def _identity_is_safe(number: int, moment: Moment) -> bool:
    """Tell whether identity is a last resort for a device: there is such a domain, for it alone."""
    device = moment.after.devices[number]
    group = moment.after.groups[device.group]
    others = [
        moment.after.devices[other]
        for other in _siblings(number, moment)
        if moment.after.devices[other].flags & wire.GROUPED
    ]
    return not (
        not group.setup & _IDENTITY
        or group.owner
        or group.owner_cnt
        or any(each.config & wire.UNTRUSTED for each in (device, *others))
        or (device.config & wire.BEHIND and any(each.config & wire.BEHIND for each in others))
    )


def _shares(number: int, moment: Moment) -> bool:
    """Tell whether a device shares the requester ID of a bridge with another.

    What was programmed for one that was removed is still there.
    """
    devices = moment.after.devices
    return bool(devices[number].config & wire.BEHIND) and any(
        devices[other].config & wire.BEHIND for other in _siblings(number, moment)
    )


def _joined(number: int, moment: Moment) -> int:
    """Return which operation it was by which a device has joined its group; -1: none."""
    found = (
        at
        for at, each in enumerate(_operations(moment))
        if each.kind in JOINS and each.dev == number
    )
    return max(found, default=-1)


def _is_late(number: int, moment: Moment) -> bool:
    """Tell whether a device has joined after its group was attached, as it still is."""
    devices = moment.after.devices
    group = devices[number].group
    attached = (
        at
        for at, each in enumerate(_operations(moment))
        if (each.kind == "attach_group" and each.group == group)
        or (each.kind == "attach_device" and devices[each.dev].group == group)
    )
    return -1 < max(attached, default=-1) < _joined(number, moment)


def _is_beside(number: int, moment: Moment) -> bool:
    """Tell whether a device has joined one that had joined before, and was not gone."""
    at = max(_joined(number, moment), 0)
    for other in _siblings(number, moment):
        last = [
            each
            for each in _operations(moment)[:at]
            if each.kind in (*JOINS, "remove") and each.dev == other
        ]
        if not last or last[-1].kind not in JOINS:
            continue
        # What was to fail may have joined all the same, and is there since.
        grouped = moment.after.devices[other].flags & wire.GROUPED
        if not _fails(last[-1]) or (grouped and _joined(other, moment) < at):
            return True
    return False


def _fails(operation: Operation) -> bool:
    return bool(operation.fail_kind or operation.fail_alloc)


def _join_failed(number: int, moment: Moment) -> bool:
    at = _joined(number, moment)
    return at >= 0 and _fails(_operations(moment)[at])


def _is_one_refused(number: int, moment: Moment) -> bool:
    """Tell whether a failure has kept another device with regions out of a device's group."""
    devices = moment.after.devices
    return any(
        devices[other].group == devices[number].group and devices[other].regions
        for other in moment.history.refused - {number}
    )


def _was_mapped_before(number: int, moment: Moment) -> bool:
    """Tell whether a buffer of the group had an IOVA before a device with regions joined it."""
    operations, devices = _operations(moment), moment.after.devices
    group = [other for other, device in enumerate(devices) if device.group == devices[number].group]
    claiming = {each.dev for each in operations if each.kind == "add" and each.b}
    mapped = [
        at for at, each in enumerate(operations) if each.kind == "dma_map" and each.dev in group
    ]
    joined = [_joined(other, moment) for other in group if other in claiming]
    return bool(mapped and joined) and mapped[0] < max(joined)


def _are_of(titles: Collection[str], functions: Collection[str]) -> bool:
    """Tell whether there are splats, all of them a WARN in one of some functions."""
    keys = {splat_key(title) for title in titles}
    return bool(keys) and keys <= {f"WARNING in {name}" for name in functions}


def _is_unclaimed(number: int, moment: Moment) -> bool:
    group = moment.after.groups[number]
    return bool(group.attached) and not group.owner


# What the keys of an exemption ask of the last operation, and of devices and groups.
_OF_OPERATION: Mapping[str, Callable[[Moment], bool]] = {
    "faulted": lambda moment: moment.after.faulted,
    "attach_failed": lambda moment: bool(moment.after.fault_hit),
    "alloc_failed": lambda moment: bool(moment.after.alloc_hit),
    "fails_again": lambda moment: bool(moment.after.fault_hit and moment.operation.fail_every),
}
_OF_DEVICE: Mapping[str, _Test] = {
    "identity_safe": _identity_is_safe,
    "shared": _shares,
    "waiting": lambda number, moment: number in moment.history.waiting,
    "late": _is_late,
    "beside": _is_beside,
    "join_failed": _join_failed,
    "refused": _is_one_refused,
    "short": lambda number, moment: number in moment.history.short,
    "short_beside": lambda number, moment: any(
        moment.after.devices[each].flags & wire.GROUPED
        for each in moment.history.short & {number, *_siblings(number, moment)}
    ),
    "mapped_before": _was_mapped_before,
}
_OF_GROUP: Mapping[str, _Test] = {
    "blocked": lambda number, moment: bool(moment.after.groups[number].setup & _BLOCKED),
    "unclaimed": _is_unclaimed,
}


@dataclass(frozen=True)
class Known(Table):
    """Finds of one defect; the docstring of the module explains the keys."""

    signatures: tuple[str, ...]
    reason: str
    source: str
    expires: datetime.date

    def __post_init__(self) -> None:
        require(self.signatures, "signatures is empty")
        require(self.reason.strip(), "reason is empty")
        require(self.source.strip(), "source is empty")


@dataclass(frozen=True)
class Exceptions(Table):
    """All accepted and known breaches of a base."""

    exception: tuple[Exemption, ...] = ()
    known: tuple[Known, ...] = ()

    def covering(self, find: Find, moment: Moment) -> Exemption | None:
        """Return the first that accepts a breach; None if none does."""
        return next((each for each in self.exception if each.covers(find, moment)), None)

    def knows(self, signature: str) -> bool:
        """Tell whether a find is of a known defect."""
        return any(fnmatchcase(signature, glob) for each in self.known for glob in each.signatures)

    def expired(self, today: datetime.date) -> list[str]:
        """Return the reasons of the entries whose date is past."""
        entries: list[Exemption | Known] = [*self.exception, *self.known]
        return [each.reason.strip() for each in entries if each.expires < today]


def load(folder: Path, names: frozenset[str]) -> Exceptions:
    """Read the list of a base; a base without the file has none.

    :param folder: ``patches/<base>``.
    :param names: the names of the rules.
    :raises UserError: it is malformed.
    """
    path = folder / NAME
    if not path.exists():
        return Exceptions()
    found = tables.load_toml(Exceptions, path)
    for each in found.exception:
        for rule in each.rules:
            if rule not in names:
                raise UserError(f"{path}: no rule {rule!r}")
        for operation in each.operations:
            if operation not in kinds():
                raise UserError(f"{path}: no operation {operation!r}")
    return found
