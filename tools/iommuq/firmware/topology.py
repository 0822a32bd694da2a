# SPDX-License-Identifier: GPL-2.0-only
"""PCI addresses of the devices of a machine, computed from QEMU's options.

Firmware numbers buses depth first, by the addresses of the bridges; each scenario checks it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from iommuq.guests.machine import Machine
from iommuq.system.errors import UserError

#: QEMU's IOMMUs and the ACPI table that describes each.
TABLES: Mapping[str, str] = {"intel-iommu": "DMAR", "amd-iommu": "IVRS"}

# Vendor and device ID of QEMU's models.
_IDS: Mapping[str, str] = {
    "edu": "1234:11e8",
    "pcie-pci-bridge": "1b36:000e",
    "pcie-root-port": "1b36:000c",
    "qemu-xhci": "1b36:000d",
    "virtio-rng-pci": "1af4:1044",
}
#: Models that have a bus below them.
BRIDGES = ("pcie-pci-bridge", "pci-bridge", "pcie-root-port")
_ROOT = "pcie.0"
_ADDRESS = re.compile(r"(?:0x)?([0-9a-fA-F]{1,2})(?:\.([0-7]))?")


@dataclass(frozen=True)
class Device:
    """A device that a scenario can name.

    :ivar name: QEMU's id.
    :ivar model: QEMU's name of the model.
    :ivar bus: bus number.
    :ivar path: device and function of each bridge from the root bus, then its own.
    """

    name: str
    model: str
    bus: int
    path: tuple[tuple[int, int], ...]

    @property
    def address(self) -> str:
        """Its address as in sysfs."""
        slot, function = self.path[-1]
        return f"0000:{self.bus:02x}:{slot:02x}.{function:x}"

    @property
    def devid(self) -> int:
        """Its requester ID, 16 bits."""
        slot, function = self.path[-1]
        return self.bus << 8 | slot << 3 | function

    @property
    def pci_id(self) -> str:
        """Vendor and device ID in hexadecimal; ``-``: unknown."""
        return _IDS.get(self.model, "-")


@dataclass(frozen=True)
class _Option:
    model: str
    name: str
    bus: str
    place: tuple[int, int]


def table_of(machine: Machine) -> str:
    """Return the signature of the table that describes the machine's IOMMU; empty without one."""
    assert machine.qemu is not None
    models = [text.partition(",")[0] for text in machine.qemu.devices]
    return next((TABLES[model] for model in models if model in TABLES), "")


def devices(machine: Machine) -> dict[str, Device]:
    """Return the devices of a machine that have an id, by id.

    :raises UserError: a device has no address, or its bus does not exist.
    """
    assert machine.qemu is not None
    parsed = (_parse(machine.name, text) for text in machine.qemu.devices)
    options = [option for option in parsed if option is not None]
    found: dict[str, Device] = {}
    _number(options, _ROOT, 0, (), found)
    for option in options:
        if option.name not in found:
            raise _wrong(machine.name, option.name, f"no bus {option.bus!r}")
    if len(found) != len(options):
        raise UserError(f"machine {machine.name}: two devices have one id")
    places = {device.address: name for name, device in found.items()}
    for name, device in found.items():
        if places[device.address] != name:
            raise _wrong(machine.name, name, f"same address as {places[device.address]}")
    return found


def _parse(machine: str, text: str) -> _Option | None:
    model, *words = text.split(",")
    options = dict(word.partition("=")[::2] for word in words)
    name = options.get("id", "")
    if not name:
        return None
    match = _ADDRESS.fullmatch(options.get("addr", ""))
    if match is None or int(match[1], 16) > 31:
        raise _wrong(machine, name, "needs addr=, a slot in hexadecimal like 5 or 1f.2")
    return _Option(model, name, options.get("bus", _ROOT), (int(match[1], 16), int(match[2] or 0)))


def _number(
    options: list[_Option],
    bus: str,
    number: int,
    way: tuple[tuple[int, int], ...],
    found: dict[str, Device],
) -> int:
    """Put what is on a bus and below into *found*; return the last bus number used."""
    last = number
    for option in sorted((o for o in options if o.bus == bus), key=lambda o: o.place):
        path = (*way, option.place)
        found[option.name] = Device(option.name, option.model, number, path)
        if option.model in BRIDGES:
            last = _number(options, option.name, last + 1, path, found)
    return last


def _wrong(machine: str, name: str, what: str) -> UserError:
    return UserError(f"machine {machine}: qemu.devices: {name}: {what}")
