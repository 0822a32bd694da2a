# SPDX-License-Identifier: GPL-2.0-only
"""Sequences on a model of a guest: what is found in them, and how a guest is lost."""

from __future__ import annotations

import pytest

from driverplay import (
    LEAK,
    LOOK,
    REPLUG,
    RESCAN,
    After,
    answers,
    bind,
    claim,
    letters,
    play,
    started,
)
from fakedriver import PANIC, WARNING, FakeGuest
from iommuq.explore.drivers.finds import load
from iommuq.explore.drivers.rules import chosen
from iommuq.explore.drivers.steps import Step
from iommuq.explore.guest import GuestDied
from iommuq.explore.play import replay
from iommuq.explore.shorten import shortest

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
