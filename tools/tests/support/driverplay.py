# SPDX-License-Identifier: GPL-2.0-only
"""Steps on a model of a guest, and bugs of its kernel."""

from __future__ import annotations

from collections.abc import Callable

from fakedriver import FakeGuest
from iommuq.explore.drivers.finds import DriverFind
from iommuq.explore.drivers.player import DriverPlayer
from iommuq.explore.drivers.rules import chosen
from iommuq.explore.drivers.steps import VFIO, Step
from iommuq.explore.drivers.world import World
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
