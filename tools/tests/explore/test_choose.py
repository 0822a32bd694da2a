# SPDX-License-Identifier: GPL-2.0-only
"""Numbers become operations that can be carried out in their state."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from iommuq.explore import choose, wire
from iommuq.explore.choose import CODES, TARGETS, decode
from iommuq.explore.operations import Operation, from_json, kinds
from iommuq.explore.wire import State
from simstates import BARE, GOOD, NUMBERS, STATES, changed

MASKS = st.integers(0, (1 << len(TARGETS)) - 1)
_SETTINGS = settings(database=None, derandomize=True, deadline=None, max_examples=200)


def fits(operation: Operation, state: State) -> bool:
    """Tell, by other words than the code's, whether an operation makes sense in a state."""
    fields = kinds()[operation.kind].fields
    device, group = state.devices[operation.dev], state.groups[operation.group]
    used = device.flags & wire.USED
    if operation.kind == "add":
        return not used
    if operation.kind == "setup":
        return all(
            each.group != operation.group for each in state.devices if each.flags & wire.USED
        )
    if operation.kind == "alloc" and state.user[operation.domain]:
        return False
    if operation.kind != "alloc" and "domain" in fields and not state.user[operation.domain]:
        return False
    if operation.kind == "rescan":
        return bool(used) and not device.flags & wire.PRESENT
    if operation.kind in ("unbind", "deferred_attach"):
        return bool(device.flags & wire.BOUND)
    if operation.kind in ("detach_pasid", "replace_pasid"):
        return bool(device.user_pasid0 or device.user_pasid1)
    if operation.kind == "release_group":
        return bool(group.claimed)
    if operation.kind in ("detach_group", "replace_group"):
        return bool(group.attached)
    if "group" in fields:
        return bool(group.exists)
    return "dev" not in fields or bool(device.flags & wire.PRESENT)


@given(NUMBERS, STATES, MASKS)
@_SETTINGS
def test_any_number_in_any_state(code: int, state: State, left_out: int) -> None:
    """What a number becomes is of a kind that is not left out, can be stored, and has a target."""
    operation = decode(code, state, left_out)
    if operation is None:
        return
    assert not left_out >> list(TARGETS).index(operation.kind) & 1
    assert from_json([operation.to_json()], "file") == [operation]
    assert fits(operation, state), operation
    # The packed form has bytes alone.
    assert wire.message([operation])


@given(NUMBERS, STATES)
@_SETTINGS
def test_none_is_for_a_state_without_any_target(code: int, state: State) -> None:
    """A number becomes nothing only where no kind has a target."""
    possible = [name for name in TARGETS if TARGETS[name](state)]
    assert (decode(code, state) is None) == (not possible)


@given(STATES)
@_SETTINGS
def test_zero_is_nothing(state: State) -> None:
    """The simplest number leaves an operation out, in any state."""
    assert decode(0, state) is None


def test_nothing_is_left_if_all_is_left_out() -> None:
    """Without any kind there is no operation."""
    everything = (1 << len(TARGETS)) - 1
    assert all(decode(code, GOOD, everything) is None for code in range(1, CODES, CODES // 97))


def test_each_weight_has_a_number() -> None:
    """All kinds together have no more weight than there are numbers for them."""
    assert set(choose._WEIGHTS) == {*TARGETS, "end"}
    assert sum(choose._WEIGHTS.values()) <= choose._KIND


def test_each_possible_kind_is_chosen_by_its_weight() -> None:
    """In one round of the numbers each kind with a target comes as often as its weight says."""
    possible = [name for name in TARGETS if TARGETS[name](GOOD)]
    total = sum(choose._WEIGHTS[name] for name in possible)
    found = [decode(choose._KIND + number, GOOD) for number in range(total)]
    came = Counter(each.kind for each in found if each is not None)
    assert came == {name: choose._WEIGHTS[name] for name in possible}


def test_the_kinds_are_those_of_the_table() -> None:
    """All kinds but `end` can be chosen, in the order of their numbers."""
    assert list(TARGETS) == [name for name in kinds() if name != "end"]


def test_no_sequence_does_without_devices() -> None:
    """The kinds that are never left out are those that plug devices in."""
    kept = [name for number, name in enumerate(TARGETS) if choose.ALWAYS >> number & 1]
    assert kept == ["add", "rescan"]


def test_every_value_of_a_device_can_come() -> None:
    """All bits of `add` come up, and each kind of failure for an operation that may fail."""
    found = [decode(code, BARE) for code in range(1, CODES, 1009 * 256 + 1)]
    adds = [each for each in found if each is not None and each.kind == "add"]
    for name, bits in (("a", 63), ("b", 31), ("c", 3), ("group", 1)):
        seen = 0
        for each in adds:
            seen |= getattr(each, name)
        assert seen == bits, name
    # The first attach of a group does not fail.
    assert {each.fail_kind for each in adds} == {""}
    state = changed(BARE, group={0: {"exists": 1}, 1: {"exists": 1}})
    found = [decode(code, state) for code in range(1, CODES, 1009 * 256 + 1)]
    adds = [each for each in found if each is not None and each.kind == "add"]
    kinds_of_failure = Counter(each.fail_kind for each in adds)
    assert set(kinds_of_failure) == {"", "identity", "blocked", "paging"}
    assert any(each.fail_alloc for each in adds)
    # Most operations meet none.
    assert kinds_of_failure[""] > len(adds) * 0.75
    assert not any(each.fail_kind and each.fail_alloc for each in adds)


def test_a_removal_fails_in_no_static_domain() -> None:
    """What a released device is attached to cannot fail, so that no such failure is chosen."""
    found = [decode(code, GOOD) for code in range(1, CODES, 499 * 256 + 1)]
    removals = [each for each in found if each is not None and each.kind == "remove"]
    assert {each.fail_kind for each in removals} == {"", "paging"}


def test_a_device_that_is_reset_stays() -> None:
    """No device is removed, bound or unbound during its reset."""
    state = changed(
        GOOD, dev={0: {"flags": GOOD.devices[0].flags | wire.RESETTING, "config": wire.PCI}}
    )
    found = {each.kind for code in range(1, CODES, 997 * 256 + 1) if (each := decode(code, state))}
    assert not {"remove", "bind", "unbind", "reset_prepare"} & found
    assert "reset_done" in found
