# SPDX-License-Identifier: GPL-2.0-only
"""Read ``selftests/calibration.toml``: what is measured of the emulated IOMMUs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from iommuq.firmware import topology
from iommuq.guests import machine as machines
from iommuq.guests.machine import Machine
from iommuq.system import files, tables
from iommuq.system.tables import Table, require

PLACE = "selftests/calibration.toml"
#: The memory that the program uses: address and size in bytes. The scenarios use other memory.
POOL = 0x3C000000
POOL_SIZE = 0x200000
#: The device that measures, and one behind a bridge, by their ids.
WITNESS, BRIDGED, BRIDGE, ENDPOINT = "control", "first", "bridge", "ats"

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True)
class Row(Table):
    """One thing that is measured.

    :ivar how: how it is measured; of one that cannot be measured, why.
    :ivar machines: where it is measured; none: it cannot be.
    :ivar means: what may be concluded, by answer.
    :ivar register: the name of a row of `bit`; that row's value has the answer.
    :ivar bit: in the register: the answer is ``yes`` or ``no``.
    """

    name: str
    title: str
    how: str
    machines: tuple[str, ...] = ()
    means: Mapping[str, str] = field(default_factory=dict)
    register: str = ""
    bit: int | None = None

    def __post_init__(self) -> None:
        require(_NAME.fullmatch(self.name), "name is not a word in lower case")
        for key, text in (("title", self.title), ("how", self.how)):
            require(text.strip() and "\n" not in text.strip(), f"{key} is not one line")
        require(bool(self.machines) == bool(self.means), "machines and means go together")
        for answer, text in self.means.items():
            require(_NAME.fullmatch(answer), f"means: {answer!r} is not a word in lower case")
            require(text.strip(), f"means: {answer} is empty")
        require(bool(self.register) == (self.bit is not None), "register and bit go together")
        require(self.bit is None or 0 <= self.bit < 64, "bit is not between 0 and 63")
        require(self.bit is None or set(self.means) == {"yes", "no"}, "means: a bit is yes or no")


@dataclass(frozen=True)
class Calibration(Table):
    """The content of the file.

    :ivar kernel: package of the kernel that the guests run.
    """

    kernel: str
    row: tuple[Row, ...]

    def __post_init__(self) -> None:
        names = [row.name for row in self.row]
        require(len(set(names)) == len(names), "row: two have one name")
        known = {name for name, machine in all_machines().items() if WITNESS in machine}
        for row in self.row:
            for name in row.machines:
                require(name in known, f"row: {row.name}: no machine {name!r} with a {WITNESS}")

    @property
    def machines(self) -> tuple[str, ...]:
        """The names of the machines of any row, in the order of first mention."""
        return tuple(dict.fromkeys(name for row in self.row for name in row.machines))


def all_machines() -> dict[str, frozenset[str]]:
    """Return the ids of the devices of each machine that QEMU runs."""
    found = (machines.load_machine(name) for name in machines.names())
    return {
        machine.name: frozenset(topology.devices(machine))
        for machine in found
        if machine.qemu is not None
    }


def load() -> Calibration:
    """Read the file.

    :raises UserError: it is missing or malformed.
    """
    return tables.load_toml(Calibration, files.project_root() / PLACE)


def arguments(machine: Machine, *, driver: bool) -> tuple[str, ...]:
    """Return the kernel's arguments: with the driver of its IOMMU, or with none."""
    if driver:
        return machine.arguments
    # The later one of two holds. The program drives the IOMMU itself.
    off = ("iommu=off", "intel_iommu=off", "amd_iommu=off", "intremap=off")
    return (*machine.arguments, *off, f"memmap={POOL_SIZE >> 10}K${POOL:#x}")


def command(machine: Machine, *, driver: bool) -> tuple[str, ...]:
    """Return the arguments of the program in the guest."""
    devices = topology.devices(machine)
    if driver:
        return ("kernel", *(devices[name].address for name in (ENDPOINT,) if name in devices))
    words = [topology.table_of(machine) or "none", f"{POOL:x}", devices[WITNESS].address]
    if BRIDGED in devices:
        words += [devices[BRIDGED].address, devices[BRIDGE].address]
    return tuple(words)
