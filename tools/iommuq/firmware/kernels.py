# SPDX-License-Identifier: GPL-2.0-only
"""A kernel that scenarios run on, and what it must have."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from iommuq.bases import dotconfig
from iommuq.firmware import topology
from iommuq.firmware.modules import unpack
from iommuq.guests.machine import Machine
from iommuq.system.errors import UserError

# The header of an x86 image (Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header").
_BOOT_FLAG = 0x1FE
_MAGIC = 0x202
_VERSION_POINTER = 0x20E
_HEADER_END = 0x210
#: Bytes of an image that are looked at: the version's pointer has 16 bits.
_HEAD = 0x10400
# What else people have at hand, by offset and first bytes.
_OTHERS = (
    (0, b"\x7fELF", "an ELF file such as vmlinux or a program; a bzImage is booted"),
    (56, b"ARM\x64", "an arm64 kernel, and the machines are x86_64"),
    (0, b"!<arch>\n", "a package; its name ends with .deb then"),
)


@dataclass(frozen=True)
class Needs:
    """``kernels.toml``; see the comments in it."""

    modules: tuple[str, ...]
    options: Mapping[str, str]
    iommu: Mapping[str, str]
    needs: Mapping[str, tuple[str, ...]]


@cache
def needs() -> Needs:
    """Return what a kernel must have."""
    data = tomllib.loads(resources.files(__package__).joinpath("kernels.toml").read_text())
    return Needs(
        tuple(data["modules"]),
        {entry["symbol"]: entry["why"] for entry in data["option"]},
        dict(data["iommu"]),
        {name: tuple(symbols) for name, symbols in data["needs"].items()},
    )


@dataclass(frozen=True)
class Kernel:
    """A kernel that can be booted.

    :ivar name: what the user calls it.
    :ivar release: as ``uname -r`` prints it.
    :ivar version: of the package it is from; may be empty.
    :ivar image: the file that is booted.
    :ivar modules: to load, in this order; not compressed.
    :ivar config: its options without ``CONFIG_``; None if nobody knows.
    :ivar key: a hash of all this.
    """

    name: str
    release: str
    version: str
    image: Path
    modules: tuple[Path, ...]
    config: Mapping[str, str] | None
    key: str

    def lacks(self, symbol: str) -> bool:
        """Tell whether the kernel is known to be built without an option."""
        return self.config is not None and self.config.get(symbol, "n") not in ("y", "m")

    def check(self, machine: Machine) -> None:
        """Refuse a kernel that cannot be tested on a machine.

        :raises UserError: an option is missing; it is named.
        """
        table = topology.table_of(machine)
        for symbol, why in needs().options.items():
            # Without an IOMMU there is no table to be given.
            if self.lacks(symbol) and not (symbol == "ACPI_TABLE_UPGRADE" and not table):
                raise self._unfit(symbol, why)
        if table and self.lacks(needs().iommu[table]):
            raise self._unfit(needs().iommu[table], f"it has no driver for {machine.title}")

    def missing(self, wanted: str) -> str:
        """Return why the kernel has not what a scenario needs; empty if it may have it."""
        for symbol in needs().needs.get(wanted, ()):
            if self.lacks(symbol):
                return f"{self.release} is built without {symbol}"
        return ""

    def _unfit(self, symbol: str, why: str) -> UserError:
        return UserError(f"{self.name} is built without {symbol}: {why}", hint="take another one")


def release_of(path: Path) -> str:
    """Read the release out of an x86 kernel image.

    :raises UserError: it is none.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    for offset, magic, what in _OTHERS:
        if head[offset : offset + len(magic)] == magic:
            raise UserError(f"{path}: is {what}")
    flag, magic = head[_BOOT_FLAG : _BOOT_FLAG + 2], head[_MAGIC : _MAGIC + 4]
    if len(head) < _HEADER_END or flag != b"\x55\xaa" or magic != b"HdrS":
        raise UserError(f"{path}: no x86 kernel image", hint="it would be a bzImage or a vmlinuz")
    start = int.from_bytes(head[_VERSION_POINTER : _VERSION_POINTER + 2], "little") + 0x200
    match = re.match(rb"[0-9][\x21-\x7e]*", head[start : start + 100])
    if match is None:
        raise UserError(f"{path}: the kernel image does not tell its release", hint="is it whole?")
    return match[0].decode()


def from_file(path: Path) -> Kernel:
    """Return the kernel in a file, with the modules and the configuration beside it.

    They are looked for where distributions have them: ``config-*`` next to the image,
    ``lib/modules`` next to its directory.

    :raises UserError: it is no kernel that can be booted here.
    """
    path = path.resolve()
    release = release_of(path)
    config = next(
        (
            dotconfig.parse(place.read_text("utf-8", "replace"))
            for place in (path.parent / f"config-{release}", path.parent / "config")
            if place.is_file()
        ),
        None,
    )
    places = [path.parents[1] / "lib/modules" / release] if len(path.parents) > 1 else []
    folder = next((p for p in (*places, path.parent) if (p / "kernel").is_dir()), None)
    modules = unpack(folder, needs().modules) if folder else ()
    words = [hash_of(file) for file in (path, *modules)]
    key = hashlib.sha256("\n".join([release, *words]).encode()).hexdigest()
    return Kernel(path.name, release, "", path, modules, config, key)


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
