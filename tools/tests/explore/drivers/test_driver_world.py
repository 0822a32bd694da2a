# SPDX-License-Identifier: GPL-2.0-only
"""What a machine has, and the answers of a guest, also those that make no sense."""

from __future__ import annotations

import contextlib
import itertools
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iommuq.explore.drivers.world import Seen, State, World, answer, data, kinds, layouts
from iommuq.firmware.scenario import ACTIONS, OTHER, OTHER_SIZE, PAGE
from iommuq.system.errors import UserError

_SETTINGS = settings(database=None, derandomize=True, deadline=None, max_examples=200)
MACHINES = tuple(each["name"] for each in data()["machine"])
WORLDS = [World.open(machine, layout) for machine in MACHINES for layout in layouts()]
WORLD = WORLDS[0]
GOOD = "now 3 " + " ".join(["7,DMA,-,0"] * len(WORLD.devices))


@pytest.mark.parametrize("world", WORLDS, ids=lambda w: f"{w.machine.name}-{w.layout}")
def test_each_machine_with_each_layout(world: World) -> None:
    """Regions are of devices that are there, and do not overlap with each other or OTHER."""
    areas = [(OTHER, OTHER_SIZE), *((each.base, each.size) for each in world.regions)]
    for (one, size), (other, more) in itertools.combinations(areas, 2):
        assert one + size <= other or other + more <= one
    assert world.regions
    for region in world.regions:
        assert set(region.devices) <= set(world.devices)
        assert all(world.region_of(name) == region for name in region.devices)
    assert set(world.oracles) <= set(world.devices)
    assert {len(names) for names in world.shares.values()} == {1, 2}
    for name, names in world.shares.items():
        assert name in names
        assert all(world.shares[each] == names for each in names)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_layout_claims_for_a_device_that_can_tell(machine: str) -> None:
    """In some layout, a device that reaches its region is seen to; else the rule never fires."""
    worlds = [each for each in WORLDS if each.machine.name == machine]
    assert any(each.region_of(name) for each in worlds for name in each.oracles)
    # And there is one that can be claimed by itself.
    assert any(each.region_of("control") is None for each in worlds)


def test_a_blind_device_is_no_oracle() -> None:
    """AMD's emulated IOMMU does not see which of them it was."""
    assert {"first", "second"}.isdisjoint(World.open("q35-amd", "mixed").oracles)
    assert {"first", "second"} <= set(World.open("q35-intel", "mixed").oracles)
    assert "ats" not in WORLD.oracles


@pytest.mark.parametrize("world", WORLDS[:1])
def test_each_device_has_its_own_place(world: World) -> None:
    """No two devices write to one place; the pages of owners are reserved and not OTHER itself."""
    cells = [world.cell(name) for name in world.devices]
    assert len(set(cells)) == len(cells)
    assert all(0 <= cell <= PAGE - 4 and cell % 4 == 0 for cell in cells)
    pages = [world.iova(name) for name in world.devices]
    assert len(set(pages)) == len(pages)
    for page in pages:
        assert page % PAGE == 0
        assert OTHER + PAGE <= page <= OTHER + OTHER_SIZE - PAGE


@pytest.mark.parametrize(
    ("machine", "layout", "what"),
    [
        ("q36", "mixed", "no machine 'q36' to explore"),
        ("uml-x86_64", "mixed", "no machine"),
        ("../q35-intel", "mixed", "no machine"),
        ("q35-intel", "none", "no layout 'none'"),
    ],
)
def test_a_world_that_is_none(machine: str, layout: str, what: str) -> None:
    """The error says in one line what there is."""
    with pytest.raises(UserError, match=what) as caught:
        World.open(machine, layout)
    assert "\n" not in str(caught.value)
    assert ("q35-amd" if "machine" in what else "pairs") in caught.value.hint


def test_each_kind_of_step_is_one_of_a_scenario() -> None:
    """What is explored can be written as a scenario, with the same arguments."""
    for kind in kinds().values():
        assert kind.source
        assert kind.weight > 0 or kind.name == "replug"
        if kind.name not in ("look", "replug"):
            assert ACTIONS[kind.name] == kind.words


# Answers.


def told(*lines: str) -> tuple[str, str]:
    """Return the word and the rest of an answer to line 3."""
    found = answer(WORLD, lines, 3, {})
    return found.word, found.more


def test_an_answer() -> None:
    """The word, what follows it, and the states in the order of the devices."""
    rest = " ".join(["12,DMA,-,0"] * (len(WORLD.devices) - 3))
    line = f"now 3 x,-,-,1 -,-,virtio-pci,0 999999,DMA-FQ,vfio-pci,1 {rest}"
    found = answer(WORLD, ["round: 3 of 4", "step 3 EBUSY the group's file", line], 3, {})
    assert (found.word, found.more) == ("EBUSY", "the group's file")
    assert tuple(found.devices) == WORLD.devices
    states = list(found.devices.values())
    assert states[:4] == [
        Seen(False, None, "-", "-", True),
        Seen(True, None, "-", "virtio-pci", False),
        Seen(True, 999999, "DMA-FQ", "vfio-pci", True),
        Seen(True, 12, "DMA", "-", False),
    ]


def test_a_step_that_changes_no_device() -> None:
    """The devices are as before it; unless nothing is known of them."""
    before = answer(WORLD, ["step 3 ok", GOOD], 3, {}).devices
    found = answer(WORLD, ["step 4 RB", "now 4 ="], 4, before)
    assert (found.word, found.devices) == ("RB", before)
    with pytest.raises(ValueError, match="now 4 ="):
        answer(WORLD, ["step 4 RB", "now 4 ="], 4, {})


def test_an_answer_without_more() -> None:
    """A word alone is an answer."""
    assert told("step 3 ok", GOOD) == ("ok", "")


@pytest.mark.parametrize(
    "lines",
    [
        [GOOD],
        ["step 2 ok", GOOD],
        ["step 03 ok", GOOD],
        ["step 3", GOOD],
        ["step 3 ", GOOD],
        ["step 3 \x1b[31m", GOOD],
        ['step 3 "', GOOD],
        ["step 3 " + "x" * 65, GOOD],
        ["step 3 ok", "step 3 ok", GOOD],
        ["steps 1", "step 3 ok", GOOD],
        ["", "step 3 ok", GOOD],
        ["step 3 ok", GOOD.replace("now 3", "now 4")],
        ["step 3 ok", GOOD.replace("now 3", "now")],
        ["step 3 ok", GOOD + " 7,DMA,-,0"],
        ["step 3 ok", GOOD + " "],
        ["step 3 ok", GOOD.rpartition(" ")[0]],
        ["step 3 ok", GOOD.replace("7,", "y,", 1)],
        ["step 3 ok", GOOD.replace("7,", "-1,", 1)],
        ["step 3 ok", GOOD.replace("7,", "1234567,", 1)],
        ["step 3 ok", GOOD.replace("7,", "٣,", 1)],
        ["step 3 ok", GOOD.replace(",0", ",2", 1)],
        ["step 3 ok", GOOD.replace("DMA", "", 1)],
        ["step 3 ok", GOOD.replace("DMA", "D" * 21, 1)],
        ["step 3 ok"],
    ],
)
def test_a_malformed_answer(lines: list[str]) -> None:
    """It is a `ValueError` that names what is wrong, in few characters."""
    with pytest.raises(ValueError, match=r"^") as caught:
        answer(WORLD, lines, 3, {})
    assert len(str(caught.value)) <= 80


_PIECES = st.lists(
    st.one_of(
        st.sampled_from(["step 3 ok", "step 3", "step", "now 3", "now", GOOD, "round: 1", ""]),
        st.text(max_size=40),
        st.builds("step 3 {}".format, st.text(max_size=12)),
        st.builds(
            lambda states: " ".join(["now 3", *states]),
            st.lists(
                st.sampled_from(["x,-,-,0", "-,-,-,1", "5,DMA,a,0", "5,,,", "é"]),
                min_size=len(WORLD.devices) - 1,
                max_size=len(WORLD.devices) + 1,
            ),
        ),
    ),
    min_size=1,
    max_size=4,
)


@_SETTINGS
@given(_PIECES)
@example(["step 3 ok", GOOD])
def test_any_answer_is_parsed_or_refused(lines: list[str]) -> None:
    """Nothing but a `ValueError` is raised, and what is taken is whole and printable."""
    with contextlib.suppress(ValueError):
        found = answer(WORLD, lines, 3, {})
        assert tuple(found.devices) == WORLD.devices
        assert re.fullmatch(r"[\w.:+-]+", found.word, re.ASCII)
        for each in found.devices.values():
            assert each.group is None or (each.present and each.group >= 0)
            assert re.fullmatch(r"[\w-]{1,20}", each.driver, re.ASCII)


# States.


def test_a_group_and_its_owner() -> None:
    """Devices are in one group if they have one; an owner owns all of it."""
    seen = dict.fromkeys(WORLD.devices, Seen(group=1))
    seen["first"], seen["second"] = Seen(group=2, claimed=True), Seen(group=2)
    seen["marked"] = seen["control"] = Seen(group=None)
    state = State(seen)
    assert state.group("second") == ["first", "second"]
    assert state.group("marked") == []
    assert state.owned("second")
    assert not state.owned("marked")
    assert not state.owned("ats")


def test_the_shape_of_a_state() -> None:
    """Other numbers of groups are the same shape; another member, type or driver is not."""
    first = State({"a": Seen(group=1, type="DMA"), "b": Seen(group=1, type="DMA")})
    same = State({"a": Seen(group=4, type="DMA"), "b": Seen(group=4, type="DMA")})
    assert first.shape() == same.shape()
    for other in (
        Seen(group=2, type="DMA"),
        Seen(group=1, type="identity"),
        Seen(group=1, type="DMA", driver="x"),
        Seen(group=None, type="DMA"),
        Seen(present=False),
    ):
        assert State({**first.seen, "b": other}).shape() != first.shape()
