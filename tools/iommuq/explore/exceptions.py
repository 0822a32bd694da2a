# SPDX-License-Identifier: GPL-2.0-only
"""Breaches that are accepted or known, each with a reason, a source and an expiry date.

Each base has a list, ``patches/<base>/explore.toml``.  After an accepted breach the sequence
goes on: the rule is not meant for it.  Where an entry names an operation, or a failure, the
breach is accepted for as long as it lasts; else for as long as the entry fits.

    [[exception]]
    rules = ["regions.lost"]
    operations = ["attach_group"]   # the last operation; without it any
    faulted = true                  # a failure was injected in it; without it either
    fail_kinds = ["identity"]       # and it was an attach to such a domain
    splats = ["iommu_detach_group"]  # each splat is a WARN in one of these functions
    identity = false                # the driver has no identity domain
    untrusted = true                # a device of the group is untrusted
    shared = true                   # the device is behind a bridge, and another one is, too
    waiting = true                  # the device waits for its group to be free
    bound = true                    # a driver of the group uses the DMA API
    blocked = false                 # the driver has no blocked domain
    unclaimed = true                # a group is attached that no user has claimed
    reason = "…"
    source = "…"
    expires = 2027-06-01

After a known one the sequence ends, and it is no find: it is a defect that has been found.

    [[known]]
    signatures = ["regions.lost after add"]     # * stands for anything
    reason = "…"
    source = "…"
    expires = 2027-06-01
"""

from __future__ import annotations

import datetime
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from iommuq.explore import wire
from iommuq.explore.finds import Find, splat_key
from iommuq.explore.operations import kinds
from iommuq.explore.rules.model import Moment
from iommuq.system import tables
from iommuq.system.errors import UserError
from iommuq.system.tables import Table, require

NAME = "explore.toml"


@dataclass(frozen=True)
class Exemption(Table):
    """One accepted breach; the docstring of the module explains the keys."""

    rules: tuple[str, ...]
    reason: str
    source: str
    expires: datetime.date
    operations: tuple[str, ...] = ()
    faulted: bool | None = None
    fail_kinds: tuple[str, ...] = ()
    splats: tuple[str, ...] = ()
    unclaimed: bool | None = None
    identity: bool | None = None
    blocked: bool | None = None
    untrusted: bool | None = None
    shared: bool | None = None
    waiting: bool | None = None
    bound: bool | None = None

    def __post_init__(self) -> None:
        require(self.rules, "rules is empty")
        require(self.reason.strip(), "reason is empty")
        require(self.source.strip(), "source is empty")

    @property
    def lasts(self) -> bool:
        """Whether a breach is accepted for as long as it lasts: it is of one operation."""
        return bool(self.operations) or self.faulted is not None

    def covers(self, find: Find, moment: Moment) -> bool:
        """Tell whether it accepts a breach."""
        return (
            find.breach.rule in self.rules
            and (not self.operations or moment.operation.kind in self.operations)
            and (self.faulted is None or self.faulted == moment.after.faulted)
            and (not self.fail_kinds or moment.operation.fail_kind in self.fail_kinds)
            and (not self.splats or _are_of(find.splats, self.splats))
            and (self.identity is None or self.identity == _has(1, find, moment))
            and (self.blocked is None or self.blocked == _has(2, find, moment))
            and (
                self.untrusted is None
                or self.untrusted == (_number(wire.UNTRUSTED, find, moment) > 0)
            )
            and (self.shared is None or self.shared == _shares(find, moment))
            and (
                self.waiting is None or self.waiting == (find.breach.dev in moment.history.waiting)
            )
            and (self.bound is None or self.bound == _is_bound(find, moment))
            and (self.unclaimed is None or self.unclaimed == _unclaimed(find, moment))
        )


def _has(bit: int, find: Find, moment: Moment) -> bool:
    """Tell whether the driver of the device, or of all groups, has a static domain.

    :param bit: of `wire.Group.setup`: 1 for identity, 2 for blocked.
    """
    after, dev = moment.after, find.breach.dev
    groups = after.groups if dev < 0 else [after.groups[after.devices[dev].group]]
    return all(group.setup & bit for group in groups)


def _number(config: int, find: Find, moment: Moment) -> int:
    """Return how many devices of the group of the device, or of any group, have a property."""
    dev = find.breach.dev
    return sum(
        bool(device.config & config)
        for _, device in moment.present
        if dev < 0 or device.group == moment.after.devices[dev].group
    )


def _shares(find: Find, moment: Moment) -> bool:
    """Tell whether the device, or any, shares the requester ID of a bridge with another.

    What was programmed for one that was removed is still there.
    """
    after, dev = moment.after, find.breach.dev
    if dev < 0:
        return _number(wire.BEHIND, find, moment) > 1
    others = [
        number
        for number, device in enumerate(after.devices)
        if device.flags & (wire.USED | wire.PRESENT)
        and device.config & wire.BEHIND
        and device.group == after.devices[dev].group
    ]
    return dev in others and len(others) > 1


def _is_bound(find: Find, moment: Moment) -> bool:
    """Tell whether a driver is bound in the group of the device, or in any."""
    dev = find.breach.dev
    return any(
        device.flags & wire.BOUND
        for _, device in moment.present
        if dev < 0 or device.group == moment.after.devices[dev].group
    )


def _are_of(titles: Collection[str], functions: Collection[str]) -> bool:
    """Tell whether there are splats, all of them a WARN in one of some functions."""
    keys = {splat_key(title) for title in titles}
    return bool(keys) and keys <= {f"WARNING in {name}" for name in functions}


def _unclaimed(find: Find, moment: Moment) -> bool:
    """Tell whether a group is attached that no user has claimed: that of the device, or any."""
    after, dev = moment.after, find.breach.dev
    groups = after.groups if dev < 0 else [after.groups[after.devices[dev].group]]
    return any(group.attached and not group.owner for group in groups)


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
