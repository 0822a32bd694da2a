# SPDX-License-Identifier: GPL-2.0-only
"""``selftests/machines/*.toml``: the machines that suites are run on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from iommuq.bases.providers.job import Table, require
from iommuq.system import arches, files, tables
from iommuq.system.errors import UserError

#: What may run a QEMU guest, the quickest first, and the processor to ask it for.
CPUS = {"kvm": "host", "tcg": "max"}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Qemu(Table):
    """What only QEMU can be told.

    :ivar machine: for ``-machine``.
    :ivar devices: one ``-device`` each.
    :ivar firmware: for ``-bios``; empty for QEMU's own.
    :ivar accelerators: those it works with, the preferred one first.
    :ivar one_thread: TCG runs all processors in one thread.  With a thread each, a kernel
        that patches its own code may be seen half patched (int3) by another processor.
    :ivar minimum: the oldest QEMU that will do, like ``7.2``; empty for any.
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
    :ivar title: what it is, for people.
    :ivar guest: ``um`` or ``qemu``.
    :ivar arch: the architecture that its kernel is built for.
    :ivar memory: in MiB.
    :ivar boot_limit: seconds from its start to the first suite.
    :ivar cpus: how many.
    :ivar huge_pages: how many there must be before the first suite.
    :ivar arguments: for the kernel, on top of what every guest gets.
    :ivar config: Kconfig fragments in ``selftests/configs`` that it needs.
    :ivar driver: where the kernel has the driver of its IOMMU, which machines with another
        one do not run: a folder, or a file.
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
        require(self.guest == arches.get(self.arch).guest, f"guest is not what {self.arch} runs on")
        require((self.guest == "qemu") == (self.qemu is not None), "[qemu] is for guest = 'qemu'")
        # Less, and the kernel panics before it can say why.
        require(self.memory >= 64, "memory is less than 64 MiB")
        require(self.cpus >= 1, "cpus is less than 1")
        require(self.huge_pages >= 0, "huge_pages is negative")
        require(0 < self.boot_limit < 3600, "boot_limit is not between 0 and 3600 s")
        require(not self.driver or self.driver.startswith("drivers/"), "driver is below drivers/")
        for word in self.arguments:
            require(word.isprintable(), "arguments must be printable")
            require(not word.startswith("iommuq."), f"arguments: {word} is for the tool to give")

    @property
    def kernel_arguments(self) -> tuple[str, ...]:
        """What every guest's kernel is given, and then what this one's is."""
        return (
            # A guest that panicked ends; with 0, the default, it would hang.
            "panic=-1",
            # Or printk drops all but ten lines in five seconds of what init writes to it.
            "printk.devkmsg=on",
            # 256 pairs of terminals in sysfs, with KASAN under TCG, are a third of a boot.
            "pty.legacy_count=0",
            f"iommuq.huge_pages={self.huge_pages}",
            *self.arguments,
        )


def load(name: str) -> Machine:
    """Read a machine's file.

    :raises UserError: there is no such machine, or its file is malformed.
    """
    path = folder() / f"{name}.toml"
    if not _NAME.fullmatch(name) or not path.is_file():
        raise UserError(f"no machine {name!r}; there are {', '.join(names()) or 'none'}")
    machine = tables.load(Machine, path)
    if machine.name != name:
        raise UserError(f"{path}: name is {machine.name!r}, but its file is {name!r}")
    return machine


def names() -> list[str]:
    """Return the names of all machines."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def folder() -> Path:
    """Return the directory of their files."""
    return files.project_root() / "selftests" / "machines"
