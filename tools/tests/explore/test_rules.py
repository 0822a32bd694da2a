# SPDX-License-Identifier: GPL-2.0-only
"""Each rule: a moment that breaks it and no other one, and one that nearly does."""

from __future__ import annotations

import re

import pytest

import simheader
from iommuq.explore import wire
from iommuq.explore.finds import Find, load
from iommuq.explore.operations import Operation
from iommuq.explore.rules import all_rules, choose
from iommuq.explore.rules.model import Breach, History, Moment
from iommuq.system.errors import UserError
from simstates import BARE, DEFAULT, GOOD, JOINED, PLUGGED, changed, moment

BOUND = JOINED | wire.BOUND
BUSY, NOMEM, INVAL = -16, -12, -22
TYPE = Operation("set_type")
ADD_1 = Operation("add", dev=1)
#: A device with a direct region that it reaches.
REGION = changed(GOOD, dev={0: {"regions": 1, "reach": 1}})
#: A device whose driver has a buffer.
BUFFER = changed(
    GOOD, dev={0: {"flags": BOUND, "bufs": 1, "bufs_ok": 1}}, group={0: {"owner_cnt": 1}}
)
#: A user of group 0 has attached domain 5, and has it no more.
ATTACHED = changed(GOOD, dev={0: {"hw": 5, "own": 5}}, group={0: {"domain": 5, "attached": 5}})


def failing(kind: str, error: str) -> Operation:
    """Return an operation whose first attach to a paging domain fails."""
    return Operation(kind, fail_kind="paging", fail_at=1, fail_errno=error)


def unplugged(**fields: int) -> wire.State:
    """Return the state after device 0 was removed."""
    return changed(BARE, dev={0: {"flags": wire.USED, **fields}})


def ungrouped(**fields: int) -> wire.State:
    """Return the state with device 0 refused by its group."""
    return changed(GOOD, dev={0: {"flags": PLUGGED, "hw": 0, "own": 0, **fields}})


def device(*, group: dict[str, int] | None = None, **fields: int) -> wire.State:
    """Return a good state with another device 0."""
    return changed(GOOD, dev={0: fields}, group={0: group or {}})


def identity(*, group: dict[str, int] | None = None, **fields: int) -> wire.State:
    """Return a good state with device 0 in identity."""
    return device(hw=1, own=1, group={"domain": 1, **(group or {})}, **fields)


def joined(flags: int, at: int, **first: int) -> wire.State:
    """Return a good state with device 1 plugged in."""
    return changed(GOOD, dev={0: first, 1: {"flags": flags, "hw": at, "own": at}})


#: Rule -> a moment that breaks it alone, and one that breaks none.
PAIRS: dict[str, tuple[Moment, Moment]] = {
    "regions.lost": (
        moment(TYPE, device(regions=1), REGION),
        # Blocked on purpose.
        moment(TYPE, device(regions=1, flags=JOINED | wire.RESETTING), REGION),
    ),
    "regions.astray": (
        moment(TYPE, device(regions=1, astray=1), REGION),
        # Nothing is programmed for it yet.
        moment(TYPE, device(regions=1, astray=1, flags=JOINED | wire.DEFERRED), REGION),
    ),
    "regions.refused": (
        moment(TYPE, ungrouped(regions=1), REGION),
        # The core does not know it, for want of memory.
        moment(Operation("add", fail_alloc=1), changed(ungrouped(regions=1), alloc_hit=1), BARE),
    ),
    "regions.passing": (
        moment(TYPE, device(regions=1, reach=1, lost=1), REGION),
        moment(
            Operation("unbind"), changed(device(regions=1, reach=1, lost=1), fault_hit=1), REGION
        ),
    ),
    "regions.released": (
        moment(Operation("remove"), unplugged(regions=1, own=2, hw=2), REGION),
        # All memory would be open to it.
        moment(
            Operation("remove"),
            unplugged(regions=1, config=wire.UNTRUSTED),
            changed(REGION, dev={0: {"config": wire.UNTRUSTED}}),
        ),
    ),
    "lifetime.freed": (
        moment(TYPE, changed(GOOD, freed_in_use=1)),
        moment(TYPE, changed(GOOD, live_domains=1)),
    ),
    "lifetime.attached": (
        moment(TYPE, changed(GOOD, freed_attached=1)),
        moment(TYPE, changed(GOOD, live_domains=9)),
    ),
    "lifetime.believed": (
        moment(TYPE, device(group={"blocking_domain": wire.FREED})),
        moment(TYPE, device(group={"blocking_domain": wire.FREED - 1})),
    ),
    "isolation.foreign": (
        moment(TYPE, changed(ATTACHED, group={0: {"attached": 0}}, user=(0, 5, 0))),
        moment(TYPE, changed(ATTACHED, user=(0, 5, 0))),
    ),
    "isolation.untrusted": (
        moment(TYPE, identity(config=wire.UNTRUSTED)),
        # Others have the same requester ID.
        moment(Operation("remove"), unplugged(config=wire.UNTRUSTED, hw=1, own=0)),
    ),
    "isolation.owned": (
        moment(TYPE, identity(group={"owner": 1, "owner_cnt": 1, "claimed": 1})),
        moment(TYPE, identity()),
    ),
    "isolation.in_flight": (
        moment(TYPE, identity(flags=BOUND | wire.DMA_IOMMU, group={"owner_cnt": 1})),
        moment(
            TYPE,
            identity(
                flags=BOUND | wire.DMA_IOMMU, group={"owner_cnt": 1, "default_domain": 1}
            ),
        ),
    ),
    "isolation.shared": (
        moment(TYPE, ungrouped(config=wire.BEHIND, hw=1, own=2)),
        moment(TYPE, ungrouped(config=wire.BEHIND, hw=1, own=1)),
    ),
    "isolation.lazy": (
        moment(TYPE, device(config=wire.UNTRUSTED, group={"default_type": wire.DMA_FQ})),
        moment(TYPE, device(group={"default_type": wire.DMA_FQ})),
    ),
    "belief.domain": (
        moment(TYPE, device(hw=4, own=4)),
        # Both reach nothing.
        moment(TYPE, device(hw=0, own=0, group={"domain": wire.BLOCKED})),
    ),
    "belief.pasid": (
        moment(TYPE, changed(device(user_pasid1=5), user=(5, 0, 0))),
        moment(
            TYPE,
            changed(device(user_pasid1=5, flags=JOINED | wire.RESETTING), user=(5, 0, 0)),
        ),
    ),
    "belief.pasid_left": (
        moment(TYPE, device(pasid1=5)),
        # The user of another device of the group.
        moment(
            TYPE,
            changed(
                GOOD,
                dev={
                    0: {"pasid1": 5},
                    1: {
                        "flags": JOINED, "hw": DEFAULT, "own": DEFAULT,
                        "pasid1": 5, "user_pasid1": 5,
                    },
                },
            ),
        ),
    ),
    "belief.group": (
        moment(TYPE, changed(GOOD, group={0: {"nr_devs": 7}})),
        moment(TYPE, GOOD),
    ),
    "belief.old": (
        moment(TYPE, changed(GOOD, wrong_old=1)),
        moment(TYPE, GOOD),
    ),
    "belief.ungrouped": (
        moment(TYPE, ungrouped(hw=4, own=wire.PAGING)),
        moment(TYPE, ungrouped(hw=2, own=wire.BLOCKED)),
    ),
    "refusal.changed": (
        moment(TYPE, changed(device(group={"default_type": 4}), ret=BUSY)),
        # Allocated once, and kept.
        moment(TYPE, changed(device(group={"blocking_domain": 2}), ret=BUSY)),
    ),
    "refusal.touched": (
        moment(TYPE, changed(REGION, dev={0: {"attaches": 1}}, ret=BUSY), REGION),
        moment(TYPE, changed(REGION, dev={0: {"attaches": 1}}, ret=0), REGION),
    ),
    "refusal.joined": (
        moment(
            ADD_1, changed(joined(PLUGGED, 0, hw=4, own=4), group={0: {"domain": 4}})
        ),
        moment(
            ADD_1, changed(joined(JOINED, 4, hw=4, own=4), group={0: {"domain": 4}})
        ),
    ),
    "nofail.failed": (
        moment(
            failing("unbind", "ENOMEM"), changed(GOOD, ret=NOMEM, fault_hit=1)
        ),
        moment(failing("unbind", "ENOMEM"), changed(GOOD, fault_hit=1)),
    ),
    "nofail.stayed": (
        moment(
            Operation("detach_group"), changed(ATTACHED, group={0: {"attached": 0}}), ATTACHED
        ),
        # Another group is attached to it by the same user.
        moment(
            Operation("detach_group"),
            changed(ATTACHED, group={0: {"attached": 0}, 1: {"attached": 5}}),
            ATTACHED,
        ),
    ),
    "ownership.exclusive": (
        moment(TYPE, device(flags=BOUND, group={"owner": 1, "owner_cnt": 1})),
        moment(TYPE, device(flags=BOUND, group={"owner_cnt": 1})),
    ),
    "ownership.counted": (
        moment(TYPE, device(group={"owner_cnt": 1})),
        moment(TYPE, device(config=wire.CLAIMED, group={"owner_cnt": 1})),
    ),
    "iova.inside": (
        moment(Operation("dma_map"), changed(BUFFER, dev={0: {"bufs_bad": 1}}), BUFFER),
        moment(
            Operation("dma_map"),
            changed(BUFFER, dev={0: {"bufs_bad": 1}}),
            changed(BUFFER, dev={0: {"bufs_bad": 1}}),
        ),
    ),
    "iova.joined": (
        moment(ADD_1, changed(BUFFER, dev={0: {"bufs_bad": 1}}), BUFFER),
        moment(Operation("unbind", dev=1), changed(BUFFER, dev={0: {"bufs_bad": 1}}), BUFFER),
    ),
    "iova.twice": (
        moment(TYPE, changed(GOOD, map_twice=1)),
        moment(TYPE, changed(GOOD, live_domains=2)),
    ),
    "iova.reached": (
        moment(
            Operation("dma_map"), changed(BUFFER, dev={0: {"bufs_ok": 0}}), GOOD
        ),
        moment(
            Operation("dma_map"),
            changed(BUFFER, dev={0: {"bufs_ok": 0}}, ret=-12),
            changed(BUFFER, dev={0: {"bufs": 0, "bufs_ok": 0}}),
        ),
    ),
    "iova.lost": (
        moment(TYPE, changed(BUFFER, dev={0: {"bufs_ok": 0}}), BUFFER),
        moment(TYPE, changed(BUFFER, dev={0: {"bufs_ok": 0}}, alloc_hit=1), BUFFER),
    ),
    "errnos.documented": (
        moment(Operation("bind"), changed(GOOD, ret=INVAL)),
        moment(Operation("bind"), changed(GOOD, ret=BUSY)),
    ),
    "errnos.dropped": (
        moment(
            failing("attach_group", "EINVAL"), changed(GOOD, fault_hit=1)
        ),
        moment(Operation("unbind"), changed(GOOD, fault_hit=1)),
    ),
    "splats.printed": (
        moment(TYPE, changed(GOOD, splats=1)),
        moment(TYPE, changed(GOOD, blocks=1)),
    ),
    "splats.left": (
        moment(Operation("end"), changed(BARE, leaks=5)),
        moment(Operation("end"), changed(BARE, live_domains=5)),
    ),
}  # fmt: skip


def test_history_of_memory() -> None:
    """A device is short of memory from a failure beside it until it is plugged in again."""
    history = History()
    history.note(Operation("add"), GOOD)
    assert history.short == set()
    history.note(TYPE, changed(GOOD, alloc_hit=1))
    assert history.short == {0}
    history.note(Operation("bind"), GOOD)
    assert history.short == {0}
    history.note(Operation("rescan"), GOOD)
    assert history.short == set()
    # One that no group took in has nothing to be short of.
    history.note(Operation("add", fail_alloc=1), changed(ungrouped(), alloc_hit=1))
    assert (history.short, history.failed) == (set(), {0})


def test_history_of_what_was_kept_out() -> None:
    """A device is refused by a failure, as long as there is the group that it could not join."""
    history = History()
    history.note(Operation("add", fail_kind="paging"), changed(ungrouped(), fault_hit=1))
    assert history.refused == {0}
    gone = changed(GOOD, dev={0: {"flags": wire.USED}})
    history.note(Operation("remove"), gone)
    assert history.refused == {0}
    history.note(Operation("remove", dev=1), BARE)
    assert history.refused == set()
    # Later it joins.
    history.note(Operation("add", fail_kind="paging"), changed(ungrouped(), fault_hit=1))
    history.note(Operation("rescan"), GOOD)
    assert history.refused == set()
    # What joins, and what is refused without a failure.
    history.note(Operation("add", fail_kind="paging"), changed(GOOD, fault_hit=1))
    history.note(Operation("add"), ungrouped())
    assert history.refused == set()


def waiting(own: int, hw: int) -> list[str]:
    """Return what rule belief.domain says of a device that joins a claimed group."""
    claimed = {"owner": 1, "claimed": 1, "domain": wire.BLOCKED, "blocking_domain": wire.BLOCKED}
    state = changed(
        GOOD,
        dev={
            0: {"hw": wire.BLOCKED, "own": wire.BLOCKED},
            1: {"flags": JOINED, "regions": 1, "own": own, "hw": hw},
        },
        group={0: claimed},
    )
    history = History()
    history.note(ADD_1, state)
    at = Moment(ADD_1, GOOD, state, history)
    (rule,) = (rule for rule in all_rules() if rule.name == "belief.domain")
    return [each.rule for each in rule.check(at)]


def test_a_device_that_waits() -> None:
    """It is attached to nothing, or to a paging domain that no one else has."""
    assert waiting(wire.NONE, wire.BLOCKED) == []
    assert waiting(wire.PAGING + 7, wire.PAGING + 7) == []
    for other in (DEFAULT, wire.IDENTITY, wire.FREED):
        assert waiting(other, other) == ["belief.domain"]


def breaches(at: Moment) -> list[Breach]:
    """Return what does not hold at a moment."""
    return [breach for rule in all_rules() for breach in rule.check(at)]


def test_each_rule_has_a_pair() -> None:
    """A rule that is added needs a moment that breaks it, and one that does not."""
    assert set(PAIRS) == {rule.name for rule in all_rules()}


@pytest.mark.parametrize("name", PAIRS)
def test_a_rule_is_broken_alone_and_nearly(name: str) -> None:
    """One moment breaks the rule and no other one; its neighbour breaks none."""
    broken, near = PAIRS[name]
    # Most moments show one device; its group is not in the domain of anyone.
    apart = {"belief.group"} - {name}
    assert {breach.rule for breach in breaches(broken)} - apart == {name}
    assert {breach.rule for breach in breaches(near)} <= apart


@pytest.mark.parametrize("name", PAIRS)
def test_what_a_rule_expects_is_false_when_it_is_broken(name: str) -> None:
    """The expression in C is false in the state of each breach, and has fields of the header."""
    broken, _ = PAIRS[name]
    for breach in breaches(broken):
        assert not simheader.holds(breach.expect, broken.after), breach.expect
        _check_fields(breach.expect)


def _check_fields(expect: str) -> None:
    structs = {
        "": "iommu_sim_state", "dev": "iommu_sim_dev_state", "group": "iommu_sim_group_state",
    }  # fmt: skip
    named = re.findall(r"state\.(?:(dev|group)\[(\d+)\]\.)?(\w+)", expect)
    assert named, expect
    for array, _, field in named:
        assert field in simheader.members(structs[array]), expect
    for name in re.findall(r"\bSIM_\w+", expect):
        assert name in simheader.constants(), expect


@pytest.mark.parametrize("name", PAIRS)
def test_a_breach_goes_into_a_file_and_back(name: str) -> None:
    """What a rule says can be printed, and is what a file may hold."""
    broken, _ = PAIRS[name]
    for breach in breaches(broken):
        find = Find(breach, (broken.operation,), ("WARNING: x",), base="7.3", step="a/0001")
        assert load(find.to_json(), "file").to_json() == find.to_json()
        assert find.lines()[0] == f"FAIL: {breach.text}"


@pytest.mark.parametrize("field", ["domain", "default_domain", "blocking_domain"])
def test_each_pointer_of_a_group_is_expected_by_its_name(field: str) -> None:
    """The case that is written fails for the pointer that is stale, not for another one."""
    at = moment(TYPE, device(group={field: wire.FREED}))
    (stale,) = [each for each in breaches(at) if each.rule == "lifetime.believed"]
    assert f".{field} " in stale.expect
    assert not simheader.holds(stale.expect, at.after)


def test_identity_by_a_shared_id_is_expected_of_what_translates() -> None:
    """An untrusted device that got identity from another: the expression looks at `hw`."""
    at = moment(TYPE, ungrouped(config=wire.UNTRUSTED | wire.BEHIND, hw=1, own=2))
    found = [each for each in breaches(at) if each.rule == "isolation.untrusted"]
    assert len(found) == 1
    assert not simheader.holds(found[0].expect, at.after)


def test_a_removed_untrusted_device_is_judged_by_its_own_id() -> None:
    """What is left programmed for a removed device that is untrusted is a breach."""
    at = moment(Operation("remove"), unplugged(config=wire.UNTRUSTED, hw=0, own=1))
    (found,) = breaches(at)
    assert (found.rule, "was removed" in found.text) == ("isolation.untrusted", True)
    assert not simheader.holds(found.expect, at.after)


def test_the_error_of_95_is_the_documented_one() -> None:
    """EOPNOTSUPP, which Python calls ENOTSUP, is documented for PASIDs; elsewhere it is named."""
    assert breaches(moment(Operation("attach_pasid"), changed(GOOD, ret=-95))) == []
    (found,) = breaches(moment(Operation("bind"), changed(GOOD, ret=-95)))
    assert found.expect == "state.ret != -EOPNOTSUPP"


def test_an_errno_without_a_name_is_a_number() -> None:
    """ENOTSUPP is of the kernel alone, and is told by its number."""
    (found,) = breaches(moment(Operation("bind"), changed(GOOD, ret=-524)))
    assert found.expect == "state.ret != -524"


def test_an_injected_error_is_not_undocumented() -> None:
    """What a failed attach returns is passed on; another error is not excused by it."""
    operation = failing("bind", "ENODEV")
    assert breaches(moment(operation, changed(GOOD, ret=-19, fault_hit=1))) == []
    found = breaches(moment(operation, changed(GOOD, ret=INVAL, fault_hit=1)))
    assert [each.rule for each in found] == ["errnos.documented"]


def test_a_refusal_may_not_move_a_device() -> None:
    """A device in another domain after a refusal is a breach; the one that joins is not."""
    before = joined(PLUGGED, 0)
    moved = changed(before, dev={0: {"hw": 4}}, ret=BUSY)
    found = {each.text for each in breaches(moment(TYPE, moved, before))}
    assert "device 0 is in another domain after what was refused" in found
    own = changed(before, dev={1: {"hw": 2}}, ret=NOMEM, alloc_hit=1)
    assert breaches(moment(ADD_1, own, before)) == []


def test_a_deferred_attach_is_judged_from_its_first_attach() -> None:
    """A device with a deferred attach must reach its regions once it was attached."""
    after = device(regions=1, config=wire.DEFERS, attaches=1)
    assert {each.rule for each in breaches(moment(TYPE, after, REGION))} == {"regions.lost"}


def test_a_rule_or_a_group_can_be_left_out() -> None:
    """`choose` leaves out what is named, and no more."""
    names = {rule.name for rule in all_rules()}
    assert {rule.name for rule in choose(["regions.lost"])} == names - {"regions.lost"}
    left = {rule.name for rule in choose(["regions", "splats.left"])}
    assert names - left == {n for n in names if n.startswith("regions.")} | {"splats.left"}


@pytest.mark.parametrize("name", ["", "regions.", "region", "regions.lost ", "*"])
def test_a_rule_that_is_none(name: str) -> None:
    """A name that is of no rule and no group is an error that lists them."""
    with pytest.raises(UserError, match=r"no rule .*regions\.lost"):
        choose([name])
