# SPDX-License-Identifier: GPL-2.0-only
"""Replace an ACPI table of a guest (Documentation/admin-guide/acpi/initrd_table_override.rst).

Linux ignores a table silently, so the guest is asked afterwards which one it uses."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from iommuq.firmware import topology
from iommuq.firmware.scenario import Region
from iommuq.firmware.tables.anytable import Device as Place
from iommuq.firmware.tables.anytable import Reservation, Spread, extend, parse
from iommuq.firmware.tables.ivrs import EXCLUSION, READ, UNITY, WRITE
from iommuq.guests import qemu
from iommuq.guests.initramfs import Entry, cpio
from iommuq.guests.machine import Machine
from iommuq.system import files
from iommuq.system.errors import InfraError, UserError, os_errors_as

# Part of the key of a cached table; raise it when tables are read in another way.
_GENERATION = "1"
_FOLDER = "kernel/firmware/acpi"
_FLAGS = {"unity": UNITY | READ | WRITE, "exclusion": EXCLUSION}


def cached(machine: Machine) -> Path:
    """Return the cache file for a machine's own table; its name depends on machine and QEMU."""
    words = (_GENERATION, qemu.full_version(), repr(machine.qemu), str(machine.cpus))
    key = files.hash_of(*words)[:32]
    return files.cache_dir() / "firmware" / f"{key}.{topology.table_of(machine)}"


def find(machine: Machine) -> bytes | None:
    """Return the machine's own table; None if no boot has read it yet."""
    path = cached(machine)
    try:
        data = path.read_bytes()
        parse(data, name=str(path))
    except (OSError, UserError):
        return None
    return data


def keep(machine: Machine, data: bytes) -> None:
    """Put the table that a guest has read into the cache.

    :raises InfraError: the table is malformed, or the cache cannot be written.
    """
    path = cached(machine)
    try:
        parse(data, name=f"the table of {machine.name}")
    except UserError as error:
        raise InfraError(error.what, hint="the guest's own table cannot be extended") from error
    with os_errors_as(InfraError, path.parent, hint="set IOMMUQ_CACHE_DIR to another directory"):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, data)


def extended(table: bytes, machine: Machine, regions: Sequence[Region]) -> bytes:
    """Return a machine's table with the regions of a scenario.

    :param table: the table that the firmware makes.
    :raises UserError: this kind of table cannot describe a region.
    """
    devices = topology.devices(machine)
    claims = []
    for region in regions:
        places = tuple(Place(devices[name].path, devices[name].devid) for name in region.devices)
        spread, flags = Spread(region.spread), _FLAGS[region.kind]
        claims.append(Reservation(region.base, region.size, places, spread, flags))
    return extend(table, claims)


def archive(machine: Machine, table: bytes) -> bytes:
    """Return the cpio archive with a table, to be put before the initramfs."""
    path = PurePosixPath(_FOLDER, f"{topology.table_of(machine)}.aml")
    folders = [str(folder) for folder in reversed(path.parents[:-1])]
    entries = [Entry(folder, stat.S_IFDIR | 0o755) for folder in folders]
    return cpio([*entries, Entry(str(path), stat.S_IFREG | 0o644, table)])
