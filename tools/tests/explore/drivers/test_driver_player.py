# SPDX-License-Identifier: GPL-2.0-only
"""Sequences on a model of a guest: how they begin and end, and what is found in them."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from fakedriver import PANIC, WARNING, FakeGuest, group_of
from iommuq.explore.drivers.finds import DriverFind, load
from iommuq.explore.drivers.player import DriverPlayer
from iommuq.explore.drivers.rules import chosen
from iommuq.explore.drivers.steps import CODES, VFIO, Step
from iommuq.explore.drivers.world import Seen, World
from iommuq.explore.guest import GuestDied
from iommuq.explore.play import replay
from iommuq.explore.shorten import shortest
from iommuq.firmware.scenario import OTHER

WORLD = World.open("q35-intel", "mixed")
LOOK, RESCAN, REPLUG = Step("look"), Step("rescan"), Step("replug")
PAGE = {name: Step("map", (name, hex(WORLD.iova(name)), "0x1000")) for name in WORLD.devices}
After = Callable[[FakeGuest, str, str], str | None]


def bind(device: str) -> Step:
    """Return the step that hands a device to its user."""
    return Step("bind", (device, VFIO))


def remove(device: str) -> Step:
    """Return the step that removes a device."""
    return Step("remove", (device,))


def claim(device: str, function: str = "", nth: int = 0) -> Step:
    """Return the step that claims a device."""
    return Step("claim", ("group", device), function, nth)


def started(
    after: After | None = None, rules: frozenset[str] | None = None
) -> tuple[FakeGuest, DriverPlayer]:
    """Return a guest and its player."""
    guest = FakeGuest(WORLD, after)
    return guest, DriverPlayer(guest, chosen() if rules is None else rules)  # type: ignore[arg-type]


def play(player: DriverPlayer, *steps: Step) -> list[list[DriverFind]]:
    """Begin a sequence, and return what is found in each step; finds are passed over."""
    player.begin()
    found = []
    for step in steps:
        player.send(step)
        player.receive()
        found.append(player.check())
        player.pass_over(found[-1])
    return found


def answers(line: str, word: str) -> After:
    """Return what answers a line that begins so with another word."""
    return lambda _guest, asked, _word: word if asked.startswith(line) else None


def letters(device: str, place: str, letter: str) -> After:
    """Return what has a device see another letter at a place."""

    def after(_guest: FakeGuest, line: str, word: str) -> str | None:
        if not line.startswith("look"):
            return None
        address = WORLD.addresses[device]
        return "".join(
            letter if each.startswith(f"{address}=") and place in each else was
            for each, was in zip(line.split("\t")[1:], word, strict=True)
        )

    return after


#: What `control` writes to memory that is not mapped comes through.
LEAK = letters("control", f"={OTHER + WORLD.cell('control'):x}", "R")


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


# Finds.


def test_a_find_has_all_steps_and_can_be_stored() -> None:
    """Also those of the end; and from its file it is found again."""
    guest, player = started()
    play(player, REPLUG, bind("control"), claim("control"))
    guest.after = LEAK
    (find,) = player.end()
    assert find.operations == (REPLUG, bind("control"), claim("control"), LOOK)
    assert load(find.to_json(), "x") == find
    assert (find.machine, find.layout, find.splats) == ("q35-intel", "mixed", ())
    assert [each.signature for each in replay(player, find.operations)] == [find.signature]


def test_a_breach_at_the_end() -> None:
    """What comes when all is let go and found again is found, with these steps."""
    _, player = started(answers("rescan", "EIO"))
    player.begin()
    player.send(bind("control"))
    assert player.check() == []
    (find, *_) = [each for each in player.end() if each.breach.rule == "nofail.refused"]
    assert find.operations[1] == LOOK
    assert Step("unbind", ("control",)) in find.operations
    assert find.operations[-1] == RESCAN


def test_a_breach_that_lasts_is_found_once() -> None:
    """After it was passed over it is found again only if it was gone meanwhile."""
    guest, player = started(LEAK)
    found = play(player, LOOK, LOOK, bind("first"), LOOK)
    assert [len(each) for each in found] == [1, 0, 0, 0]
    assert not player.spoiled
    guest.after = None
    player.send(LOOK)
    assert player.check() == []
    guest.after = LEAK
    player.send(LOOK)
    assert len(player.check()) == 1
    assert player.spoiled


def test_a_breach_that_stands_does_not_hide_another() -> None:
    """Another device, or another rule, is another find."""
    guest, player = started(LEAK)
    play(player, LOOK)

    def both(guest: FakeGuest, line: str, word: str) -> str | None:
        other = letters("marked", "=3e0", "B")(guest, line, word)
        return LEAK(guest, line, other or word)

    guest.after = both
    player.send(LOOK)
    assert [each.breach.rule for each in player.check()] == ["regions.lost"]


# Splats and lost guests.


def warns(guest: FakeGuest, line: str, _word: str) -> None:
    """Print a splat of another function at each bind."""
    if line.startswith("bind"):
        number = sum(each.startswith("bind") for each in guest.asked[-1])
        guest.say(*(each.format(f"iommu_fun{number}") for each in WARNING))


def test_each_splat_is_a_find() -> None:
    """Also right after another one; each has its own name, and is found once."""
    _, player = started(warns)
    found = play(player, bind("control"), bind("first"), RESCAN, LOOK)
    assert [[each.signature for each in some] for some in found] == [
        ["q35-intel: splats.printed: WARNING in iommu_fun1"],
        ["q35-intel: splats.printed: WARNING in iommu_fun2"],
        [],
        [],
    ]
    assert not player.crashed


def test_splats_are_no_finds_without_their_rule() -> None:
    """Nor is a crash: then the guest is lost."""
    _, player = started(warns, chosen(["splats"]))
    assert play(player, bind("control")) == [[]]


def panics(function: str) -> After:
    """Return what has the kernel panic at the next claim."""

    def after(guest: FakeGuest, line: str, _word: str) -> None:
        if line.startswith("claim"):
            guest.say(*(each.format(function) for each in PANIC))
            raise guest.died("QEMU ended")

    return after


def test_a_crash() -> None:
    """It is a find with the steps so far; the next sequence has another guest."""
    guest, player = started(panics("iommu_fun"))
    found = play(player, REPLUG, bind("control"), claim("control"))
    (find,) = found[-1]
    assert (find.breach.rule, find.breach.text) == ("splats.printed", "the kernel crashed")
    assert find.operations == (REPLUG, bind("control"), claim("control"))
    # What a panic says is not where it comes from.
    assert find.signature == "q35-intel: splats.printed: BUG in iommu_fun"
    assert player.crashed
    player.begin()
    assert (guest.boots, player.crashed) == (2, False)
    (again,) = replay(player, find.operations)
    assert again.signature == find.signature


def test_a_crash_of_two_splats() -> None:
    """One that was told before is not what the crash is named after."""

    def after(guest: FakeGuest, line: str, word: str) -> None:
        warns(guest, line, word)
        panics("iommu_other")(guest, line, word)

    _, player = started(after)
    found = play(player, bind("control"), claim("control"))
    assert [len(each) for each in found] == [1, 1]
    assert all("iommu_fun1" not in each for each in found[1][0].splats)


def test_a_guest_that_dies_without_a_word() -> None:
    """It is an error that names the step, and no find; the next sequence has another guest."""

    def after(guest: FakeGuest, line: str, _word: str) -> None:
        if line.startswith("bind"):
            raise guest.died("no answer in time")

    guest, player = started(after)
    player.begin()
    player.send(bind("control"))
    with pytest.raises(GuestDied, match="guest lost: no answer in time, in bind control") as caught:
        player.check()
    assert "\n" not in str(caught.value)
    assert player.crashed
    guest.after = None
    player.begin()
    assert guest.boots == 2
    assert player.end() == []


def silent(guest: FakeGuest, line: str, _word: str) -> None:
    """Have a step of the kernel wait for ever."""
    if line.startswith("unbind"):
        raise guest.died("no answer in time", silent=True)


def test_a_step_that_does_not_end() -> None:
    """A deadlock is a find, which is shortened and repeats; the next sequence has a new guest."""
    guest, player = started(silent)
    found = play(player, REPLUG, bind("first"), bind("control"), Step("unbind", ("control",)))
    (find,) = found[-1]
    assert find.signature == "q35-intel: nofail.hangs after unbind"
    assert find.breach.text == "unbind control does not end"
    assert find.breach.expect == "unbind control|ok"
    assert player.crashed
    short = shortest(player, find, alone=False)
    assert [each.kind for each in short.operations] == ["bind", "unbind"]
    guest.after = None
    player.begin()
    assert player.end() == []


def test_a_hang_without_its_rule() -> None:
    """Then the guest is lost."""
    _, player = started(silent, chosen(["nofail.hangs"]))
    with pytest.raises(GuestDied, match="in unbind control"):
        play(player, bind("control"), Step("unbind", ("control",)))


def test_a_crash_is_no_hang() -> None:
    """A kernel that has said why is named after that."""

    def after(guest: FakeGuest, line: str, word: str) -> None:
        if line.startswith("unbind"):
            guest.say(*(each.format("iommu_fun") for each in WARNING))
        silent(guest, line, word)

    _, player = started(after)
    found = play(player, bind("control"), Step("unbind", ("control",)))
    assert [each.signature for each in found[-1]] == [
        "q35-intel: splats.printed: WARNING in iommu_fun"
    ]


def test_a_guest_that_dies_in_the_end() -> None:
    """The end says so; what is broken off is not cleaned in a dead guest."""

    def after(guest: FakeGuest, line: str, _word: str) -> None:
        if line.startswith("remove"):
            raise guest.died("no answer in time")

    guest, player = started(after)
    player.begin()
    with pytest.raises(GuestDied, match="in remove marked"):
        player.end()
    guest.after = None
    player.begin()
    assert guest.boots == 2


@pytest.mark.parametrize("word", ["MALFORMED", "MISSING", "UNCLAIMED", "BUSY"])
def test_a_word_about_the_program_itself(word: str) -> None:
    """It is not a breach of the kernel's: the guest is lost."""
    _, player = started(answers("bind", word))
    player.begin()
    player.send(bind("control"))
    with pytest.raises(GuestDied, match=f"it answers {word}, in bind control vfio-pci"):
        player.check()


@pytest.mark.parametrize("word", ["ok", "RRRRRRRRRRRR", "rrrrrr", "MALFORMED", "------"])
def test_letters_that_are_none(word: str) -> None:
    """They are not taken for a look at which all is well."""
    _, player = started(answers("look", word))
    player.begin()
    player.send(LOOK)
    with pytest.raises(GuestDied, match=f"it answers {word}, in look"):
        player.check()
