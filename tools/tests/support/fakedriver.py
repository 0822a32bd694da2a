# SPDX-License-Identifier: GPL-2.0-only
"""A guest of `DriverPlayer` that is a model of a kernel, with bugs to choose from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from iommuq.explore.drivers.steps import VFIO
from iommuq.explore.drivers.world import Answer, Seen, World
from iommuq.explore.guest import GuestDied
from iommuq.firmware.scenario import OTHER, OTHER_SIZE
from iommuq.results.console import splats
from iommuq.results.console.splats import Splat

#: Devices of one group; each other device has a group of its own.
TOGETHER = (("first", "second"), ("function0", "function1"))
WARNING = (
    "------------[ cut here ]------------",
    "WARNING: CPU: 0 PID: 1 at drivers/iommu/iommu.c:12 {}+0x1/0x2",
    "---[ end trace 0000000000000000 ]---",
)
PANIC = (
    "BUG: kernel NULL pointer dereference, address: 0000000000000028",
    "RIP: 0010:{}+0x1/0x2",
    "---[ end trace 0000000000000000 ]---",
    "Kernel panic - not syncing: Fatal exception",
)


def group_of(device: str) -> int:
    """Return the number of the group that a device is in."""
    for number, names in enumerate(TOGETHER):
        if device in names:
            return number
    return 10 + sum(map(ord, device)) % 89


def booted(world: World) -> dict[str, Seen]:
    """Return what a kernel says of each device after boot."""
    return {name: Seen(True, group_of(name), "DMA") for name in world.devices}


class FakeGuest:
    """Carries lines out as a good kernel does, but for `after`.

    :ivar after: called with each line, the word and the states, after it was carried out;
        returns another word, or None.  It may change the states, and raise `died`.
    :ivar asked: all lines, by boot.
    :ivar faults: whether an allocation that is to fail is met.
    """

    def __init__(
        self, world: World, after: Callable[[FakeGuest, str, str], str | None] | None = None
    ) -> None:
        self.world, self.after = world, after
        self.log = Path("/log")
        self.boots = 0
        self.faults = True
        self.asked: list[list[str]] = []
        self.seen: dict[str, Seen] = {}
        self.mapped: dict[str, int] = {}
        self._printed: list[str] = []
        self._mark = 0
        self._sound = self._alive = False
        self._names = {address: name for name, address in world.addresses.items()}

    def renew(self) -> None:
        """Have the next sequence begin in a new guest."""
        self._sound = False

    def ready(self) -> bool:
        """Begin a sequence; whether in a new guest."""
        fresh = not (self._sound and self._alive)
        if fresh:
            self.boots += 1
            self.asked.append([])
            self.seen, self.mapped, self._printed = booted(self.world), {}, []
            self._sound = self._alive = True
        self._mark = len(self._printed)
        return fresh

    def ask(self, line: str) -> Answer:
        """Carry a line out."""
        if not self._alive:
            raise self.died("it has ended")
        self.asked[-1].append(line)
        word = self._done(line)
        if self.after is not None:
            word = self.after(self, line, word) or word
        return Answer(word, "", dict(self.seen))

    def say(self, *lines: str) -> None:
        """Print on the console."""
        self._printed += lines

    def console(self) -> list[str]:
        """Return what was printed since the sequence began."""
        return self._printed[self._mark :]

    def splats(self, told: int) -> Sequence[Splat]:
        """Return the splats since the sequence began."""
        del told
        return splats.find(self.console())

    def died(self, why: str, *, silent: bool = False) -> GuestDied:
        """Die; the error is to be raised."""
        self._alive = False
        said = self.console()
        return GuestDied(f"guest lost: {why}", hint="full log: /log", console=said, silent=silent)

    def name(self, address: str) -> str:
        """Return the device at an address."""
        return self._names[address]

    def change(self, device: str, **fields: object) -> None:
        """Change the state of a device."""
        self.seen[device] = replace(self.seen[device], **fields)  # type: ignore[arg-type]

    def owned(self, device: str) -> bool:
        """Whether a device of its group is claimed."""
        return any(
            each.claimed and each.group == self.seen[device].group for each in self.seen.values()
        )

    def _done(self, line: str) -> str:
        kind, *words = line.split("\t")
        if kind in ("listen", "enable"):
            return "ok"
        if kind == "fail":
            return "ok"
        if kind == "failed":
            return "yes" if self.faults else "no"
        if kind == "look":
            return "".join(map(self._letter, words))
        if kind == "rescan":
            for name, each in self.seen.items():
                if not each.present:
                    group = group_of(name)
                    types = {x.type for x in self.seen.values() if x.group == group}
                    self.seen[name] = Seen(True, group, *types or ("DMA",))
            return "ok"
        device = self.name(words[1] if kind == "claim" else words[0])
        return self._one(kind, device, words)

    def _one(self, kind: str, device: str, words: Sequence[str]) -> str:
        seen = self.seen[device]
        if seen.claimed and kind in ("remove", "unbind", "bind"):
            raise self.died("no answer in time: its user is waited for", silent=True)
        if kind == "claim":
            return self._claimed(device)
        if kind == "map":
            if not seen.claimed:
                return "UNCLAIMED"
            if device in self.mapped:
                return "EEXIST"
            self.mapped[device] = int(words[1], 16)
        elif kind == "release":
            self.change(device, claimed=False)
            self.mapped.pop(device, None)
        elif kind == "remove":
            if not seen.present:
                return "ENOENT"
            self.seen[device] = Seen(present=False)
        elif not seen.present:
            return "ENOENT"
        elif kind == "bind":
            self.change(device, driver=VFIO)
        elif kind == "unbind":
            self.change(device, driver="-")
        elif kind == "set-type":
            if seen.group is None:
                return "ENOENT"
            if self.owned(device):
                return "EBUSY"
            for name, each in list(self.seen.items()):
                if each.group == seen.group:
                    self.change(name, type=words[1])
        return "ok"

    def _claimed(self, device: str) -> str:
        seen = self.seen[device]
        if seen.claimed:
            return "BUSY"
        if seen.driver != VFIO:
            return "ENOENT"
        names = [n for n, each in self.seen.items() if each.group == seen.group]
        if any(self.world.region_of(name) is not None for name in names):
            return "EINVAL"
        self.change(device, claimed=True)
        return "ok"

    def _letter(self, word: str) -> str:
        address, _, place = word.partition("=")
        device = self.name(address)
        seen = self.seen[device]
        owner, at, _ = place.rpartition("@")
        if at:
            if self.name(owner) not in self.mapped:
                return "M"
            return "R" if self.seen[self.name(owner)].group == seen.group is not None else "B"
        where = int(place, 16)
        if OTHER <= where < OTHER + OTHER_SIZE:
            return "R" if seen.type == "identity" and not self.owned(device) else "B"
        return "R"


def states(world: World, changes: Mapping[str, Seen]) -> dict[str, Seen]:
    """Return the states after boot with some others."""
    return {**booted(world), **changes}
