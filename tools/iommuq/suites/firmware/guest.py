# SPDX-License-Identifier: GPL-2.0-only
"""The firmware table of a guest: read once for each machine, and extended by regions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from iommuq.firmware import override, program, topology
from iommuq.firmware.kernels import Kernel
from iommuq.firmware.scenario import Region
from iommuq.guests import qemu
from iommuq.guests.boot import GuestLost, GuestReport, boot
from iommuq.guests.initramfs import Suite, build
from iommuq.guests.machine import Machine
from iommuq.suites.firmware import verdicts
from iommuq.system import files as logs
from iommuq.system import groups, progress
from iommuq.system.errors import InfraError
from iommuq.system.temporary import temporary_folder

#: The program that reads the table.
CHECK = "table"
_LIMIT = 60.0

#: Boots a guest that runs some scripts, with a log.
Ask = Callable[[dict[str, Path], Path], GuestReport]


def own_table(machine: Machine, ask: Ask) -> bytes:
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
        path = work / "script"
        path.write_text(f"table\t{signature}\n")
        said = verdicts.read(ask({CHECK: path}, log).suites[0].output)
        if 0 not in said.data:
            answer = said.steps.get(0, "no answer")
            what = f"{machine.name}: no {signature} in the guest: {answer}"
            raise InfraError(what, hint=f"full log: {log}")
        override.keep(machine, said.data[0])
        return said.data[0]


def asked(kernel: Kernel, machine: Machine) -> Ask:
    """Return what boots a machine for scripts, without any regions."""

    def ask(scripts: dict[str, Path], log: Path) -> GuestReport:
        modules = {f"/lib/modules/{path.name}": path for path in kernel.modules}
        places = {f"/suites/{name}.steps": path for name, path in scripts.items()}
        suites = [
            Suite(name, (program.GUEST_PATH, f"/suites/{name}.steps"), limit=_LIMIT)
            for name in scripts
        ]
        files = {program.GUEST_PATH: program.build(), **places, **modules}
        archive = build(suites, files, modules=tuple(modules))
        return twice(lambda: boot(machine, kernel.image, archive, log, foreign=not kernel.built))

    return ask


def twice(
    once: Callable[[], GuestReport], stopped: Callable[[], bool] = lambda: False
) -> GuestReport:
    """Boot a guest, and once more if it is lost before its first program.

    An emulated kernel may fail to boot now and then; an error of QEMU is permanent.

    :param stopped: tells whether nothing is to be booted any more.
    :raises GuestLost: it was lost in the second boot, or in a program.
    :raises KeyboardInterrupt: all processes are being ended: another thread gets the Ctrl-C.
    """
    try:
        return once()
    except GuestLost as error:
        if groups.ending():
            raise KeyboardInterrupt from error
        if error.report.suites or f"{qemu.PROGRAM}: " in error.what or stopped():
            raise
        progress.note(f"{error.what}: trying once more")
    return once()


def with_regions(table: bytes, machine: Machine, regions: Sequence[Region]) -> bytes:
    """Return the archive that replaces a machine's table by one with regions, if there are any."""
    if not regions:
        return b""
    return override.archive(machine, override.extended(table, machine, regions))
