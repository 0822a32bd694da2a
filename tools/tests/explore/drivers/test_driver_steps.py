# SPDX-License-Identifier: GPL-2.0-only
"""Steps on a machine: which can be chosen, how they are asked for, stored and left out."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakedriver import booted, states
from iommuq.explore.drivers import steps
from iommuq.explore.drivers.steps import VFIO, Step, choose, fits, from_json, line, possible
from iommuq.explore.drivers.world import Seen, State, World, data, kinds
from iommuq.system.errors import UserError

_SETTINGS = settings(database=None, derandomize=True, deadline=None, max_examples=300)
WORLD = World.open("q35-intel", "mixed")
CODE = st.integers(0, steps.CODES - 1)
MAP = Step("map", ("control", "0x3d002000", "0x1000"))
CLAIM = Step("claim", ("cdev", "control"))


def _seen() -> st.SearchStrategy[Seen]:
    return st.one_of(
        st.builds(Seen, st.just(False), st.none(), st.just("-"), st.just("-"), st.booleans()),
        st.builds(
            Seen,
            st.just(True),
            st.sampled_from([None, 1, 2]),
            st.sampled_from(["DMA", "identity"]),
            st.sampled_from(["-", VFIO, "virtio-pci"]),
            st.booleans(),
        ),
    )


STATES = st.builds(
    State,
    st.fixed_dictionaries({name: _seen() for name in WORLD.devices}),
    st.sets(st.sampled_from(WORLD.devices)),
)


@_SETTINGS
@given(STATES, CODE, st.integers(0, (1 << 11) - 1))
def test_what_is_chosen_is_possible_and_can_be_stored(
    state: State, code: int, left_out: int
) -> None:
    """Each number in each state gives no step, or one that a file may have and a guest reads."""
    step = choose(WORLD, state, code, left_out)
    allowed = {name for n, name in enumerate(kinds()) if not left_out >> n & 1}
    if step is None:
        assert not any(
            places and name in allowed and kinds()[name].weight
            for name, places in possible(WORLD, state).items()
        )
        return
    assert step.kind in allowed
    assert step.kind != "replug"
    assert fits(WORLD, state, step)
    stored = json.loads(json.dumps(step.to_json()))
    assert list(from_json([stored], WORLD, "x")) == [step]
    assert step.kind == "look" or "\n" not in line(WORLD, step)
    assert bool(step.function) == bool(step.nth)
    assert not step.function or kinds()[step.kind].fails


@pytest.mark.parametrize(
    ("seen", "kind", "good"),
    [
        (Seen(group=1), "remove", True),
        (Seen(group=1, driver=VFIO, claimed=True), "remove", False),
        (Seen(present=False), "remove", False),
        (Seen(group=1), "bind", True),
        (Seen(group=1, driver="x"), "bind", False),
        (Seen(group=1, driver=VFIO), "unbind", True),
        (Seen(group=1, driver=VFIO, claimed=True), "unbind", False),
        (Seen(group=1), "claim", False),
        (Seen(group=1, driver=VFIO), "claim", True),
        (Seen(group=1, driver=VFIO, claimed=True), "claim", False),
        (Seen(group=1, driver=VFIO, claimed=True), "map", True),
        (Seen(group=1, driver=VFIO), "map", False),
        (Seen(group=1, driver=VFIO, claimed=True), "release", True),
        (Seen(group=1, driver=VFIO), "release", False),
        (Seen(group=1, driver=VFIO, claimed=True), "reset", False),
        (Seen(group=None), "set-type", False),
        (Seen(group=1), "rescan", False),
        (Seen(present=False), "rescan", True),
        (Seen(group=1, driver=VFIO, claimed=True), "replug", False),
        (Seen(present=False), "replug", True),
        (Seen(present=False), "look", True),
    ],
)
def test_what_is_possible(seen: Seen, kind: str, *, good: bool) -> None:
    """Nothing waits for a user, who is the same program; and nothing asks in vain."""
    state = State(states(WORLD, {"control": seen}))
    words = {
        "device": "control",
        "driver": VFIO,
        "interface": "group",
        "type": "DMA",
        "address": "0x1000",
        "size": "0x1000",
    }
    assert fits(WORLD, state, Step(kind, tuple(words[w] for w in kinds()[kind].words))) == good


def test_a_page_is_mapped_once() -> None:
    """A device whose owner has mapped its page is not asked again."""
    state = State(states(WORLD, {"control": Seen(group=1, driver=VFIO, claimed=True)}))
    assert fits(WORLD, state, MAP)
    assert not fits(WORLD, replace(state, mapped={"control"}), MAP)


def test_all_kinds_interfaces_types_and_failures_are_chosen() -> None:
    """Numbers in steps of a prime meet each of them."""
    seen = booted(WORLD)
    seen["control"] = Seen(group=99, driver=VFIO)
    seen["first"] = Seen(group=98, driver=VFIO, claimed=True)
    seen["ats"] = Seen(present=False)
    state = State(seen)
    found = {choose(WORLD, state, n * 104729 % steps.CODES, 0) for n in range(40_000)}
    met = {each for each in found if each is not None}
    assert {each.kind for each in met} == set(kinds()) - {"replug"}
    assert {each.words[0] for each in met if each.kind == "claim"} == {"group", "cdev"}
    assert {each.words[1] for each in met if each.kind == "set-type"} == {
        "identity",
        "DMA",
        "DMA-FQ",
    }
    faults = data()["faults"]
    assert {each.function for each in met} == {"", faults["absent"], *faults["functions"]}
    assert {each.nth for each in met} == set(range(faults["nth"] + 1))


def test_no_kind_is_left_to_choose() -> None:
    """With all kinds left out there is no step."""
    assert choose(WORLD, State(booted(WORLD)), 5, (1 << len(kinds())) - 1) is None


# Lines.


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (Step("remove", ("first",)), "remove\t0000:01:01.0"),
        (Step("rescan"), "rescan"),
        (Step("bind", ("ats", VFIO)), f"bind\t0000:02:00.0\t{VFIO}"),
        (CLAIM, "claim\tcdev\t0000:00:06.0"),
        (MAP, "map\t0000:00:06.0\t3d002000\t1000"),
        (Step("set-type", ("function1", "DMA-FQ")), "set-type\t0000:00:0a.1\tDMA-FQ"),
    ],
)
def test_a_line(step: Step, text: str) -> None:
    """Names become addresses, numbers lose their prefix: what steps.c reads."""
    assert line(WORLD, step) == text


def test_a_listing() -> None:
    """Steps are numbered, and a failure is told."""
    assert steps.listing([Step("rescan", (), "iommu_probe_device", 3), CLAIM]) == [
        "  1. rescan, allocation 3 of iommu_probe_device fails",
        "  2. claim cdev control",
    ]


def test_the_device_of_a_step() -> None:
    """It is the word that `drivers.toml` says; a rescan has none."""
    assert [each.device for each in (CLAIM, MAP, Step("rescan"))] == ["control", "control", ""]


# Files.


GOOD: dict[str, Any] = CLAIM.to_json()


@pytest.mark.parametrize(
    "bad",
    [
        None,
        "x",
        {},
        7,
        [[]],
        ["claim"],
        [{**GOOD, "kind": "fail"}],
        [{**GOOD, "kind": []}],
        [{**GOOD, "kind": {}}],
        [{**GOOD, "kind": None}],
        [{**GOOD, "words": "group control"}],
        [{**GOOD, "words": ["group"]}],
        [{**GOOD, "words": ["group", "control", "x"]}],
        [{**GOOD, "words": ["group", "bridge"]}],
        [{**GOOD, "words": ["group", ["control"]]}],
        [{**GOOD, "words": ["group", "control\n"]}],
        [{**GOOD, "words": ["group", "control\tx"]}],
        [{**GOOD, "words": ["vfio", "control"]}],
        [{**GOOD, "function": "panic", "nth": 1}],
        [{**GOOD, "function": [], "nth": 1}],
        [{**GOOD, "function": "iommu_probe_device"}],
        [{**GOOD, "function": "iommu_probe_device", "nth": 0}],
        [{**GOOD, "function": "iommu_probe_device", "nth": 7}],
        [{**GOOD, "function": "iommu_probe_device", "nth": True}],
        [{**GOOD, "function": "iommu_probe_device", "nth": 1.0}],
        [{**GOOD, "nth": 1}],
        [{"kind": "remove", "words": ["control"], "function": "iommu_probe_device", "nth": 1}],
        [{"kind": "bind", "words": ["control", "xhci_hcd"]}],
        [{"kind": "set-type", "words": ["control", "blocked"]}],
        [{"kind": "map", "words": ["control", "3d002000", "0x1000"]}],
        [{"kind": "map", "words": ["control", "0x3D002000", "0x1000"]}],
        [{"kind": "map", "words": ["control", "0x1", "0x" + "1" * 17]}],
        [GOOD] * (steps.MOST + 1),
    ],
)
def test_a_file_that_makes_no_sense(bad: Any) -> None:
    """Each is one line that names the file."""
    with pytest.raises(UserError, match=r"^file: ") as caught:
        list(from_json(bad, WORLD, "file"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@_SETTINGS
@given(
    st.lists(
        _JSON
        | st.builds(
            lambda k, v: {**GOOD, k: v},
            st.sampled_from(["kind", "words", "function", "nth", "x"]),
            _JSON,
        ),
        max_size=3,
    )
)
def test_any_file_is_taken_or_refused(found: list[Any]) -> None:
    """Nothing but a `UserError` is raised."""
    try:
        taken = list(from_json(found, WORLD, "file"))
    except UserError:
        return
    assert all(isinstance(each, Step) for each in taken)


# Simpler sequences.


def test_simpler_sequences_are_smaller() -> None:
    """Each has fewer steps, or a failure less; all single steps are left out once."""
    found = [
        Step("replug"),
        Step("bind", ("control", VFIO)),
        replace(CLAIM, function="iommu_group_claim_dma_owner", nth=2),
        MAP,
        Step("remove", ("ats",)),
        Step("look"),
    ]
    simpler = [tuple(each) for each in steps.simpler(found)]
    assert all(steps.size(each) < steps.size(found) for each in simpler)
    for number in range(len(found)):
        assert (*found[:number], *found[number + 1 :]) in simpler
    assert (*found[:2], CLAIM, *found[3:]) in simpler
    # All of a device.
    assert (found[0], found[4], found[5]) in simpler
    # Many at first.
    assert len(simpler[0]) <= 4


def test_only_the_last_try_leaves_the_replug_out() -> None:
    """Each other one begins in the guest that there is."""
    found = [Step("replug"), Step("bind", ("control", VFIO)), CLAIM, MAP]
    simpler = list(steps.simpler(found))
    assert [each for each in simpler if each[:1] != found[:1]] == [found[1:]]
    assert list(simpler[-1]) == found[1:]


@pytest.mark.parametrize("found", [[], [Step("look")], [Step("replug")]])
def test_short_sequences(found: list[Step]) -> None:
    """The simplest have nothing simpler but nothing at all."""
    assert all(list(each) == [] for each in steps.simpler(found))
