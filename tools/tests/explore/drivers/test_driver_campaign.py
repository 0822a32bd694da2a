# SPDX-License-Identifier: GPL-2.0-only
"""Whole explorations of a driver, on a model of its machine; and what is asked for."""

from __future__ import annotations

import contextlib
import datetime
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from fakedriver import FakeGuest
from iommuq.cli.main import cli
from iommuq.explore import campaign, plans, run, store
from iommuq.explore.campaign import REPEATS, TRIES, Outcome, Plan, explore
from iommuq.explore.drivers import plan as drivers
from iommuq.explore.drivers.finds import DriverFind
from iommuq.explore.drivers.player import DriverPlayer
from iommuq.explore.drivers.rules import chosen
from iommuq.explore.drivers.steps import VFIO, Step
from iommuq.explore.drivers.world import World, layouts
from iommuq.explore.exceptions import Exceptions, Known
from iommuq.explore.plans import Wanted, plans_of
from iommuq.explore.play import AnyFind, Seen
from iommuq.explore.rules.model import Breach
from iommuq.suites.firmware.cases import Case
from iommuq.system import progress
from iommuq.system import run as processes
from iommuq.system.errors import UserError
from iommuq.system.files import project_root, state_dir

WANTED = Wanted("7.3", None, 6.0, 1, on="q35-intel")
SIGNATURE = "q35-intel: isolation.memory"


def leaks(guest: FakeGuest, line: str, word: str) -> str | None:
    """Have `control` reach all memory once it was released, until it is removed."""
    place = guest.world.addresses["control"]
    lines = guest.asked[-1]
    last = max((n for n, each in enumerate(lines) if each == f"release\t{place}"), default=-1)
    if not line.startswith("look\t") or last < 0 or f"remove\t{place}" in lines[last:]:
        return None
    words = line.split("\t")[1:]
    return "".join(
        "R" if each.startswith(f"{place}=3d0") and "@" not in each else letter
        for each, letter in zip(words, word, strict=True)
    )


def plan(layout: str = "mixed", after: Any = leaks, **more: Any) -> tuple[Plan, list[FakeGuest]]:
    """Return what explores a model, and its guests."""
    guests: list[FakeGuest] = []

    @contextlib.contextmanager
    def play(_plan: Plan) -> Iterator[DriverPlayer]:
        guests.append(FakeGuest(World.open("q35-intel", layout), after))
        yield DriverPlayer(guests[-1], chosen())  # type: ignore[arg-type]

    values: dict[str, Any] = {
        "seconds": 20.0,
        "enough": 1,
        "shrink": False,
        "reboot": False,
        "go_on": True,
        "play": play,
        "base": "7.3",
        "step": "a/0001",
        **more,
    }
    seconds = values.pop("seconds")
    found = Plan(Path("/image"), (), Exceptions(), seconds, 1, None, Path("/log"), **values)
    return found, guests


def explored(wanted: Plan) -> Outcome:
    """Explore."""
    outcome = Outcome()
    explore(wanted, outcome, lambda _outcome: None, lambda _find, _repeats: None)
    return outcome


def test_a_bug_is_found_shortened_and_repeats() -> None:
    """In one guest, but for what begins at boot."""
    outcome = explored(plan(only=("*isolation.memory*",))[0])
    assert outcome.flaky == []
    (find,) = outcome.finds
    assert isinstance(find, DriverFind)
    kinds = [each.kind for each in find.operations if each.kind != "replug"]
    # The signature has the last step, which may have come after the one that matters.
    assert kinds[:3] == ["bind", "claim", "release"]
    assert kinds[-1] == "look"
    assert len(kinds) <= 5
    assert (find.base, find.step, find.machine, find.layout) == (
        *("7.3", "a/0001", "q35-intel", "mixed"),
    )
    assert outcome.operations > 10
    assert outcome.boots >= 1


def test_a_good_driver_is_explored_until_the_time_is_over() -> None:
    """Nothing is found, and it takes one boot."""
    wanted, guests = plan(after=None, seconds=1.0, enough=0)
    outcome = explored(wanted)
    assert (outcome.finds, outcome.flaky, outcome.boots) == ([], [], 1)
    assert outcome.sequences > 3
    assert outcome.operations > 30
    assert sum(each.startswith("look") for each in guests[0].asked[0]) > 3


def test_a_find_is_tried_first() -> None:
    """It is found by its own sequence, before anything is drawn."""
    steps = (
        Step("replug"),
        Step("bind", ("control", VFIO)),
        Step("bind", ("first", VFIO)),
        Step("claim", ("group", "control")),
        Step("release", ("control",)),
        Step("look"),
    )
    kept = DriverFind(Breach("isolation.memory", "x", ""), steps, "q35-intel", "mixed")
    outcome = explored(plan(first=[kept])[0])
    (find,) = outcome.finds
    assert find.signature == SIGNATURE
    assert len(find.operations) < len(steps)
    assert outcome.times[SIGNATURE][1] == len(steps)


def test_what_does_not_repeat_is_flaky() -> None:
    """What is seen the first time alone is no find."""
    seen: list[int] = []

    def after(guest: FakeGuest, line: str, word: str) -> str | None:
        found = leaks(guest, line, word)
        if found not in (None, word):
            seen.append(1)
        return found if len(seen) < 2 else None

    steps = [Step("bind", ("control", VFIO)), Step("claim", ("cdev", "control"))]
    steps += [Step("release", ("control",)), Step("look")]
    kept = DriverFind(Breach("isolation.memory", "x", ""), tuple(steps), "q35-intel", "mixed")
    outcome = explored(plan(after=after, first=[kept], enough=0, seconds=0.5)[0])
    assert outcome.finds == []
    assert [each.signature for each in outcome.flaky] == [SIGNATURE]
    assert REPEATS > 1


LEAKS = (
    *(Step("bind", ("control", VFIO)), Step("claim", ("group", "control"))),
    *(Step("release", ("control",)), Step("look")),
)
KEPT = DriverFind(Breach("isolation.memory", "x", ""), LEAKS, "q35-intel", "mixed")


def test_a_find_that_repeats_replaces_a_flaky_one() -> None:
    """What did not repeat when it was met first is tried again when it is met again."""
    outcome = Outcome()
    told: list[tuple[AnyFind, Seen]] = []
    shown: list[int] = []

    def after(guest: FakeGuest, line: str, word: str) -> str | None:
        found = leaks(guest, line, word)
        if found in (None, word):
            return None
        shown.append(1)
        return found if told or len(shown) == 1 else None

    wanted = plan(after=after, first=[KEPT, KEPT, KEPT])[0]
    explore(wanted, outcome, lambda _: None, lambda find, seen: told.append((find, seen)))
    assert [(find.signature, seen) for find, seen in told] == [
        (SIGNATURE, Seen.SOMETIMES),
        (SIGNATURE, Seen.ALWAYS),
    ]
    assert (outcome.finds, outcome.flaky) == ([told[1][0]], [])


def test_a_flaky_signature_is_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told once, and takes a bounded part of the time."""
    tried: list[AnyFind] = []

    def shortest(_player: DriverPlayer, find: DriverFind, **_more: Any) -> DriverFind:
        tried.append(find)
        return find

    monkeypatch.setattr(campaign, "replay", lambda *_: [])
    monkeypatch.setattr(campaign, "shortest", shortest)
    outcome = Outcome()
    told: list[tuple[AnyFind, Seen]] = []
    wanted = plan(first=[KEPT] * 9, seconds=1.0, enough=0)[0]
    explore(wanted, outcome, lambda _: None, lambda find, seen: told.append((find, seen)))
    assert len([each for each in tried if each.signature == SIGNATURE]) == TRIES
    assert [find.signature for find, _ in told].count(SIGNATURE) == 1
    assert [each.signature for each in outcome.flaky].count(SIGNATURE) == 1


@pytest.mark.parametrize("go_on", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_a_kept_find_behind_a_known_breach(*, go_on: bool, own: bool) -> None:
    """It is tried; what else comes after a known breach may follow from it."""

    def after(guest: FakeGuest, line: str, word: str) -> str | None:
        if line.startswith("reset"):
            return "EIO"
        lines = [each.partition("\t")[0] for each in guest.asked[-1]]
        last = max((n for n, each in enumerate(lines) if each == "release"), default=0)
        # It needs what is known.
        return leaks(guest, line, word) if lines[last - 1] == "reset" else None

    first = replace(KEPT, operations=(*LEAKS[:2], Step("reset", ("first",)), *LEAKS[2:]))
    if not own:
        first = replace(first, breach=Breach("nofail.back", "x", ""))
    entry = Known(("q35-intel: errnos.*",), "r", "s", datetime.date(2100, 1, 1))
    # Nothing is drawn.
    wanted = plan(after=after, first=[first], go_on=go_on, enough=0, seconds=0.0)[0]
    outcome = explored(replace(wanted, exceptions=Exceptions(known=(entry,))))
    assert outcome.flaky == []
    assert [each.signature for each in outcome.finds] == ([SIGNATURE] if own or go_on else [])


# Several layouts.


def test_two_plans_are_one_exploration(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found in the first layout is no find in the second; the numbers are added."""
    events: list[dict[str, Any]] = []
    monkeypatch.setattr(run, "progress", _Quiet())
    outcome = Outcome()

    def refuses(_guest: FakeGuest, line: str, _word: str) -> str | None:
        return "EIO" if line.startswith("reset") else None

    both = [plan(layout, refuses, enough=0, seconds=2.0)[0] for layout in ("mixed", "alone")]
    run.run_one(WANTED, both, outcome, events.append)
    signature = "q35-intel: errnos.documented after reset"
    assert [each.signature for each in outcome.finds] == [signature]
    told = [each for each in events if each["event"] == "find"]
    assert len(told) == 1
    assert told[0]["layout"] == "mixed"
    assert store.read(Path(told[0]["file"])) == outcome.finds[0]
    assert Path(told[0]["file"]).is_relative_to(state_dir() / "explore" / "7.3-q35-intel")
    assert run.find_lines(told[0])[0].startswith("FAIL: q35-intel: reset ")
    numbers = [each["operations"] for each in events if each["event"] == "progress"]
    assert numbers == sorted(numbers)
    assert outcome.operations >= numbers[-1]
    assert 4.0 <= outcome.seconds < 60


def test_what_is_flaky_in_one_layout_may_repeat_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried there, told, and kept as one that repeats."""
    monkeypatch.setattr(run, "progress", _Quiet())
    met: list[int] = []

    def once(_guest: FakeGuest, line: str, _word: str) -> str | None:
        if line.startswith("reset"):
            met.append(1)
        return "EIO" if line.startswith("reset") and len(met) == 1 else None

    def always(_guest: FakeGuest, line: str, _word: str) -> str | None:
        return "EIO" if line.startswith("reset") else None

    reset = (Step("reset", ("first",)),)
    first = [DriverFind(Breach("errnos.documented", "x", ""), reset, "q35-intel", "mixed")]
    both = [
        plan("mixed", once, enough=0, seconds=0.0, first=first)[0],
        plan("alone", always, enough=0, seconds=0.0, first=first)[0],
    ]
    events: list[dict[str, Any]] = []
    outcome = Outcome()
    run.run_one(WANTED, both, outcome, events.append)
    assert (len(outcome.finds), outcome.flaky) == (1, [])
    told = [each for each in events if each["event"] == "find"]
    assert [(each["seen"], each["repeats"]) for each in told] == [
        ("sometimes", False),
        ("always", True),
    ]
    assert {each["signature"] for each in told} == {outcome.finds[0].signature}
    assert [Path(each["file"]).parent.name for each in told] == ["flaky", "finds"]


class _Quiet:
    """The progress without a terminal."""

    count = staticmethod(lambda number, name: f"{number} {name}s")

    @contextlib.contextmanager
    def task(self, *_args: Any, **_more: Any) -> Iterator[Any]:
        yield SimpleNamespace(update=lambda **_more: None)


def test_finds_of_processes_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is told once, whichever process was first; machine and time go to all of them."""
    find = DriverFind(Breach("isolation.memory", "x", ""), (Step("look"),), "q35-intel", "mixed")
    other = DriverFind(Breach("nofail.back", "x", ""), (Step("look"),), "q35-intel", "pairs")
    argvs: list[list[str]] = []
    lock = threading.Lock()

    wanted = Wanted("7.3", None, 6.0, 1, jobs=2, on="q35-intel", most=7)

    def child(argv: list[str], **more: Any) -> Any:
        with lock:
            argvs.append(argv)
        for each, seen in ((find, Seen.ALWAYS), (other, Seen.SOMETIMES)):
            more["on_line"](json.dumps(run._event(wanted, each, seen, Path("/log"), None)))
        more["on_line"]("no JSON")
        numbers = {"operations": 5, "sequences": 2, "boots": 1, "seconds": 1.5, "blocks": 0}
        more["on_line"](json.dumps({"event": "end", "exit": 1, **numbers}))
        return SimpleNamespace(returncode=1, stderr="")

    monkeypatch.setattr(processes, "run", child)
    monkeypatch.setattr(run, "progress", _Quiet())
    outcome, events = Outcome(), list[dict[str, Any]]()
    run.run_all(wanted, [plan()[0]], outcome, events.append)
    assert (outcome.finds, outcome.flaky) == ([find], [other])
    assert len(events) == 2
    assert (outcome.operations, outcome.sequences, outcome.boots) == (10, 4, 2)
    assert sorted(each[each.index("--seed") + 1] for each in argvs) == ["1", "2"]
    assert all(each[each.index("--on") + 1] == "q35-intel" for each in argvs)
    assert all(each[each.index("--operations") + 1] == "4" for each in argvs)


# What the user asks for.


@pytest.mark.parametrize(
    ("on", "layout", "what"),
    [
        ("q36", "", "no machine 'q36' to explore (use q35-intel, q35-intel-scalable, q35-amd)"),
        ("../x", "", "no machine '../x' to explore"),
        ("uml-x86_64", "", "no machine"),
        ("q35-intel", "none", "no layout 'none' (there are mixed, pairs, alone)"),
    ],
)
def test_what_cannot_be_explored(on: str, layout: str, what: str) -> None:
    """It is an error of one line, before anything is built."""
    with pytest.raises(UserError) as caught:
        plans_of(Wanted("7.3", None, 1.0, 0, on=on, layout=layout))
    assert str(caught.value).startswith(what)
    assert "\n" not in str(caught.value)


def test_a_rule_that_is_none() -> None:
    """The rules of the core are not those of drivers."""
    with pytest.raises(UserError, match="no rule 'iova'; there are belief"):
        plans_of(Wanted("7.3", None, 1.0, 0, without=("iova",), on="q35-intel"))


def test_the_command_with_an_unknown_machine() -> None:
    """The user sees that one line."""
    with pytest.raises(UserError, match="no machine 'q36' to explore"):
        CliRunner().invoke(
            cli, ["explore", "7.3", "--on", "q36"], catch_exceptions=False, standalone_mode=False
        )


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build no kernel."""
    kernel = SimpleNamespace(image=Path("/image"), modules=())
    subject = SimpleNamespace(subject=SimpleNamespace(base="7.3", patch="a/0001"))
    monkeypatch.setattr(plans, "queued", lambda _base, _at: subject)
    monkeypatch.setattr(drivers, "kernel_of", lambda _subject, _world, **_more: kernel)


@pytest.mark.parametrize("light", [False, True])
def test_a_light_kernel_has_one_fragment_more(*, light: bool) -> None:
    """It is merged last, so that it takes out what the others have asked for."""
    asked: list[Case] = []
    kernel: Any = object()

    def build(case: Case, _build: bool) -> Any:
        asked.append(case)
        return kernel

    subject: Any = SimpleNamespace(kernel=build)
    world = World.open("q35-intel", "mixed")
    assert drivers.kernel_of(subject, world, light=light) is kernel
    own = world.machine.config
    assert asked[0].machine.config == ((*own, "light.config") if light else own)
    assert (project_root() / "selftests/configs/light.config").is_file()


@pytest.mark.usefixtures("built")
def test_one_plan_for_each_layout() -> None:
    """They share the time, and each gets the finds of its own layout first."""
    finds = [
        DriverFind(Breach(rule, "x", ""), (Step("look"),), "q35-intel", layout)
        for rule, layout in (("nofail.back", "mixed"), ("regions.lost", "alone"))
    ]
    for each in finds:
        store.keep(WANTED.place, each)
    found = plans_of(WANTED)
    assert [each.seconds for each in found] == [2.0] * len(layouts())
    assert [list(each.first) for each in found] == [[finds[0]], [], [finds[1]]]
    assert len({each.log for each in found} | {each.database for each in found}) == 6
    assert all((each.base, each.step, each.go_on) == ("7.3", "a/0001", True) for each in found)
    (one,) = plans_of(Wanted("7.3", None, 6.0, 1, empty=True, on="q35-amd", layout="pairs"))
    assert (one.seconds, list(one.first), one.database) == (6.0, [], None)


@pytest.mark.usefixtures("built")
def test_a_find_is_replayed_on_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its machine and layout are those of the file, whatever else was asked for."""
    asked: list[Wanted] = []
    steps = (
        Step("bind", ("control", VFIO)),
        Step("claim", ("group", "control")),
        Step("release", ("control",)),
        Step("look"),
    )
    find = DriverFind(Breach("isolation.memory", "x", ""), steps, "q35-intel", "alone")

    def one(wanted: Wanted) -> list[Plan]:
        asked.append(wanted)
        return [plan(wanted.layout)[0]]

    monkeypatch.setattr(run, "plans_of", one)
    monkeypatch.setattr(progress, "note", lambda _text: None)
    events: list[dict[str, Any]] = []
    begin = time.monotonic()
    assert run.replayed(Wanted("7.3", None, 1.0, 0, on="q35-amd"), find, events.append) == 1
    assert (asked[0].on, asked[0].layout, asked[0].empty) == ("q35-intel", "alone", True)
    assert [each["event"] for each in events] == ["find", "end"]
    assert events[0]["signature"] == SIGNATURE
    assert time.monotonic() - begin < 5
    found = DriverFind(Breach("isolation.memory", "x", ""), steps, "q35-intel", "alone")
    assert run.shown(WANTED, found).signature == SIGNATURE
    with pytest.raises(UserError, match="it is not so"):
        run.shown(WANTED, DriverFind(Breach("nofail.back", "x", ""), steps, "q35-intel", "alone"))


def test_a_find_is_replayed_behind_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another breach does not hide it, and is named."""
    said: list[str] = []

    def after(guest: FakeGuest, line: str, word: str) -> str | None:
        return "EIO" if line.startswith("reset") else leaks(guest, line, word)

    entry = Known(("q35-intel: errnos.*",), "r", "s", datetime.date(2100, 1, 1))
    one = replace(plan(after=after)[0], exceptions=Exceptions(known=(entry,)))
    monkeypatch.setattr(run, "plans_of", lambda _wanted: [one])
    monkeypatch.setattr(progress, "note", said.append)
    events: list[dict[str, Any]] = []
    find = replace(KEPT, operations=(Step("reset", ("first",)), *LEAKS))
    assert run.replayed(WANTED, find, events.append) == 1
    told, end = events
    assert (told["signature"], end["finds"]) == (SIGNATURE, 1)
    other = "q35-intel: errnos.documented after reset"
    assert end["others"] == [other]
    assert said == [f"FAIL: 7.3 a/0001: 5 operations; also {other} (known)"]
