# SPDX-License-Identifier: GPL-2.0-only
"""What there is on a machine that is explored, and the state that a guest tells."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from iommuq.firmware import topology
from iommuq.firmware.scenario import OTHER, PAGE, Region
from iommuq.guests.machine import Machine, load_machine
from iommuq.system.errors import UserError
from iommuq.system.tables import own_table

#: Where the first region is, the distance of the next, and the size of each, in bytes.
BASE, DISTANCE, SIZE = 0x3E000000, 0x100000, 0x10000
#: The model of the devices that the DMA oracle is, and of one that can be reset by itself.
_ORACLE, _RESETTABLE = "edu", "virtio-rng-pci"
# Bridges that hide which device it was: those behind one have one requester ID.
_HIDING = "pcie-pci-bridge"
_WORD = re.compile(r"[A-Za-z0-9_.:+-]{1,64}", re.ASCII)
_STATE = re.compile(r"(x|-|\d{1,6}),([\w-]{1,20}),([\w-]{1,20}),([01])", re.ASCII)


@dataclass(frozen=True)
class Kind:
    """One kind of step; ``drivers.toml`` explains the fields."""

    name: str
    words: tuple[str, ...]
    errnos: tuple[str, ...]
    source: str
    weight: int
    fails: bool
    changes: bool = False


@cache
def data() -> Mapping[str, Any]:
    """Return the content of ``drivers.toml``."""
    return own_table(__package__, "drivers.toml")


@cache
def kinds() -> Mapping[str, Kind]:
    """Return the kinds of steps by name."""
    return {
        each["name"]: Kind(
            each["name"],
            tuple(each["words"]),
            tuple(each["errnos"]),
            each["source"],
            each["weight"],
            each["fails"],
            each.get("changes", False),
        )
        for each in data()["step"]
    }


@dataclass(frozen=True)
class World:
    """A machine with the regions that its firmware claims.

    :ivar devices: names of the devices that steps are about; see `topology.devices`.
    :ivar oracles: those that can tell what they reach.
    :ivar blind: those of which the IOMMU's table tells in their place.
    :ivar shares: device -> all that have its requester ID, itself among them.
    """

    machine: Machine
    layout: str
    regions: tuple[Region, ...]
    devices: tuple[str, ...]
    oracles: tuple[str, ...]
    blind: tuple[str, ...]
    addresses: Mapping[str, str]
    shares: Mapping[str, frozenset[str]]

    @classmethod
    def open(cls, machine: str, layout: str) -> World:
        """Read what the machine has.

        :raises UserError: it cannot be explored, or there is no such layout.
        """
        entries = {each["name"]: each for each in data()["machine"]}
        layouts = {each["name"]: each for each in data()["layout"]}
        if machine not in entries:
            raise UserError(f"no machine {machine!r} to explore", hint=f"use {', '.join(entries)}")
        if layout not in layouts:
            raise UserError(f"no layout {layout!r}", hint=f"there are {', '.join(layouts)}")
        found = load_machine(machine)
        places = topology.devices(found)
        bridges = {option.path for option in places.values() if option.model == _HIDING}
        names = [n for n, each in places.items() if each.model in (_ORACLE, _RESETTABLE)]
        blind = entries[machine].get("blind", [])
        regions = tuple(
            Region(tuple(devices), BASE + number * DISTANCE, SIZE, name)
            for number, (name, devices) in enumerate(layouts[layout]["regions"].items())
        )
        shares = {}
        for name in names:
            above = places[name].path[:-1]
            same = [n for n in names if above in bridges and places[n].path[:-1] == above]
            shares[name] = frozenset([name, *same])
        return cls(
            found,
            layout,
            regions,
            tuple(names),
            tuple(n for n in names if places[n].model == _ORACLE and n not in blind),
            tuple(blind),
            {name: places[name].address for name in names},
            shares,
        )

    def region_of(self, device: str) -> Region | None:
        """Return the region that firmware claims for a device."""
        return next((region for region in self.regions if device in region.devices), None)

    def cell(self, device: str) -> int:
        """Return the offset in a page at which a device writes: each has its own."""
        return 4 * self.devices.index(device)

    def iova(self, device: str) -> int:
        """Return where the memory of an owner of a device is mapped.

        Reserved memory is at that address, so a device that reaches all memory does no harm.
        """
        return OTHER + PAGE * (1 + self.devices.index(device))


def layouts() -> tuple[str, ...]:
    """Return the names of all layouts."""
    return tuple(each["name"] for each in data()["layout"])


@dataclass(frozen=True)
class Seen:
    """What the kernel says of a device.

    :ivar present: the kernel sees it.
    :ivar group: the number of its group; None: it is in none.
    :ivar claimed: the program in the guest has claimed it.
    """

    present: bool = True
    group: int | None = None
    type: str = "-"
    driver: str = "-"
    claimed: bool = False


#: What two states have in common that differ in the numbers of groups alone: each device
#: without its group, and the members of that.
Shape = Mapping[str, tuple[Seen, tuple[str, ...]]]


@dataclass(frozen=True)
class Answer:
    """What came of a step.

    :ivar word: ok, an errno, or what was asked for.
    """

    word: str
    more: str
    devices: Mapping[str, Seen]


def answer(world: World, lines: Sequence[str], number: int, before: Mapping[str, Seen]) -> Answer:
    """Parse the lines that a guest says for a step.

    :param before: the devices before it: not all steps change them.
    :raises ValueError: they are malformed.
    """
    word = more = ""
    for line in lines[:-1]:
        name, _, rest = line.partition(" ")
        if name == "round:":
            continue
        told, _, rest = rest.partition(" ")
        if name != "step" or told != str(number) or word:
            raise ValueError(line[:80])
        word, _, more = rest.partition(" ")
        # It goes into finds, and from there into scenarios.
        if _WORD.fullmatch(word) is None:
            raise ValueError(line[:80])
    last = lines[-1].split(" ")
    if word and last == ["now", str(number), "="] and before.keys() == set(world.devices):
        return Answer(word, more, before)
    if not word or last[:2] != ["now", str(number)] or len(last) != 2 + len(world.devices):
        raise ValueError(lines[-1][:80])
    states = {}
    for name, text in zip(world.devices, last[2:], strict=True):
        match = _STATE.fullmatch(text)
        if match is None:
            raise ValueError(text[:80])
        group = int(match[1]) if match[1] not in ("x", "-") else None
        states[name] = Seen(match[1] != "x", group, match[2], match[3], match[4] == "1")
    return Answer(word, more, states)


@dataclass
class State:
    """All that is known while a sequence goes on.

    :ivar seen: device -> what the kernel says of it.
    :ivar mapped: devices whose owner has mapped its page.
    :ivar reached: from the last look: (device, place) -> a letter of ``look.c``.
    """

    seen: dict[str, Seen] = field(default_factory=dict)
    mapped: set[str] = field(default_factory=set)
    reached: dict[tuple[str, str], str] = field(default_factory=dict)

    def group(self, device: str) -> list[str]:
        """Return the devices of the group of a device, itself among them."""
        own = self.seen[device].group
        return [name for name, each in self.seen.items() if own is not None and each.group == own]

    def shape(self) -> Shape:
        """Return its shape."""
        return {
            name: (replace(each, group=None), tuple(self.group(name)))
            for name, each in self.seen.items()
        }

    def owned(self, device: str) -> bool:
        """Whether a device of its group is claimed."""
        return any(self.seen[name].claimed for name in self.group(device))
