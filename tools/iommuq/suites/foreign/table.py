# SPDX-License-Identifier: GPL-2.0-only
"""Read ``selftests/foreign.toml``: whence the suites come, how they are built, run and judged."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from iommuq.firmware import topology
from iommuq.firmware.scenario import ACTIONS, Scenario
from iommuq.guests import machine as machines
from iommuq.guests.machine import Machine
from iommuq.suites.vfio.suite import CONTROL, MARKED
from iommuq.system import tables
from iommuq.system.errors import UserError
from iommuq.system.tables import Table, require

#: The file, below the checkout.
PLACE = Path("selftests/foreign.toml")
#: In the arguments of a program: the address of its device.
DEVICE = "{device}"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_URL = re.compile(r"https://[\w./~+-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def _expression(key: str, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"{key}: {error}") from error


@dataclass(frozen=True)
class Program(Table):
    """One program of a suite.

    :ivar path: where the build leaves it.
    :ivar control: the device that it must pass with, by its id.
    :ivar marked: the device that it must not be able to open.
    :ivar limit: seconds for one of its two runs.
    :ivar endless: it never ends by itself; it is ended after this many seconds.
    :ivar read: what tells a pass: its exit status, its TAP, or also the pattern.
    :ivar pattern: a regular expression that is in the output of a pass.
    :ivar fails: one that is not.
    :ivar skips: one in the output of a run that tested nothing, which is expected.
    """

    name: str
    path: str
    arguments: tuple[str, ...] = (DEVICE,)
    control: str = CONTROL
    marked: str = MARKED
    limit: float = 60.0
    endless: int = 0
    read: Literal["exit", "tap", "pattern"] = "exit"
    pattern: str = ""
    fails: str = ""
    skips: str = ""

    def __post_init__(self) -> None:
        require(_NAME.fullmatch(self.name), "name is not a word in lower case")
        require(is_inside(self.path), f"path: {self.path!r} is not below the sources")
        require(self.limit > self.endless >= 0, "limit is not above endless and 0")
        require(
            bool(self.pattern) == (self.read == "pattern"), 'pattern goes with read = "pattern"'
        )
        require(not self.endless or self.pattern, "endless needs a pattern: it has no exit status")
        for key, text in (("pattern", self.pattern), ("fails", self.fails), ("skips", self.skips)):
            _expression(key, text)
        for word in self.arguments:
            require(word.isprintable(), f"arguments: {word!r} is not printable")


@dataclass(frozen=True)
class Suite(Table):
    """One suite of others.

    :ivar url: of its git repository.
    :ivar commit: the one that the table was written for.
    :ivar build: commands, each as words for no shell, in the sources.
    :ivar tools: programs, or absolute paths, that the build needs, and the package of each.
    :ivar seconds: for the whole build.
    """

    name: str
    url: str
    commit: str
    build: tuple[str, ...]
    program: tuple[Program, ...]
    tools: dict[str, str]
    seconds: float = 300.0

    def __post_init__(self) -> None:
        require(_NAME.fullmatch(self.name), "name is not a word in lower case")
        require(_URL.fullmatch(self.url), "url is not an https: address")
        require(_COMMIT.fullmatch(self.commit), "commit is not 40 hexadecimal digits")
        require(self.build and self.program, "there is no build, or no program")
        require(0 < self.seconds <= 3600, "seconds is not between 0 and 3600")
        for line in self.build:
            try:
                words = shlex.split(line)
            except ValueError as error:
                raise ValueError(f"build: {error}") from error
            require(words, "build: an empty command")
        names = [program.name for program in self.program]
        require(len(set(names)) == len(names), "program: two have one name")


@dataclass(frozen=True)
class Foreign(Table):
    """All suites, and their guest.

    :ivar guest: binds the devices; not one of ``selftests/scenarios``.
    :ivar devices: of the guest, besides those of its machine, as for QEMU.
    :ivar memory: of the guest, in MiB.
    :ivar refused: regular expressions; the output of a refused program has one of them.
    """

    guest: Scenario
    refused: tuple[str, ...]
    suite: tuple[Suite, ...]
    devices: tuple[str, ...] = ()
    memory: int = 1024

    def __post_init__(self) -> None:
        require(self.suite, "there is no suite")
        require(self.refused and all(self.refused), "refused is empty, or has an empty word")
        for text in self.refused:
            require(not re.search(_expression("refused", text), ""), "refused: one is always true")
        names = [suite.name for suite in self.suite]
        require(len(set(names)) == len(names), "suite: two have one name")

    def machine(self, name: str) -> Machine:
        """Return a machine with the devices and the memory of the guest.

        :raises UserError: there is no such machine.
        """
        found = machines.load_machine(name)
        if found.qemu is None:
            raise UserError(f"{PLACE}: guest.machines: {name} is no machine of QEMU")
        own = replace(found.qemu, devices=(*found.qemu.devices, *self.devices))
        return replace(found, qemu=own, memory=self.memory)


def is_inside(path: str) -> bool:
    """Return whether a path is relative, and stays below where it begins."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and "\0" not in path


def load(root: Path) -> Foreign:
    """Read the file, and check it against the machines.

    :param root: the checkout of the project.
    :raises UserError: it is missing or malformed, or names a device that a machine lacks.
    """
    found = tables.load_toml(Foreign, root / PLACE)
    object.__setattr__(found.guest, "name", "guest")
    for name in found.guest.machines:
        there = topology.devices(found.machine(name))
        asked = [device for region in found.guest.region for device in region.devices]
        for step in found.guest.steps(name):
            kinds = ACTIONS[step.words[0]]
            asked += [w for k, w in zip(kinds, step.words[1:], strict=True) if k == "device"]
        for suite in found.suite:
            asked += [one for each in suite.program for one in (each.control, each.marked)]
        for device in asked:
            if device not in there:
                raise UserError(f"{root / PLACE}: {name} has no device {device!r}")
    return found


def choose(found: Foreign, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the machines of these names; all if none is given.

    :raises UserError: the suites do not run on such a machine.
    """
    there_are = found.guest.machines
    for name in wanted:
        if name not in there_are:
            what = f"the foreign suites have no machine {name!r}; there are {', '.join(there_are)}"
            raise UserError(what)
    return tuple(dict.fromkeys(wanted)) or there_are
