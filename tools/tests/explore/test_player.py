# SPDX-License-Identifier: GPL-2.0-only
"""Sequences on a guest that is a script: what is found, and what becomes of lost guests."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import fakeguest
from iommuq.explore import guest as guests
from iommuq.explore.finds import Find
from iommuq.explore.guest import Guest, GuestDied
from iommuq.explore.operations import Operation
from iommuq.explore.play import replay
from iommuq.explore.player import Player
from iommuq.explore.rules import all_rules, choose
from iommuq.explore.wire import State
from iommuq.system.errors import InfraError

LOSES = [Operation("add", b=1), Operation("bind"), Operation("unbind"), Operation("claim_group")]


def played(
    folder: Path, name: str, operations: list[Operation], without: tuple[str, ...] = ()
) -> list[Find]:
    """Replay a sequence on a new guest; nothing of it is left."""
    kernel = fakeguest.kernel(folder, name)
    try:
        with Guest(kernel, folder / "log") as guest:
            return replay(Player(guest, choose(without)), operations)
    finally:
        fakeguest.assert_gone(folder)


def test_a_good_kernel_breaks_no_rule(sims: Path) -> None:
    """The model itself holds all rules, also for what makes no sense in its state."""
    kernel = fakeguest.kernel(sims, "good")
    with Guest(kernel, sims / "log") as guest:
        player = Player(guest, all_rules())
        assert replay(player, [*LOSES, Operation("map"), Operation("remove")]) == []
        # Not the mapping, which makes no sense; but the end.
        assert (player.count, player.sequences, player.blocks, guest.boots) == (6, 1, 7, 1)
        assert replay(player, LOSES) == []
        assert guest.boots == 1
    fakeguest.assert_gone(sims)


def test_a_bug_is_found_after_its_last_operation(sims: Path) -> None:
    """The find has the operations up to the breach, and no more."""
    (find,) = played(sims, "loses", [*LOSES, Operation("release_group")])
    assert find.signature == "regions.lost after claim_group"
    assert find.operations == tuple(LOSES)
    assert not find.splats


def test_a_rule_that_is_left_out_finds_nothing(sims: Path) -> None:
    """The same sequence is none without its rule."""
    assert played(sims, "loses", LOSES, without=("regions.lost",)) == []


def test_a_splat_is_a_find_with_its_title(sims: Path) -> None:
    """A kernel that warns and goes on: the title is that of the console."""
    (find,) = played(sims, "splats", LOSES)
    assert find.signature == "splats.printed: WARNING in iommu_toy_unbind"
    assert find.operations == tuple(LOSES[:3])


@pytest.mark.parametrize("name", ["exits", "garbage"])
def test_a_guest_that_does_not_boot(sims: Path, name: str) -> None:
    """It was lost, not a find; the error names the log, which has what it printed."""
    with pytest.raises(GuestDied, match=r"^guest lost: ") as caught:
        played(sims, name, LOSES)
    assert isinstance(caught.value, InfraError)
    assert caught.value.hint == f"full log: {sims / 'log'}"
    assert f"{name} boots" in (sims / "log").read_text()
    assert ("no memory" if name == "exits" else "its greeting") in str(caught.value)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("dies", "exit status 7"),
        ("hangs", "no answer within 0.3 s"),
        ("short", "no answer within 0.3 s"),
    ],
)
def test_a_guest_that_is_lost_without_a_word(
    sims: Path, monkeypatch: pytest.MonkeyPatch, name: str, why: str
) -> None:
    """A guest that dies, hangs or answers short without a splat is lost, never a find."""
    monkeypatch.setattr(guests, "ANSWER_LIMIT", 0.3)
    with pytest.raises(GuestDied, match=why) as caught:
        played(sims, name, LOSES)
    assert caught.value.hint == f"full log: {sims / 'log'}"


def test_a_guest_that_never_greets(sims: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for the greeting is limited."""
    monkeypatch.setattr(guests, "BOOT_LIMIT", 0.3)
    begin = time.monotonic()
    with pytest.raises(GuestDied, match=r"no answer within 0\.3 s"):
        played(sims, "mute", LOSES)
    assert time.monotonic() - begin < 5


def test_a_guest_that_crashes_with_a_splat(sims: Path) -> None:
    """What the kernel printed before it died makes a find of it."""
    (find,) = played(sims, "crashes", LOSES)
    assert find.signature == "splats.printed: slab-use-after-free in iommu_toy_unbind"
    assert find.operations == tuple(LOSES[:3])
    assert find.breach.text == "the kernel crashed"


def test_the_end_of_a_sequence_comes_once(sims: Path) -> None:
    """It is asked for again after finds that were passed over."""
    with Guest(fakeguest.kernel(sims, "loses"), sims / "log") as guest:
        player = Player(guest, all_rules())
        player.begin()
        for operation in LOSES[:3]:
            assert player.do(operation) == []
        player.send(LOSES[3])
        found = player.end()
        assert [each.breach.rule for each in found] == ["regions.lost"]
        count = player.count
        while found := player.end():
            player.pass_over(found)
        assert player.count == count + 1
        assert player.end() == []
        assert player.count == count + 1


def test_a_guest_that_is_lost_after_a_warning(sims: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was judged before is no reason for its end."""
    kernel = fakeguest.kernel(sims, "splats")
    with Guest(kernel, sims / "log") as guest:
        player = Player(guest, all_rules())
        player.begin()
        for operation in LOSES[:2]:
            assert player.do(operation) == []
        (find,) = player.do(LOSES[2])
        player.pass_over([find])

        def lost() -> State:
            raise GuestDied("guest lost: silence", hint="", console=guest.console(), silent=True)

        monkeypatch.setattr(guest, "receive", lost)
        with pytest.raises(GuestDied, match="silence"):
            player.do(LOSES[3])


def test_a_crash_is_no_find_without_the_rule(sims: Path) -> None:
    """Without the rule for splats a crash is a lost guest."""
    with pytest.raises(GuestDied):
        played(sims, "crashes", LOSES, without=("splats",))


def test_a_guest_that_crashes_after_its_answer(sims: Path) -> None:
    """What was sent to a dead guest is not of the find, nor is the last one of an earlier crash."""
    kernel = fakeguest.kernel(sims, "crashes_late")
    with Guest(kernel, sims / "log") as guest:
        player = Player(guest, all_rules())
        for boots in (1, 2):
            player.begin()
            assert guest.boots == boots
            assert player.do(LOSES[0]) == []
            assert player.do(LOSES[1]) == []
            fakeguest.wait_for(lambda: not guest._alive())
            player.send(LOSES[2])
            if boots == 1:
                player.receive()
            # Else as Session.step() does: judged before the answer is waited for.
            (find,) = player.check()
            assert find.signature.startswith("splats.printed: slab-use-after-free")
            assert find.operations == tuple(LOSES[: 3 if boots == 1 else 2])
        player.begin()
        assert guest.boots == 3
    fakeguest.assert_gone(sims)


def test_a_crash_does_not_remember_the_one_before(sims: Path) -> None:
    """Each crash is told with the operations of its own sequence."""
    kernel = fakeguest.kernel(sims, "crashes")
    with Guest(kernel, sims / "log") as guest:
        player = Player(guest, all_rules())
        for dev in (0, 1):
            wanted = [Operation("add", dev=dev), Operation("bind", dev=dev)]
            wanted.append(Operation("unbind", dev=dev))
            (find,) = replay(player, wanted)
            assert find.operations == tuple(wanted)
        assert guest.boots == 2
    fakeguest.assert_gone(sims)


def test_a_sequence_does_not_begin_with_a_crash(sims: Path) -> None:
    """What was sent to a dead guest and never looked at is not of the next sequence."""
    kernel = fakeguest.kernel(sims, "crashes")
    with Guest(kernel, sims / "log") as guest:
        player = Player(guest, all_rules())
        assert replay(player, LOSES)
        player.pass_over([])
        player.send(LOSES[0])
        player.begin()
        assert (player.check(), player.crashed) == ([], False)
        assert player.do(LOSES[0]) == []
    fakeguest.assert_gone(sims)


def test_an_interrupt_while_it_boots(sims: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C before the greeting leaves neither a process nor a folder."""
    kernel = fakeguest.kernel(sims, "mute")

    def interrupted(_guest: Guest, _size: int, _limit: float) -> bytes:
        fakeguest.wait_for(lambda: len(fakeguest.pids(sims)) == 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(Guest, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Guest(kernel, sims / "log").__enter__()
    fakeguest.assert_gone(sims)


def test_a_noisy_guest_is_started_again(sims: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A console with many lines gets a new guest at the next sequence, not within one."""
    monkeypatch.setattr(guests, "CONSOLE_LINES", 0)
    with Guest(fakeguest.kernel(sims, "good"), sims / "log") as guest:
        fakeguest.wait_for(lambda: bool(guest._console))
        guest.fresh()
        assert guest.boots == 2
    fakeguest.assert_gone(sims)
