# SPDX-License-Identifier: GPL-2.0-only
"""``selftests/machines/*.toml``: the machines that run the suites."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from iommuq.system import arches, files, tables
from iommuq.system.errors import UserError
from iommuq.system.tables import Table, require

#: Accelerators of QEMU, the fastest first, and the argument of ``-cpu``.
CPUS = {"kvm": "host", "tcg": "max"}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Qemu(Table):
    """Options of QEMU.

    :ivar machine: for ``-machine``.
    :ivar devices: one ``-device`` each.
    :ivar firmware: for ``-bios``; empty: the default of QEMU.
    :ivar accelerators: the supported ones, the preferred one first.
    :ivar one_thread: TCG runs all processors in one thread.  With a thread each, a processor
        may see code that another one is patching (int3).
    :ivar minimum: the oldest supported QEMU, like ``7.2``; empty for any.
    """

    machine: str
    devices: tuple[str, ...] = ()
    firmware: str = ""
    accelerators: tuple[str, ...] = tuple(CPUS)
    one_thread: bool = False
    minimum: str = ""

    def __post_init__(self) -> None:
        require(self.machine, "machine is empty")
        require(self.accelerators, "accelerators is empty")
        for name in self.accelerators:
            require(name in CPUS, f"accelerator {name!r} is none of {', '.join(CPUS)}")
        require(re.fullmatch(r"(\d+\.\d+)?", self.minimum), "minimum is not a version like 7.2")


@dataclass(frozen=True)
class Machine(Table):
    """One machine.

    :ivar name: the name of its file, like ``q35``.
    :ivar guest: ``um`` or ``qemu``.
    :ivar arch: the architecture of its kernel.
    :ivar memory: in MiB.
    :ivar boot_limit: seconds from its start to the first suite.
    :ivar huge_pages: number of huge pages before the first suite.
    :ivar arguments: further arguments of the kernel.
    :ivar config: its Kconfig fragments in ``selftests/configs``.
    :ivar driver: folder or file of the driver of its IOMMU in the kernel.
    """

    name: str
    title: str
    guest: str
    arch: str
    memory: int
    boot_limit: float
    cpus: int = 1
    huge_pages: int = 0
    arguments: tuple[str, ...] = ()
    config: tuple[str, ...] = ()
    driver: str = ""
    qemu: Qemu | None = None

    def __post_init__(self) -> None:
        require(self.arch in arches.names(), f"arch is none of {', '.join(arches.names())}")
        require(self.guest == arches.get(self.arch).guest, f"guest does not run {self.arch}")
        require((self.guest == "qemu") == (self.qemu is not None), "[qemu] is for guest = 'qemu'")
        # With less the kernel panics before its first message.
        require(self.memory >= 64, "memory is less than 64 MiB")
        require(self.cpus >= 1, "cpus is less than 1")
        require(self.huge_pages >= 0, "huge_pages is negative")
        require(0 < self.boot_limit < 3600, "boot_limit is not between 0 and 3600 s")
        require(not self.driver or self.driver.startswith("drivers/"), "driver is below drivers/")
        for word in self.arguments:
            require(word.isprintable(), "arguments must be printable")
            require(not word.startswith("iommuq."), f"arguments: {word} is set by iommuq itself")

    @property
    def kernel_arguments(self) -> tuple[str, ...]:
        """Arguments of the kernel: the common ones, then those of this machine."""
        return (
            # Exit after a panic; the default is to hang.
            "panic=-1",
            # No rate limit for the messages of init.
            "printk.devkmsg=on",
            # 256 pairs of terminals take a third of a boot with KASAN under TCG.
            "pty.legacy_count=0",
            f"iommuq.huge_pages={self.huge_pages}",
            *self.arguments,
        )


def load_machine(name: str) -> Machine:
    """Read the file of a machine.

    :raises UserError: there is no such machine, or its file is malformed.
    """
    path = folder() / f"{name}.toml"
    if not _NAME.fullmatch(name) or not path.is_file():
        raise UserError(f"no machine {name!r}; there are {', '.join(names()) or 'none'}")
    machine = tables.load_toml(Machine, path)
    if machine.name != name:
        raise UserError(f"{path}: name is {machine.name!r}, but its file is {name!r}")
    return machine


def names() -> list[str]:
    """Return the names of all machines."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def folder() -> Path:
    """Return the directory of the files of machines."""
    return files.project_root() / "selftests" / "machines"
