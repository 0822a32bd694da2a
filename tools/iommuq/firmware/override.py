# SPDX-License-Identifier: GPL-2.0-only
"""Have a guest's kernel take another ACPI table for its firmware's.

Linux takes what it finds in ``kernel/firmware/acpi`` of an uncompressed archive before
the initramfs (Documentation/admin-guide/acpi/initrd_table_override.rst), if it is built
with ACPI_TABLE_UPGRADE and the OEM revision is higher.  What it does not take it leaves
out without a word, so the guest is asked which table it has.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from iommuq.firmware import topology
from iommuq.firmware.scenario import Region
from iommuq.firmware.tables.anytable import parse
from iommuq.firmware.tables.extend import Device as Place
from iommuq.firmware.tables.extend import Region as Claimed
from iommuq.firmware.tables.extend import Spread, extend
from iommuq.firmware.tables.ivrs import EXCLUSION, READ, UNITY, WRITE
from iommuq.guests import qemu
from iommuq.guests.initramfs import Entry, cpio
from iommuq.guests.machine import Machine
from iommuq.system import files
from iommuq.system.errors import InfraError, UserError

# Part of the key of a cached table; to be raised when it would be read otherwise.
_GENERATION = "1"
_FOLDER = "kernel/firmware/acpi"
_FLAGS = {"unity": UNITY | READ | WRITE, "exclusion": EXCLUSION}


def cached(machine: Machine) -> Path:
    """Return the file for the table of a machine as its firmware makes it.

    It depends on the machine and on QEMU, never on the kernel.
    """
    words = (_GENERATION, qemu.full_version(), repr(machine.qemu), str(machine.cpus))
    key = hashlib.sha256("\n".join(words).encode()).hexdigest()[:32]
    return files.cache_dir() / "firmware" / f"{key}.{topology.table_of(machine)}"


def find(machine: Machine) -> bytes | None:
    """Return the machine's own table if some boot has read it."""
    path = cached(machine)
    try:
        data = path.read_bytes()
        parse(data, name=str(path))
    except (OSError, UserError):
        # A file that was cut short is as good as none.
        return None
    return data


def keep(machine: Machine, data: bytes) -> None:
    """Put the table that a guest has read into the cache.

    :raises InfraError: it is none, or the cache cannot be written.
    """
    path = cached(machine)
    try:
        parse(data, name=f"the table of {machine.name}")
    except UserError as error:
        raise InfraError(error.what, hint="the guest's own table cannot be extended") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            temporary = Path(file.name)
            file.write(data)
        os.replace(temporary, path)  # noqa: PTH105
    except OSError as error:
        with contextlib.suppress(OSError, UnboundLocalError):
            temporary.unlink()
        raise InfraError(
            f"{path.parent}: {error.strerror}", hint="IOMMUQ_CACHE_DIR names another place"
        ) from error


def extended(table: bytes, machine: Machine, regions: Sequence[Region]) -> bytes:
    """Return a machine's table with the regions of a scenario.

    :param table: as its firmware makes it.
    :raises UserError: the table cannot say that.
    """
    devices = topology.devices(machine)
    return extend(
        table,
        [
            Claimed(
                region.base,
                region.size,
                tuple(Place(devices[n].path, devices[n].devid) for n in region.devices),
                Spread(region.spread),
                _FLAGS[region.kind],
            )
            for region in regions
        ],
    )


def archive(machine: Machine, table: bytes) -> bytes:
    """Return what is to come before the initramfs."""
    parts = Path(_FOLDER).parts
    folders = ["/".join(parts[: number + 1]) for number in range(len(parts))]
    name = f"{_FOLDER}/{topology.table_of(machine)}.aml"
    return cpio(
        [
            *(Entry(folder, stat.S_IFDIR | 0o755) for folder in folders),
            Entry(name, stat.S_IFREG | 0o644, table),
        ]
    )
