# SPDX-License-Identifier: GPL-2.0-only
"""Whole explorations of a kernel that is a script, with a bug that is planted in it."""

from __future__ import annotations

import contextlib
import datetime
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fakeguest
from iommuq.explore import campaign, store
from iommuq.explore.campaign import Outcome, Plan, explore, simulated
from iommuq.explore.exceptions import Exceptions, Exemption, Known
from iommuq.explore.finds import Find, load
from iommuq.explore.guest import GuestDied
from iommuq.explore.operations import Operation
from iommuq.explore.play import AnyFind, Seen
from iommuq.explore.player import Player
from iommuq.explore.rules import all_rules
from iommuq.explore.rules.model import Breach

#: The shortest sequence of the bug of "loses".
LOSES = (Operation("add", b=1), Operation("bind"), Operation("unbind"), Operation("claim_group"))
SIGNATURE = "regions.lost after claim_group"
FIND = Find(
    Breach("regions.lost", "device 0 does not reach its direct region", "state.ret == 0"),
    (Operation("add", dev=1, b=1), Operation("remove", dev=1), *LOSES, Operation("release_group")),
)


def plan(folder: Path, name: str, **changes: Any) -> Plan:
    """Return a plan that ends at one find, or soon."""
    found = Plan(
        fakeguest.kernel(folder, name),
        all_rules(),
        Exceptions(),
        seconds=20.0,
        seed=1,
        database=None,
        log=folder / "log",
        base="7.3",
        step="a/0001",
        enough=1,
    )
    return replace(found, **changes)


def explored(wanted: Plan) -> Outcome:
    """Explore, and check that nothing of it is left."""
    outcome = Outcome()
    told: list[tuple[AnyFind, Seen]] = []
    try:
        explore(
            wanted, outcome, lambda _outcome: None, lambda find, seen: told.append((find, seen))
        )
    finally:
        fakeguest.assert_gone(wanted.kernel.parent)
    if not wanted.quick:
        for seen in Seen:
            assert [find for find, how in told if how is seen] == outcome.of(seen)
    return outcome


def test_a_bug_is_found_and_made_shortest(sims: Path) -> None:
    """The find is the shortest sequence there is, of the base and step of the plan."""
    outcome = explored(plan(sims, "loses"))
    (find,) = outcome.finds
    assert (find.signature, find.operations) == (SIGNATURE, LOSES)
    assert (find.base, find.step, find.seed) == ("7.3", "a/0001", 1)
    seconds, operations = outcome.times[SIGNATURE]
    assert 0 < seconds < outcome.seconds
    assert 4 <= operations <= outcome.operations
    assert outcome.sequences > 1
    assert (outcome.blocks, outcome.boots, outcome.flaky) == (7, 4, [])


def test_the_same_seed_meets_the_same(sims: Path) -> None:
    """Two explorations with a seed do the same until the find; another seed does not."""
    first, again, other = (
        explored(plan(sims, "loses", quick=True, seed=seed)) for seed in (5, 5, 6)
    )
    assert first.finds == again.finds
    assert first.times[SIGNATURE][1] == again.times[SIGNATURE][1]
    assert first.operations == again.operations
    assert first.times[SIGNATURE][1] != other.times[SIGNATURE][1]


def test_a_good_kernel_is_explored_until_the_time_is_over(sims: Path) -> None:
    """Nothing is found, and the time is kept."""
    outcome = explored(plan(sims, "good", seconds=0.5, enough=0))
    assert (outcome.finds, outcome.flaky) == ([], [])
    assert 0.5 <= outcome.seconds < 3
    # How many is for the bench to say.
    assert outcome.operations > 0


def test_it_ends_after_so_many_operations(sims: Path) -> None:
    """Two explorations of as many operations do the same, however fast the machine is."""
    once, again = (explored(plan(sims, "good", most=100, enough=0)) for _ in range(2))
    assert 100 <= once.operations < 150
    assert (again.operations, again.sequences) == (once.operations, once.sequences)


def test_progress_is_told_about_once_a_second(sims: Path) -> None:
    """The numbers are told while it goes on."""
    told: list[int] = []
    explore(
        plan(sims, "good", seconds=1.6, enough=0),
        Outcome(),
        lambda outcome: told.append(outcome.operations),
        lambda _find, _repeats: None,
    )
    assert len(told) == 1
    assert told[0] > 0


@pytest.mark.parametrize("first", [[], [FIND]], ids=["drawn", "kept"])
def test_what_does_not_repeat_is_flaky(sims: Path, first: list[Find]) -> None:
    """A find that was met once is reported as flaky, with what was met, and is no find."""
    outcome = Outcome()

    def found(find: AnyFind, seen: Seen) -> None:
        assert (find, seen) == (outcome.flaky[0], Seen.SOMETIMES)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explore(plan(sims, "flaky", first=first), outcome, lambda _outcome: None, found)
    fakeguest.assert_gone(sims)
    assert (outcome.finds, outcome.unsettled) == ([], [])
    (find,) = outcome.flaky
    assert find.signature == SIGNATURE
    assert {each.kind for each in find.operations} >= {each.kind for each in LOSES}
    assert (find.base, find.step) == ("7.3", "a/0001")


def test_a_known_find_is_tried_first(sims: Path) -> None:
    """It is found at once, and shortened, before anything is drawn."""
    outcome = explored(plan(sims, "loses", first=[FIND]))
    (find,) = outcome.finds
    assert find.operations == LOSES
    # All but the last of its operations.
    assert outcome.times[SIGNATURE][1] == len(FIND.operations) - 1


def test_devices_and_groups_are_renumbered(sims: Path) -> None:
    """The shortest find has the first device and the first group, whatever was met."""
    moved = [replace(each, dev=2, group=int(each.kind in ("add", "claim_group"))) for each in LOSES]
    # The device of a claim of a group is of no meaning.
    moved[3] = replace(moved[3], dev=0)
    find = replace(FIND, operations=tuple(moved))
    outcome = explored(plan(sims, "loses", first=[find]))
    assert [each.operations for each in outcome.finds] == [LOSES]


def test_a_known_find_that_is_fixed_is_none(sims: Path) -> None:
    """What does not break a rule any more is left alone."""
    outcome = explored(plan(sims, "good", first=[FIND, FIND], seconds=0.2, enough=0))
    assert (outcome.finds, outcome.times) == ([], {})


def test_one_signature_is_found_once(sims: Path) -> None:
    """The same bug is not reported again in the rest of the time."""
    outcome = explored(plan(sims, "loses", first=[FIND, FIND], seconds=1.0, enough=0))
    # The neighbours of the bug have signatures of their own.
    signatures = [find.signature for find in outcome.finds]
    assert signatures.count(SIGNATURE) == 1
    assert len(signatures) == len(set(signatures))


def test_only_the_wanted_signatures_are_finds(sims: Path) -> None:
    """Other finds end their sequence, and are not told."""
    outcome = explored(plan(sims, "loses", only=("isolation.*",), seconds=0.7))
    assert (outcome.finds, outcome.flaky, outcome.times) == ([], [], {})
    wanted = explored(
        plan(sims, "loses", only=("isolation.*", "regions.lost after cl*"), quick=True)
    )
    assert [find.signature for find in wanted.finds] == [SIGNATURE]


def test_what_is_known_or_accepted_is_no_find(sims: Path) -> None:
    """Neither a known signature nor an accepted breach is told."""
    end = datetime.date(2100, 1, 1)
    known = Exceptions(known=(Known(("regions.lost after *",), "r", "s", end),))
    accepted = Exceptions(exception=(Exemption(("regions.lost",), "r", "s", end),))
    for exceptions in (known, accepted):
        outcome = explored(
            plan(sims, "loses", first=[FIND], exceptions=exceptions, seconds=0.5, enough=0)
        )
        assert (outcome.finds, outcome.flaky) == ([], [])


def test_a_crash_is_found_and_shortened(sims: Path) -> None:
    """Each try takes a boot, and the find is the shortest all the same."""
    long = (Operation("add", dev=2, b=1), *FIND.operations)
    outcome = explored(plan(sims, "crashes", first=[replace(FIND, operations=long)]))
    (find,) = outcome.finds
    assert find.signature == "splats.printed: slab-use-after-free in iommu_toy_unbind"
    assert find.operations == (Operation("add"), Operation("bind"), Operation("unbind"))
    assert outcome.boots > campaign.REPEATS


def test_a_guest_that_dies_is_no_find(sims: Path) -> None:
    """A guest that is lost without a splat ends the exploration; the outcome is kept."""
    outcome = Outcome()
    with pytest.raises(GuestDied) as caught:
        explore(plan(sims, "dies"), outcome, lambda _outcome: None, lambda _find, _repeats: None)
    fakeguest.assert_gone(sims)
    assert caught.value.hint == f"full log: {sims / 'log'}"
    assert (outcome.finds, outcome.flaky) == ([], [])
    assert outcome.operations > 0


def test_a_guest_that_does_not_boot_again(sims: Path) -> None:
    """The exploration ends at the first boot that fails, and does not shorten it."""
    with pytest.raises(GuestDied, match="no memory"):
        explored(plan(sims, "crashes_once"))
    assert (sims / "boots").stat().st_size == 2


def test_an_interrupt_leaves_what_was_found(sims: Path) -> None:
    """Ctrl-C at the first progress: the find is in the outcome, and no process is left."""
    outcome = Outcome()

    def interrupt(_outcome: Outcome) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explore(
            plan(sims, "loses", first=[FIND], enough=0),
            outcome,
            interrupt,
            lambda _find, _repeats: None,
        )
    fakeguest.assert_gone(sims)
    assert SIGNATURE in [find.signature for find in outcome.finds]
    assert outcome.seconds >= 1
    assert outcome.operations > 0


# What is met just before the end.


def playing(end: Callable[[Player], None]) -> Callable[[Plan], Any]:
    """Return what starts a guest; *end* is called before each sequence after the first find."""

    class Ending(Player):
        met = False

        def check(self) -> list[Find]:
            found = super().check()
            self.met = self.met or bool(found)
            return found

        def begin(self) -> None:
            if self.met:
                end(self)
            super().begin()

    @contextlib.contextmanager
    def opened(wanted: Plan) -> Iterator[Player]:
        with simulated(wanted) as player:
            yield Ending(player.guest, player.rules, player.exceptions)

    return opened


def interrupted(_player: Player) -> None:
    """Press Ctrl-C."""
    raise KeyboardInterrupt


def lost(player: Player) -> None:
    """Lose the guest."""
    raise player.guest._died("no memory")


def ended(wanted: Plan, error: type[BaseException]) -> tuple[Outcome, list[tuple[AnyFind, Seen]]]:
    """Explore until an error; return also what was told."""
    outcome = Outcome()
    told: list[tuple[AnyFind, Seen]] = []
    with pytest.raises(error):
        explore(wanted, outcome, lambda _: None, lambda find, seen: told.append((find, seen)))
    fakeguest.assert_gone(wanted.kernel.parent)
    return outcome, told


@pytest.mark.parametrize(("end", "error"), [(interrupted, KeyboardInterrupt), (lost, GuestDied)])
@pytest.mark.parametrize("first", [(), (FIND,)], ids=["hypothesis", "settled"])
def test_a_find_in_hand_is_told(
    sims: Path, end: Callable[[Player], None], error: type[BaseException], first: tuple[Find, ...]
) -> None:
    """Ctrl-C, or a lost guest, while a find is shortened does not hide it."""
    outcome, told = ended(plan(sims, "loses", first=first, play=playing(end)), error)
    assert (outcome.finds, outcome.flaky) == ([], [])
    (find,) = outcome.unsettled
    assert told == [(find, Seen.ONCE)]
    assert find.breach.rule == "regions.lost"
    # As it was met.
    assert {each.kind for each in find.operations} >= {each.kind for each in LOSES}
    assert (find.base, find.step, find.seed) == ("7.3", "a/0001", 1)


def test_a_find_in_hand_that_need_not_repeat(sims: Path) -> None:
    """It is a find all the same where finds are taken as they are met."""
    outcome, told = ended(plan(sims, "loses", quick=True, play=playing(lost)), GuestDied)
    assert [each.breach.rule for each in outcome.finds] == ["regions.lost"]
    assert (outcome.unsettled, told) == ([], [])


@pytest.mark.parametrize(
    ("end", "error", "seen"),
    [(interrupted, KeyboardInterrupt, Seen.ONCE), (lost, GuestDied, Seen.SOMETIMES)],
)
def test_a_find_that_is_being_repeated_is_told(
    sims: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[[Player], None],
    error: type[BaseException],
    seen: Seen,
) -> None:
    """After Ctrl-C no one knows whether it repeats; with a lost guest it has not."""

    def same(player: Player, find: Find, **_more: Any) -> Find:
        monkeypatch.setattr(type(player), "begin", end)
        return find

    monkeypatch.setattr(campaign, "shortest", same)
    nothing = playing(lambda _player: None)
    outcome, told = ended(plan(sims, "loses", first=[FIND], play=nothing), error)
    (find,) = outcome.of(seen)
    assert told == [(find, seen)]
    assert (find.signature, find.step) == (SIGNATURE, "a/0001")
    assert sum(len(outcome.of(each)) for each in Seen) == 1


def test_two_explorations_with_one_database(sims: Path) -> None:
    """Both end well, side by side, and leave examples that the next one takes first."""
    script = textwrap.dedent(
        f"""
        import sys
        from dataclasses import replace
        from pathlib import Path
        from test_campaign import explored, plan
        from iommuq.guests import uml
        uml.environment = dict
        folder = Path(sys.argv[1])
        wanted = plan(folder, "loses", seed=int(sys.argv[2]), quick=True)
        wanted = replace(wanted, database=Path({str(sims)!r}) / "db")
        outcome = explored(wanted)
        print([find.signature for find in outcome.finds])
        """
    )
    here = Path(__file__).parent
    running = []
    for number in (1, 2):
        folder = sims / f"job{number}"
        (folder / "tmp").mkdir(parents=True)
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", script, str(folder), str(number)],
                env={
                    "PATH": "/usr/bin:/bin",
                    "TMPDIR": str(folder / "tmp"),
                    "PYTHONPATH": ":".join(map(str, (here, here.parent / "support", *sys.path))),
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for process in running:
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, f"['{SIGNATURE}']\n")
    again = explored(plan(sims, "loses", database=sims / "db", quick=True))
    new = explored(plan(sims, "loses", database=None, quick=True))
    assert again.times[SIGNATURE][1] < new.times[SIGNATURE][1]


# What is kept.


def test_finds_are_kept_by_their_signature() -> None:
    """Two finds are two files; the same one again replaces its file."""
    other = replace(FIND, operations=(Operation("add"),))
    paths = {store.keep("7.3", each) for each in (FIND, other, FIND.relabelled("7.3", "", 9))}
    assert len(paths) == 2
    kept = {find.signature: find for find in store.kept("7.3")}
    assert set(kept) == {SIGNATURE.replace("claim", "release"), "regions.lost after add"}
    assert kept["regions.lost after release_group"].seed == 9
    assert list(store.kept("6.12")) == []


def test_finds_of_two_steps_are_two_files() -> None:
    """One step's find does not take the place of another's; files of any name are read."""
    finds = [FIND.relabelled("7.3", step, 0) for step in ("a/0001", "a/0002")]
    paths = [store.keep("7.3", each) for each in finds]
    assert [store.read(path) for path in paths] == finds
    # As the files of before were called.
    paths[0].rename(paths[0].with_name("bc9157d859859f72.json"))
    assert sorted(each.step for each in store.kept("7.3")) == ["a/0001", "a/0002"]


def test_flaky_finds_are_kept_apart() -> None:
    """They replace none that repeats, and are not tried first; what was met once is."""
    find = load(FIND.to_json(), "x")
    solid = store.keep("7.3", find)
    again = replace(find, seed=5)
    flaky = store.keep("7.3", again, Seen.SOMETIMES)
    assert (store.read(solid), store.read(flaky)) == (find, again)
    assert list(store.kept("7.3")) == [find]
    met = replace(find, step="a/0002", seed=7)
    once = store.keep("7.3", met, Seen.ONCE)
    assert list(store.kept("7.3")) == [find, met]
    # Later it is known how it repeats.
    assert store.read(store.keep("7.3", met, Seen.SOMETIMES)) == met
    assert not once.exists()
    assert list(store.kept("7.3")) == [find]


def test_damaged_files_are_left_out() -> None:
    """A file that cannot be used does not hide the others."""
    path = store.keep("7.3", FIND)
    for name, content in (
        ("0", b""),
        ("1", b"[" * 100_000),
        ("2", b"\xff"),
        ("3", b'{"format": 9}'),
        ("z", b" " * (store.SIZE + 1)),
    ):
        path.with_name(f"{name}.json").write_bytes(content)
    path.with_name("folder.json").mkdir()
    path.with_name("link.json").symlink_to("nowhere")
    path.with_name("other.txt").write_bytes(path.read_bytes())
    assert list(store.kept("7.3")) == [load(FIND.to_json(), "x")]


def test_not_more_than_the_most_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with many files does not take all the time."""
    for number in range(4):
        store.keep("7.3", replace(FIND, splats=(f"{number}",), operations=LOSES[: number + 1]))
    assert len(list(store.kept("7.3"))) == 4
    monkeypatch.setattr(store, "MOST", 3)
    begin = time.monotonic()
    assert len(list(store.kept("7.3"))) == 3
    assert time.monotonic() - begin < 1


@pytest.mark.parametrize("name", ["crashes", "crashes_late"])
def test_a_crash_that_is_not_looked_for(sims: Path, name: str) -> None:
    """The sequence ends, the next one has another guest, and nothing is found."""
    outcome = explored(plan(sims, name, only=("regions.lost*",), seconds=4.0, enough=0))
    assert (outcome.finds, outcome.flaky) == ([], [])
    assert outcome.boots > 2
