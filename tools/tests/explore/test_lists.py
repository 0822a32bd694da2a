# SPDX-License-Identifier: GPL-2.0-only
"""The lists of the bases hide nothing that their queue fixes.

What is looked for in `known.toml` is matched by no known signature, and what an entry with
conditions accepts is told from what it does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import pytest

from iommuq.explore import wire
from iommuq.explore.drivers.world import data
from iommuq.explore.exceptions import Exceptions, load
from iommuq.explore.finds import Find
from iommuq.explore.known import Defect, defects
from iommuq.explore.operations import Operation
from iommuq.explore.rules import all_rules
from iommuq.explore.rules.model import Breach, History, Moment
from iommuq.explore.wire import State
from iommuq.queue.model import Queue, load_queue, named_step
from simheader import ROOT
from simstates import DEFAULT, GOOD, JOINED, changed

BASES = ("7.3", "6.12")
#: Domains of a user, and of last resort.
USER, QUARANTINE = 7, 9


@cache
def listed(base: str) -> Exceptions:
    """Return the list of a base."""
    return load(ROOT / "patches" / base, frozenset(rule.name for rule in all_rules()))


@cache
def overlap(one: str, other: str) -> bool:
    """Tell whether there is a text that two patterns match."""
    if not one or not other:
        return not (one + other).strip("*")
    if one[0] == "*":
        return overlap(one[1:], other) or overlap(one, other[1:])
    if other[0] == "*":
        return overlap(other, one)
    return one[0] == other[0] and overlap(one[1:], other[1:])


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        ("a", "a", True),
        ("a", "ab", False),
        ("a*", "a", True),
        ("*b", "a*", True),
        ("a*c", "*b*", True),
        ("a*c", "b*", False),
        ("*", "", True),
        ("a (*, b) after *", "a (c, b) after add", True),
        ("a after *", "a (*b) after *", False),
    ],
)
def test_overlap(one: str, other: str, wanted: bool) -> None:
    """It is the same from both sides."""
    assert overlap(one, other) == overlap(other, one) == wanted


def machines(pattern: str) -> Iterator[str]:
    """Yield a pattern for each machine that it is for."""
    for each in data()["machine"]:
        yield pattern.replace("q35-*:", f"{each['name']}:", 1)


@cache
def queue_of(base: str) -> Queue:
    """Return the queue of a base."""
    return load_queue(ROOT / "patches" / base, base)


def fixed() -> Iterator[tuple[Defect, str]]:
    """Yield the defects that a queue fixes, with its base."""
    for defect in defects():
        for base, step in defect.kernels.items():
            queue = queue_of(base)
            label = named_step(queue, step) if step else queue.steps[-1]
            assert label is not None, f"{defect.name}: {base} has no step {step}"
            if label != queue.steps[-1]:
                yield defect, base


def test_what_the_queue_fixes_is_not_known() -> None:
    """No signature of a defect that is fixed is one of the list's."""
    hidden = [
        f"{base}: {defect.name}: {signature} is {pattern}"
        for defect, base in fixed()
        for signature in defect.signatures
        for known in listed(base).known
        for pattern in known.signatures
        if any(overlap(signature, each) for each in machines(pattern))
    ]
    assert hidden == []


def test_there_are_defects_that_are_fixed() -> None:
    """The test above is for some of each base."""
    assert {base for _, base in fixed()} == set(BASES)


def accepted(
    base: str,
    rule: str,
    operations: Sequence[Operation],
    after: State,
    *,
    before: State = GOOD,
    dev: int = 0,
    expect: str = "state.ret == 0",
    splats: tuple[str, ...] = (),
    short: bool = False,
) -> bool:
    """Tell whether a breach is accepted after the last of some operations."""
    history = History(list(operations[:-1]))
    if short:
        history.short = set(range(wire.DEVICES))
    history.note(operations[-1], after)
    find = Find(Breach(rule, "a device", expect, dev), tuple(operations), splats)
    return listed(base).covering(find, Moment(operations[-1], before, after, history)) is not None


ADD, SECOND = Operation("add"), Operation("add", dev=1, b=1)
ATTACH = Operation("attach_group")
#: Device 1 has a direct region, and is beside device 0.
BESIDE: dict[str, Any] = {"flags": JOINED, "hw": DEFAULT, "own": DEFAULT, "regions": 1}
#: The group is in the domain of a user that has not claimed it.
UNCLAIMED = {"domain": USER, "attached": USER, "nr_devs": 2}
IN_USER = {**BESIDE, "hw": USER, "own": USER}


def failing(kind: str, domain: str = "paging", *, every: int = 0) -> Operation:
    """Return an operation in which an attach fails."""
    return Operation(kind, fail_kind=domain, fail_at=1, fail_errno="ENOMEM", fail_every=every)


@pytest.mark.parametrize("base", BASES)
def test_a_device_in_a_group_that_was_attached_without_a_claim(base: str) -> None:
    """One that was there is attached, too; one that joins waits on 7.3."""
    after = changed(GOOD, dev={1: IN_USER}, group={0: UNCLAIMED}, user=(USER, 0, 0))

    def lost(*operations: Operation, state: State = after) -> bool:
        return accepted(base, "regions.lost", operations, state, dev=1)

    assert lost(ADD, SECOND, ATTACH)
    assert lost(ADD, SECOND, ATTACH, Operation("bind"))
    assert lost(ADD, ATTACH, SECOND) == (base == "6.12")
    assert lost(SECOND, ADD, ATTACH, Operation("rescan", dev=1)) == (base == "6.12")
    claimed = changed(after, group={0: {"owner": 1}})
    for operations in ((ADD, SECOND, ATTACH), (ADD, ATTACH, SECOND)):
        assert not lost(*operations, state=claimed)
    # Elsewhere than its group.
    blocked = changed(after, dev={1: {"hw": wire.BLOCKED}})
    assert not lost(ADD, SECOND, ATTACH, state=blocked)
    assert not accepted(base, "regions.passing", (ADD, SECOND, ATTACH), after, dev=1)


@pytest.mark.parametrize("base", BASES)
def test_a_domain_that_is_freed_in_use(base: str) -> None:
    """No driver that has a blocked domain leaves a device in it, whatever the other groups have."""
    left = {"hw": USER, "own": USER}
    gone = {"hw": wire.FREED, "own": wire.FREED}
    free, detach = Operation("free"), failing("detach_group")
    for bare, other, wanted in ((7, 0, False), (0, 7, True)):
        before = changed(GOOD, dev={0: left}, group={0: {"setup": bare}, 1: {"setup": other}})
        after = changed(before, dev={0: gone})

        def freed(*operations: Operation, before: State = before, after: State = after) -> bool:
            return accepted(
                base, "lifetime.freed", operations, after, before=before, dev=-1,
                expect="state.freed_in_use == 0",
            )  # fmt: skip

        assert freed(ADD, detach, free) == wanted
        assert not freed(ADD, Operation("detach_group"), free)
        assert freed(ADD, failing("detach_group", "blocked"), free)
        # The group is in what is freed.
        there = changed(before, group={0: {"domain": USER}})
        assert not freed(ADD, detach, free, before=there)
        # What the attach of one device fails to, while another one is in it.
        again = changed(after, fault_hit=1)
        assert freed(failing("set_type", every=1), after=again) == wanted
        assert not freed(failing("set_type"), after=again)
        assert not freed(Operation("set_type"))
        assert not freed(ADD, detach, Operation("set_type"))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("rule", ["lifetime.attached", "lifetime.believed"])
def test_nothing_that_is_freed_is_attached(base: str, rule: str) -> None:
    """No failure is an excuse for that."""
    after = changed(GOOD, group={0: {"setup": 0}, 1: {"setup": 0}}, fault_hit=1)
    for kind in ("detach_group", "free", "set_type", "release_group"):
        operation = failing(kind, every=1)
        assert not accepted(base, rule, (ADD, operation), after, dev=-1)


@pytest.mark.parametrize("base", BASES)
def test_a_region_that_could_not_be_mapped(base: str) -> None:
    """The core only warns if the device joins others, and keeps it from users all the same."""
    joins = Operation("add", dev=1, b=1, fail_alloc=30)
    met = changed(GOOD, dev={1: BESIDE}, group={0: {"nr_devs": 2}}, alloc_hit=1)
    later = changed(met, alloc_hit=0)

    def lost(*operations: Operation, state: State = later, short: bool = True) -> bool:
        return accepted(base, "regions.lost", operations, state, dev=1, short=short)

    assert lost(ADD, joins, state=met)
    assert lost(ADD, joins, Operation("bind"))
    # The first of its group, and one for which there was memory.
    assert not lost(joins, state=met)
    assert not lost(ADD, SECOND, short=False)
    assert not lost(ADD, SECOND)
    assert not lost(ADD, joins, Operation("bind"), short=False)
    # Its group is claimed: the core does not know of the region.
    owned = {"domain": wire.BLOCKED, "owner": 1, "owner_cnt": 1}
    claimed = changed(later, dev={1: {"hw": wire.BLOCKED}}, group={0: owned})
    assert not lost(ADD, joins, Operation("claim_group"), state=claimed)


def test_a_region_that_is_not_kept_from_iovas() -> None:
    """On 7.3 only a buffer that was there before the device, or want of memory, is a reason."""
    buffer = Operation("dma_map")
    after = changed(GOOD, dev={1: BESIDE}, group={0: {"nr_devs": 2}})
    for rule, dev in (("iova.inside", 0), ("iova.twice", -1)):

        def met(
            *operations: Operation, rule: str = rule, dev: int = dev, short: bool = False
        ) -> bool:
            return accepted("7.3", rule, operations, after, dev=dev, short=short)

        assert met(ADD, buffer, SECOND, buffer)
        assert met(ADD, SECOND, buffer, short=True)
        assert not met(ADD, SECOND, buffer)
        assert not met(SECOND, ADD, buffer, buffer)
        assert not listed("7.3").knows(f"{rule} (beside others) after dma_map")
    assert listed("6.12").knows("iova.inside (beside others) after dma_map")


REFUSED = ("claim_group", "attach_group", "replace_group", "set_type")


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_refusal_has_changed(base: str, kind: str) -> None:
    """A device alone, and only if an attach failed."""
    cuts = {0: {"setup": 15}}
    places = {
        "cut": changed(GOOD, dev={0: {"hw": wire.NONE}}, group=cuts, fault_hit=1),
        "parked": changed(GOOD, dev={0: {"hw": QUARANTINE}}, fault_hit=1),
        "default": changed(GOOD, fault_hit=1),
        "elsewhere": changed(GOOD, dev={0: {"hw": USER}}, user=(USER, 0, 0), fault_hit=1),
    }
    once, every = failing(kind), failing(kind, every=1)
    hw, owner = "state.dev[0].hw == 3", "state.group[0].owner == 0"

    def changes(operation: Operation, place: str, expect: str = hw, **head: Any) -> bool:
        after = places[place]._replace(**head)
        return accepted(base, "refusal.changed", (ADD, operation), after, dev=-1, expect=expect)

    assert changes(once, "cut") == (base == "7.3")
    assert changes(every, "parked")
    assert not changes(once, "parked")
    assert changes(once, "default")
    assert not changes(once, "elsewhere")
    for place in places:
        assert not changes(every, place, owner)
        assert not changes(Operation(kind, fail_alloc=4), place, fault_hit=0, alloc_hit=1)
        assert not changes(Operation(kind), place, fault_hit=0)
    for suffix in ("", " that met a failure"):
        assert not listed(base).knows(f"refusal.changed after {kind}{suffix}")


@pytest.mark.parametrize("base", BASES)
def test_where_an_attach_must_succeed(base: str) -> None:
    """A device that has nothing to go to is in a domain of last resort, and not elsewhere."""
    detach = failing("detach_group")
    region = {"regions": 1, "hw": wire.BLOCKED}
    parked = changed(GOOD, dev={0: region}, fault_hit=1)
    stays = changed(GOOD, dev={0: {"hw": USER}}, user=(USER, 0, 0), fault_hit=1)

    def met(rule: str, after: State, operation: Operation = detach) -> bool:
        return accepted(base, rule, (ADD, operation), after)

    assert met("belief.domain", parked)
    assert not met("belief.domain", stays)
    assert not met("belief.domain", parked._replace(fault_hit=0, alloc_hit=1))
    assert not met("belief.domain", parked, failing("attach_group"))
    # Identity would have been the last resort.
    assert not met("regions.lost", parked)
    assert not met("regions.lost", parked._replace(fault_hit=0, alloc_hit=1))
    assert met("regions.lost", changed(parked, group={0: {"owner_cnt": 1}}))
    assert met("regions.lost", parked, failing("detach_group", "identity"))
    assert not met("isolation.foreign", stays)
    assert met("isolation.foreign", stays, failing("detach_group", "blocked"))
    assert met("isolation.foreign", changed(stays, group={0: {"setup": 5}, 1: {"setup": 7}}))
    for rule in ("belief.domain", "regions.lost"):
        assert not listed(base).knows(f"{rule} after detach_group that met a failure")


@pytest.mark.parametrize("base", BASES)
def test_splats_of_a_driver_that_fails(base: str) -> None:
    """No allocation is an attach."""
    warn = "WARNING: drivers/iommu/iommu.c:157 at {}+0x107/0x140, CPU#0: swapper/0/1"

    def printed(function: str, operation: Operation, **head: Any) -> bool:
        after = changed(GOOD, splats=1, **head)
        return accepted(
            base, "splats.printed", (ADD, operation), after, dev=-1,
            expect="state.splats == 0", splats=(warn.format(function),),
        )  # fmt: skip

    assert printed("iommu_detach_group", failing("detach_group"), fault_hit=1)
    short = Operation("detach_group", fail_alloc=1)
    assert not printed("iommu_detach_group", short, alloc_hit=1)
    assert not printed("iommu_detach_group", Operation("detach_group"))
    back = "__iommu_group_set_domain_internal"
    assert printed(back, failing("claim_group", every=1), fault_hit=1)
    assert not printed(back, failing("claim_group"), fault_hit=1)


@pytest.mark.parametrize("base", BASES)
def test_an_untrusted_device_in_identity(base: str) -> None:
    """It has joined a group that is, and was not put there by a failure."""
    untrusted = {"hw": wire.IDENTITY, "own": wire.IDENTITY, "config": wire.PCI | wire.UNTRUSTED}
    last_resort = changed(GOOD, dev={0: untrusted}, fault_hit=1)
    own = {"domain": wire.IDENTITY, "default_domain": wire.IDENTITY}
    joined = changed(last_resort, group={0: own}, fault_hit=0)
    removed = changed(joined, dev={0: {"flags": wire.USED}})

    def met(operation: Operation, after: State) -> bool:
        return accepted(base, "isolation.untrusted", (ADD, operation), after)

    for kind in ("add", "rescan", "detach_group", "release_group"):
        assert met(Operation(kind), joined)
        assert not met(failing(kind), last_resort)
        assert not listed(base).knows(f"isolation.untrusted after {kind} that met a failure")
    assert not met(Operation("set_type"), joined)
    assert not met(Operation("remove"), removed)


def test_drivers_behind_a_bridge() -> None:
    """What a release does to the others behind it is known on each machine, of both bases."""
    for machine in data()["machine"]:
        for note in ("behind a bridge", "behind a bridge, with a region"):
            for suffix in ("", " that met a failure"):
                signature = f"{machine['name']}: belief.identity ({note}){suffix}"
                assert all(listed(base).knows(signature) for base in BASES)
        assert not listed("7.3").knows(f"{machine['name']}: belief.identity")
        assert listed("6.12").knows(f"{machine['name']}: regions.lost (removed)")
        assert not listed("7.3").knows(f"{machine['name']}: regions.lost (removed)")
