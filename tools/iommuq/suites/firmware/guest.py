# SPDX-License-Identifier: GPL-2.0-only
"""The firmware table of a guest: read once for each machine, and extended by regions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from iommuq.firmware import override, program, topology
from iommuq.firmware.kernels import Kernel
from iommuq.firmware.scenario import Region
from iommuq.guests.boot import boot
from iommuq.guests.initramfs import Suite, build
from iommuq.guests.machine import Machine
from iommuq.suites.firmware import verdicts
from iommuq.system import files as logs
from iommuq.system import progress
from iommuq.system.errors import InfraError
from iommuq.system.temporary import temporary_folder

_LIMIT = 60.0


def own_table(kernel: Kernel, machine: Machine) -> bytes:
    """Return the table that the machine's firmware makes: from the cache, or from a boot.

    :raises InfraError: the guest could not be booted, or has no such table.
    """
    found = override.find(machine)
    if found is not None:
        return found
    signature = topology.table_of(machine)
    log = logs.new_log(f"firmware-{machine.name}-table")
    with (
        progress.task(f"Reading the table of {machine.name}", log=log),
        temporary_folder("firmware") as work,
    ):
        script = Path(work) / "script"
        script.write_text(f"table\t{signature}\n")
        modules = {f"/lib/modules/{path.name}": path for path in kernel.modules}
        place = "/suites/table.steps"
        archive = build(
            [Suite("table", (program.GUEST_PATH, place), limit=_LIMIT)],
            {program.GUEST_PATH: program.build(), place: script} | modules,
            modules=tuple(modules),
        )
        report = boot(machine, kernel.image, archive, log, foreign=not kernel.built)
        said = verdicts.read(report.suites[0].output)
        if 0 not in said.data:
            answer = said.steps.get(0, "no answer")
            what = f"{machine.name}: no {signature} in the guest: {answer}"
            raise InfraError(what, hint=f"full log: {log}")
        override.keep(machine, said.data[0])
        return said.data[0]


def with_regions(table: bytes, machine: Machine, regions: Sequence[Region]) -> bytes:
    """Return the archive that replaces a machine's table by one with regions, if there are any."""
    if not regions:
        return b""
    return override.archive(machine, override.extended(table, machine, regions))
