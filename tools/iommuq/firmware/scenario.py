# SPDX-License-Identifier: GPL-2.0-only
"""Read and check ``selftests/scenarios/*.toml``; ``docs/firmware.md`` explains the keys."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from iommuq.firmware import topology
from iommuq.firmware.topology import Device
from iommuq.guests import machine as machines
from iommuq.guests.machine import Machine
from iommuq.system import files, tables
from iommuq.system.errors import UserError
from iommuq.system.tables import Table, require

#: Memory that every boot reserves and no firmware claims: address and size in bytes.
OTHER = 0x3D000000
OTHER_SIZE = 0x10000
PAGE = 0x1000
#: The check that every scenario has besides its own.
NO_SPLAT = "no_splat"

_DATA = tables.own_table(__package__, "actions.toml")
#: The actions in the guest, and the kinds of their arguments.
ACTIONS: Mapping[str, tuple[str, ...]] = {k: tuple(v) for k, v in _DATA["actions"].items()}
_CHOICES: Mapping[str, tuple[str, ...]] = {k: tuple(v) for k, v in _DATA["choices"].items()}
_RANGES: Mapping[str, tuple[int, int]] = {k: (v[0], v[1]) for k, v in _DATA["ranges"].items()}
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_CHECK = re.compile(r"[a-z0-9][a-z0-9_]*")
_WORD = re.compile(r"[\w.:/-]+")

Need = Literal["group", "cdev", "faults"]


@dataclass(frozen=True)
class Region(Table):
    """Memory that firmware claims for some devices.

    :ivar devices: names of devices of the machine.
    :ivar base: first address.
    :ivar size: in bytes.
    :ivar name: the word for *base* in steps.
    :ivar kind: ``unity`` (an RMRR or an IVMD unity map) or ``exclusion`` (IVMD only).
    :ivar spread: one entry for ``each`` device, or (IVMD only) one entry for the ``range``
        from the first to the last device, or for ``all`` devices.
    :ivar reserved: the kernel command line reserves this memory.
    """

    devices: tuple[str, ...]
    base: int
    size: int
    name: str = "region"
    kind: Literal["unity", "exclusion"] = "unity"
    spread: Literal["each", "range", "all"] = "each"
    reserved: bool = True

    def __post_init__(self) -> None:
        require(self.devices, "devices is empty")
        require(_NAME.fullmatch(self.name), "name is not a word in lower case")
        require(self.name != "other", "name: `other` is a reserved name")
        require(self.base >= 0 and self.base % PAGE == 0, "base is not a multiple of the page size")
        require(self.size > 0 and self.size % PAGE == 0, "size is not a multiple of the page size")
        require(self.base + self.size <= 1 << 52, "it ends beyond 52 bits")
        clear = self.base + self.size <= OTHER or self.base >= OTHER + OTHER_SIZE
        require(clear, f"it overlaps the memory at {OTHER:#x} that no firmware claims")


@dataclass(frozen=True)
class Action(Table):
    """One action in the guest.

    :ivar do: a key of `ACTIONS` and its arguments.
    :ivar check: name of the result; empty for a step that only sets up.
    :ivar expect: the words that the step may end with.
    :ivar machines: machines that the step is for; empty: all of the scenario.
    """

    do: str
    check: str = ""
    expect: tuple[str, ...] | str = "ok"
    machines: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(not self.check or _CHECK.fullmatch(self.check), "check is not a name like a_b")
        require(self.check != NO_SPLAT, f"check: every scenario has {NO_SPLAT}")
        require(self.expected, "expect is empty")
        for word in self.expected:
            require(_WORD.fullmatch(word), f"expect: {word!r} is not one word")
        words = self.words
        require(words and words[0] in ACTIONS, f"do: there are {', '.join(ACTIONS)}")
        kinds = ACTIONS[words[0]]
        usage = " ".join(kinds).upper() or "nothing"
        require(len(words) == 1 + len(kinds), f"do: {words[0]} takes {usage}")
        for kind, word in zip(kinds, words[1:], strict=True):
            choice = _CHOICES.get(kind)
            require(not choice or word in choice, f"do: {word!r} is none of {choice}")
            require(word.isprintable() and word, f"do: {word!r} is not printable")
            if kind in _RANGES:
                value = _number(word)
                require(value is not None, f"do: {word!r} is not a number")
                least, most = _RANGES[kind]
                require(least <= (value or 0) <= most, f"do: {word} is no {kind}")
            elif kind in ("driver", "function"):
                require(_WORD.fullmatch(word), f"do: {word!r} is no {kind}")

    @property
    def expected(self) -> tuple[str, ...]:
        """`expect` as a tuple."""
        return (self.expect,) if isinstance(self.expect, str) else self.expect

    @property
    def words(self) -> list[str]:
        """The words of `do`."""
        try:
            return shlex.split(self.do)
        except ValueError as error:
            raise ValueError(f"do: {error}") from error


@dataclass(frozen=True)
class Scenario(Table):
    """One scenario, named after its file.

    :ivar title: what must hold, in one line.
    :ivar holds: the same in full.
    :ivar machines: machines that it runs on.
    :ivar arguments: for the kernel command line.
    :ivar needs: what the kernel must offer; a scenario without it is skipped.
    :ivar alone: it disturbs other scenarios and needs its own boot.
    :ivar seconds: estimated duration; the longest start first.
    """

    title: str
    holds: str
    machines: tuple[str, ...]
    step: tuple[Action, ...]
    region: tuple[Region, ...] = ()
    arguments: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    alone: bool = False
    seconds: int = 1
    name: str = field(default="", init=False)

    def __post_init__(self) -> None:
        require(self.machines, "machines is empty")
        require(self.title.strip() and "\n" not in self.title, "title is not one line")
        require(self.holds.strip(), "holds is empty")
        require(self.seconds > 0, "seconds is not above 0")
        names = [region.name for region in self.region]
        require(len(set(names)) == len(names), "region: two have the same name")
        require(any(step.check for step in self.step), "step: no step has a check")
        for word in self.arguments:
            require(word.isprintable() and not re.search(r"\s", word), "arguments: not one word")
        for machine in self.machines:
            checks = [step.check for step in self.steps(machine) if step.check]
            require(len(set(checks)) == len(checks), f"step: {machine} has two checks of one name")

    def steps(self, machine: str) -> tuple[Action, ...]:
        """Return the steps for a machine."""
        return tuple(step for step in self.step if not step.machines or machine in step.machines)

    def checks(self, machine: str = "") -> tuple[str, ...]:
        """Return the names of the checks, on one machine or on all."""
        steps = self.steps(machine) if machine else self.step
        return (*dict.fromkeys(step.check for step in steps if step.check), NO_SPLAT)

    def test(self, machine: str, check: str) -> str:
        """Return the name of a result."""
        return f"{machine}.{self.name}.{check}"

    @property
    def kernel_arguments(self) -> tuple[str, ...]:
        """Arguments that are added to the machine's kernel command line."""
        memory = [(OTHER, OTHER_SIZE)]
        memory += [(region.base, region.size) for region in self.region if region.reserved]
        reserve = tuple(f"memmap={size >> 10}K${base:#x}" for base, size in dict.fromkeys(memory))
        return (*reserve, *self.arguments)


def _number(word: str) -> int | None:
    try:
        value = int(word, 0)
    except ValueError:
        return None
    return value if 0 <= value < 1 << 64 else None


def address(scenario: Scenario, word: str) -> int | None:
    """Return the address for a word: ``region``, ``region+0x1000``, ``other``, ``0x…``.

    :return: None: no such region, and not a number.
    """
    name, plus, offset = word.partition("+")
    places = {region.name: region.base for region in scenario.region} | {"other": OTHER}
    base = places.get(name) if name in places else _number(name)
    more = _number(offset) if plus else 0
    return None if base is None or more is None else base + more


def folder() -> Path:
    """Return the directory of the scenarios."""
    return files.project_root() / "selftests" / "scenarios"


def names() -> list[str]:
    """Return the names of all scenarios."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def load_scenario(name: str) -> Scenario:
    """Read a scenario and check it against its machines.

    :raises UserError: there is no such scenario, or its file is malformed.
    """
    path = folder() / f"{name}.toml"
    if not _NAME.fullmatch(name) or not path.is_file():
        raise UserError(f"no scenario {name!r}", hint="`iommuq firmware list` lists them")
    scenario = tables.load_toml(Scenario, path)
    object.__setattr__(scenario, "name", name)
    for machine in scenario.machines:
        try:
            found = machines.load_machine(machine)
        except UserError as error:
            raise UserError(f"{path}: machines: {error.what}", hint=error.hint) from error
        _check_on(scenario, found, path)
    return scenario


def choose(wanted: Sequence[str]) -> list[Scenario]:
    """Return the scenarios of these names; all if no name is given.

    :raises UserError: as for `load_scenario`.
    """
    return [load_scenario(name) for name in dict.fromkeys(wanted or names())]


def _check_on(scenario: Scenario, machine: Machine, path: Path) -> None:
    devices = topology.devices(machine)
    table = topology.table_of(machine)

    def fail(key: str, what: str) -> UserError:
        return UserError(f"{path}: {key}: {what}")

    if scenario.region and not table:
        raise fail("machines", f"{machine.name} has no IOMMU and no table for a region")
    for number, region in enumerate(scenario.region):
        for name in region.devices:
            if name not in devices:
                raise fail(f"region.{number}.devices", _no_device(name, machine, devices))
        if table != "IVRS" and (region.kind, region.spread) != ("unity", "each"):
            raise fail(f"region.{number}", f'{machine.name} allows only "unity" for "each" device')
    for number, step in enumerate(scenario.step):
        for name in step.machines:
            if name not in scenario.machines:
                raise fail(f"step.{number}.machines", f"{name} is no machine of the scenario")
        words = step.words
        for kind, word in zip(ACTIONS[words[0]], words[1:], strict=True):
            if kind == "device" and word not in devices:
                raise fail(f"step.{number}.do", _no_device(word, machine, devices))
            if kind == "address" and address(scenario, word) is None:
                raise fail(f"step.{number}.do", f"{word!r} is neither a region nor an address")


def _no_device(name: str, machine: Machine, devices: Mapping[str, Device]) -> str:
    return f"no device {name!r} on {machine.name}; there are {', '.join(devices) or 'none'}"


def script(scenario: Scenario, machine: Machine) -> tuple[str, int]:
    """Return the script for the guest's program, and the number of lines before the steps.

    Those lines check the address of each device and unbind its driver.
    """
    devices = topology.devices(machine)
    lines = [["device", device.address, device.pci_id] for device in devices.values()]
    lines.append(["listen"])
    first = len(lines)
    for step in scenario.steps(machine.name):
        name, *words = step.words
        line = [name]
        for kind, word in zip(ACTIONS[name], words, strict=True):
            if kind == "device":
                line.append(devices[word].address)
            elif kind in ("address", "size", "bus"):
                line.append(f"{address(scenario, word):x}")
            else:
                line.append(word)
        lines.append(line)
    return "".join("\t".join(words) + "\n" for words in lines), first
