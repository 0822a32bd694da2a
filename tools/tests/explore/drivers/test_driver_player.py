# SPDX-License-Identifier: GPL-2.0-only
"""Sequences on a model of a guest: how they begin and end, and what is asked in them."""

from __future__ import annotations

import random

import pytest

from driverplay import (
    LEAK,
    LOOK,
    PAGE,
    REPLUG,
    RESCAN,
    WORLD,
    After,
    answers,
    bind,
    claim,
    letters,
    play,
    remove,
    started,
)
from fakedriver import WARNING, FakeGuest, group_of
from iommuq.explore.drivers.rules import chosen
from iommuq.explore.drivers.steps import CODES, VFIO, Step
from iommuq.explore.drivers.world import Seen
from iommuq.explore.machine import Found, Session
from iommuq.explore.play import replay
from iommuq.explore.shorten import shortest
from iommuq.firmware.scenario import OTHER
from iommuq.system.errors import InfraError

# A good kernel.


@pytest.mark.parametrize("seed", range(12))
def test_a_good_kernel_breaks_no_rule(seed: int) -> None:
    """Random sequences find nothing, begin and end in one guest, and leave nothing behind."""
    guest, player = started()
    draw = random.Random(seed)
    for _ in range(6):
        player.begin()
        for _ in range(40):
            step = player.choose(draw.randrange(CODES), draw.getrandbits(11) & ~0b1010)
            if step is not None:
                player.send(step)
            assert player.check() == []
        assert player.end() == []
        assert not any(each.claimed or each.driver != "-" for each in guest.seen.values())
        assert all(each.present for each in guest.seen.values())
    assert (player.sequences, player.blocks, player.boots) == (6, 0, guest.boots)
    assert player.count > 6 * 40 * 0.9


# How a sequence begins.


def test_the_first_sequence_begins_at_boot() -> None:
    """The next ones begin with a replug, which the end before has done."""
    guest, player = started()
    player.begin()
    assert player.choose(0, 0) != REPLUG
    assert player.end() == []
    player.begin()
    assert player.choose(0, 0) == REPLUG
    asked = len(guest.asked[0])
    player.send(REPLUG)
    assert guest.asked[0][asked:] == ["listen"]
    assert player.check() == []
    assert player.choose(0, 0) != REPLUG
    assert guest.boots == 1


def removed(lines: list[str]) -> set[str]:
    """Return the devices that some lines remove."""
    return {line.split("\t")[1] for line in lines if line.startswith("remove")}


def test_the_end_replugs_what_was_touched() -> None:
    """All devices at first, as they are from the boot; then those of the groups of a step."""
    guest, player = started()
    everyone = {WORLD.addresses[name] for name in WORLD.devices}
    assert replay(player, [bind("control")]) == []
    assert removed(guest.asked[0]) == everyone
    asked = len(guest.asked[0])
    assert replay(player, [REPLUG, bind("control"), Step("reset", ("first",))]) == []
    group = {WORLD.addresses[name] for name in ("control", "first", "second")}
    assert removed(guest.asked[0][asked:]) == group
    # One that was broken off has touched others, which are let go of as well.
    play(player, REPLUG, bind("marked"))
    asked = len(guest.asked[0])
    player.begin()
    assert removed(guest.asked[0][asked:]) == {WORLD.addresses["marked"]}
    assert guest.boots == 1


def test_a_replug_in_a_new_guest() -> None:
    """All devices are removed and found again, and what is bound then is unbound."""

    def after(guest: FakeGuest, line: str, _word: str) -> None:
        if line == "rescan":
            guest.change("ats", driver="virtio-pci")

    guest, player = started(after)
    assert play(player, REPLUG) == [[]]
    removed = [f"remove\t{WORLD.addresses[name]}" for name in WORLD.devices]
    assert guest.asked[0][2:] == [*removed, "rescan", f"unbind\t{WORLD.addresses['ats']}"]


def test_a_replug_that_fails() -> None:
    """What fails is found, although the rescan after it does not."""
    _, player = started(answers("remove", "EBUSY"))
    (found,) = play(player, REPLUG)
    assert [each.signature for each in found] == ["q35-intel: nofail.refused after replug"]
    assert found[0].breach.text == "replug ends with EBUSY"


def test_a_sequence_without_replug_takes_a_boot() -> None:
    """A find from a new guest is tried in a new guest."""
    guest, player = started()
    assert replay(player, [REPLUG, LOOK]) == []
    assert guest.boots == 1
    assert replay(player, [bind("control")]) == []
    assert guest.boots == 2
    assert guest.asked[1][:2] == ["listen", f"bind\t{WORLD.addresses['control']}\t{VFIO}"]
    assert replay(player, [REPLUG, LOOK]) == []
    assert guest.boots == 2


@pytest.mark.parametrize("can", [True, False])
def test_a_type_that_stays(*, can: bool) -> None:
    """The group of a bridge keeps its type; it is set back, or the guest is started again."""

    def after(guest: FakeGuest, line: str, _word: str) -> str | None:
        stays = line == "rescan" or (not can and line.endswith("\tDMA"))
        if stays and any("\tidentity" in each for each in guest.asked[-1]):
            guest.change("first", type="identity")
            guest.change("second", type="identity")
        return "EBUSY" if stays and line != "rescan" else None

    guest, player = started(after)
    assert replay(player, [REPLUG, Step("set-type", ("first", "identity"))]) == []
    player.begin()
    assert (guest.boots, guest.seen["first"].type) == (1 if can else 2, "DMA")


def test_numbers_of_groups_are_no_reason_for_a_boot() -> None:
    """They grow with each rescan."""

    def after(guest: FakeGuest, line: str, _word: str) -> None:
        if line == "rescan":
            for name in WORLD.devices:
                guest.change(name, group=group_of(name) + 1000 + len(guest.asked[-1]))

    guest, player = started(after)
    for _ in range(3):
        assert replay(player, [REPLUG, bind("control"), LOOK]) == []
    assert guest.boots == 1


def test_a_new_guest_on_request() -> None:
    """`renew` has the next sequence begin in a new guest, whatever it begins with."""
    guest, player = started()
    assert replay(player, [REPLUG]) == []
    player.renew()
    assert replay(player, [REPLUG]) == []
    assert guest.boots == 2
    assert "rescan" in guest.asked[1]


def test_what_was_broken_off_is_cleaned() -> None:
    """A sequence that does not come to its end is let go of, without a boot."""
    guest, player = started()
    play(player, bind("control"), claim("control"), PAGE["control"], remove("ats"))
    player.begin()
    assert guest.boots == 1
    assert guest.seen["control"] == Seen(True, group_of("control"), "DMA")
    assert guest.seen["ats"].present
    assert player.choose(0, 0) == REPLUG


def stays_away(guest: FakeGuest, line: str, _word: str) -> None:
    """Have a rescan not find a device."""
    if line == "rescan":
        guest.seen["ats"] = Seen(present=False)


@pytest.mark.parametrize("bad", [LEAK, stays_away])
def test_what_cannot_be_cleaned_takes_a_boot(bad: After) -> None:
    """What lasts would be blamed on the next sequence."""
    guest, player = started(bad)
    # What was passed over is not clean either.
    play(player, bind("control"), LOOK)
    player.begin()
    assert guest.boots == 2


# How a sequence ends.


def warns_at_rescan(guest: FakeGuest, line: str, word: str) -> str | None:
    """Leak at each look, and warn when devices are found again."""
    if line == "rescan":
        guest.say(*(each.format("iommu_toy_probe") for each in WARNING))
    return LEAK(guest, line, word)


def test_the_end_goes_on_after_what_is_known() -> None:
    """What shows when devices are let go of is found behind what was known before."""
    _, player = started(warns_at_rescan)
    player.begin()
    player.send(bind("control"))
    assert player.check() == []
    found = []
    while some := player.end():
        found += [each.breach.rule for each in some]
        player.pass_over(some)
    assert found == ["isolation.memory", "splats.printed"]


def test_a_session_goes_on_at_the_end() -> None:
    """What is looked for is found behind what is none."""
    _, player = started(warns_at_rescan)
    session = Session(player, lambda each: "splats" in each, lambda: None, only=True)
    session.begin()
    with pytest.raises(Found, match="WARNING in iommu_toy_probe"):
        session.end()


def test_a_warning_while_a_sequence_is_broken_off_takes_a_boot() -> None:
    """It is of no sequence, and the kernel may be unsound."""

    def warns(guest: FakeGuest, line: str, _word: str) -> None:
        if line == "rescan":
            guest.say(*(each.format("iommu_toy_probe") for each in WARNING))

    guest, player = started(warns)
    play(player, bind("control"))
    player.begin()
    assert guest.boots == 2


def test_an_end_that_tells_nothing_takes_a_boot() -> None:
    """Whether all is as it was before is not known if an engine is off."""
    guest, player = started(letters("ats", "=", "O"))
    assert replay(player, [bind("control")]) == []
    player.begin()
    assert guest.boots == 1
    guest.after = letters("marked", "=", "O")
    assert replay(player, [REPLUG, bind("control")]) == []
    player.begin()
    assert guest.boots == 2


def test_an_engine_that_never_tells_anything() -> None:
    """Each device counts for itself; some writes are not enough to say so."""
    _, player = started(letters("marked", "=", "N"))
    replay(player, [LOOK, LOOK])
    player.check_oracle()
    replay(player, [REPLUG, LOOK, LOOK, LOOK, LOOK])
    with pytest.raises(InfraError, match=r"writes of the DMA engine of marked tell nothing"):
        player.check_oracle()


# Steps that make no sense.


@pytest.mark.parametrize(
    "steps",
    [
        [PAGE["control"]],
        [bind("control"), PAGE["control"]],
        [bind("control"), claim("control"), claim("control")],
        [bind("control"), claim("control"), remove("control")],
        [bind("control"), claim("control"), REPLUG],
        [bind("control"), claim("control"), bind("control")],
        [remove("control"), remove("control")],
        [remove("control"), Step("set-type", ("control", "DMA"))],
        [Step("release", ("control",))],
    ],
)
def test_a_step_that_makes_no_sense_is_left_out(steps: list[Step]) -> None:
    """It is not carried out, not found to be wrong, and in no find."""
    guest, player = started()
    play(player, *steps[:-1])
    asked = len(guest.asked[0])
    player.send(steps[-1])
    assert player.check() == []
    assert (guest.asked[0][asked:], player.count) == ([], len(steps) - 1)
    guest.after = LEAK
    player.send(LOOK)
    (find,) = player.check()
    assert find.operations == (*steps[:-1], LOOK)


def test_a_find_is_shortened_without_a_hang() -> None:
    """To leave out a claim or a release does not lose the guest, and the rest is found."""
    _, player = started(letters("control", "@", "B"))
    steps = [
        *(REPLUG, bind("first"), bind("control"), remove("marked"), claim("control")),
        *(Step("release", ("control",)), claim("control"), PAGE["control"], RESCAN, LOOK),
    ]
    (find,) = replay(player, steps)
    short = shortest(player, find, alone=False)
    assert short.signature == "q35-intel: belief.mapped"
    assert [each.kind for each in short.operations] == ["bind", "claim", "map", "look"]


# What is asked.


def test_a_look() -> None:
    """Each oracle writes to its region, to memory, and to the page of each owner."""
    guest, player = started()
    play(player, *(bind(name) for name in ("control", "first")), remove("second"))
    guest.seen["first"] = Seen(True, 5, "DMA", VFIO)
    for name in ("control", "first"):
        guest.change(name, claimed=True)
        guest.mapped[name] = WORLD.iova(name)
        player.state.mapped.add(name)
    player.state.seen.update(guest.seen)
    asked = len(guest.asked[0])
    player.send(LOOK)
    assert player.check() == []
    lines = guest.asked[0][asked:]
    assert [each.split("\t")[0] for each in lines] == ["look"] * 4
    own, memory, *others = (
        dict(word.split("=") for word in each.split("\t")[1:]) for each in lines
    )
    place = WORLD.addresses
    cells = {name: WORLD.cell(name) for name in WORLD.devices}
    assert own[place["marked"]] == f"{0x3E000000 + cells['marked']:x}"
    assert own[place["function1"]] == f"{0x3E100000 + cells['function1']:x}"
    page = WORLD.iova("control") + cells["control"]
    assert own[place["control"]] == f"{place['control']}@{page:x}"
    assert place["function0"] not in own
    assert memory == {place[name]: f"{OTHER + cells[name]:x}" for name in WORLD.oracles}
    for name in WORLD.oracles:
        asked_of = {round_[place[name]].split("@")[0] for round_ in others if place[name] in round_}
        assert asked_of == {place[each] for each in ("control", "first") if each != name}


def test_a_look_does_not_depend_on_what_was_before() -> None:
    """The same sequence asks the same, in each guest and after any other."""
    steps = [
        REPLUG,
        *(each for name in ("control", "function0") for each in (bind(name),)),
        *(claim("control"), PAGE["control"], LOOK),
    ]
    guest, player = started()
    play(player, *steps)
    first = guest.asked[0][-1]
    player.end()
    play(player, REPLUG, LOOK)
    player.end()
    play(player, *steps)
    assert guest.asked[0][-1] == first
    assert guest.boots == 1


def test_a_failure_is_armed_and_asked_for() -> None:
    """It is set before the step, and called off after it."""
    guest, player = started()
    play(player, bind("control"), claim("control", "iommu_group_claim_dma_owner", 2))
    assert guest.asked[0][2:] == [
        "fail\tiommu_group_claim_dma_owner\t2",
        f"claim\tgroup\t{WORLD.addresses['control']}",
        "failed",
    ]


@pytest.mark.parametrize(("can", "met"), [(True, True), (True, False), (False, True)])
def test_a_failure_excuses_what_it_was_met_in(*, can: bool, met: bool) -> None:
    """Only where the kernel can fail an allocation, and has, is ENOMEM documented."""

    def after(_guest: FakeGuest, line: str, _word: str) -> str | None:
        if line.startswith("claim"):
            return "ENOMEM"
        return None if can or not line.startswith("fail\t") else "UNSEEN"

    guest, player = started(after)
    guest.faults = met
    (_, found) = play(player, bind("control"), claim("control", "vfio_df_group_open", 1))
    rules = [each.breach.rule for each in found]
    # The model has claimed the device all the same.
    assert [each for each in rules if each.startswith("errnos")] == (
        [] if can and met else ["errnos.documented"]
    )
    assert {each.faulted for each in found} == {can and met}


def test_a_look_after_a_failure_says_so() -> None:
    """The signature tells what a failure has broken from what is broken anyway."""
    guest, player = started(LEAK)
    guest.faults = True
    fails = Step("rescan", (), "iommu_probe_device", 1)
    found = play(player, remove("ats"), fails, LOOK)
    assert [each.signature for each in found[-1]] == [
        "q35-intel: isolation.memory that met a failure"
    ]
    player.end()
    found = play(player, REPLUG, remove("ats"), fails, LOOK, bind("first"), LOOK)
    assert found[-1] == []
    found = play(player, REPLUG, remove("ats"), fails, bind("first"), LOOK)
    assert [each.signature for each in found[-1]] == ["q35-intel: isolation.memory"]


def test_a_device_that_could_not_be_probed() -> None:
    """It may lose its region until it is found again with memory enough."""
    short = True

    def after(guest: FakeGuest, line: str, word: str) -> str | None:
        if line == "rescan" and short:
            guest.change("marked", group=None, type="-")
        if guest.seen["marked"].group is None or not short:
            return letters("marked", "=3e0", "B")(guest, line, word)
        return None

    _, player = started(after)
    fails = Step("rescan", (), "iommu_probe_device", 1)
    found = play(player, remove("marked"), fails, LOOK)
    assert [each.breach.rule for each in found[-1]] == []
    # What is wrong with enough memory is a breach, also of the same device.
    short = False
    player.send(remove("marked"))
    player.check()
    player.send(RESCAN)
    player.check()
    player.send(LOOK)
    assert [each.breach.rule for each in player.check()] == ["regions.lost"]


def test_a_device_that_could_not_be_probed_once() -> None:
    """When it is refused later, with memory enough, its region is lost."""

    def after(guest: FakeGuest, line: str, word: str) -> str | None:
        if line == "rescan":
            guest.change("marked", group=None, type="-")
        return letters("marked", "=3e0", "B")(guest, line, word)

    _, player = started(after, chosen(["nofail"]))
    fails = Step("rescan", (), "iommu_probe_device", 1)
    found = play(player, remove("marked"), fails, LOOK, remove("marked"), RESCAN, LOOK)
    assert [[each.breach.rule for each in some] for some in found if some] == [["regions.lost"]]
    assert found[-1]
