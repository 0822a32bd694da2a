# SPDX-License-Identifier: GPL-2.0-only
"""A kernel that scenarios run on, and the options that it must have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from iommuq.bases import dotconfig
from iommuq.firmware import topology
from iommuq.firmware.modules import unpack
from iommuq.guests.machine import Machine
from iommuq.system.errors import UserError, os_errors_as
from iommuq.system.files import file_sha256, hash_of
from iommuq.system.tables import own_table

# The header of an x86 image (Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header").
_BOOT_FLAG = 0x1FE
_MAGIC = 0x202
_VERSION_POINTER = 0x20E
_HEADER_END = 0x210
#: Bytes to read of an image: the pointer to the version has 16 bits.
_HEAD = 0x10400
# Files that are no x86 kernel: offset, bytes found there, description.
_OTHERS = (
    (0, b"\x7fELF", "an ELF file (vmlinux or a program), not a bzImage"),
    (56, b"ARM\x64", "an arm64 kernel, but the machines are x86_64"),
    (0, b"!<arch>\n", "a package, but its name does not end with .deb"),
)


@dataclass(frozen=True)
class Needs:
    """The content of ``kernels.toml``; see the comments there."""

    modules: tuple[str, ...]
    options: Mapping[str, str]
    iommu: Mapping[str, str]
    needs: Mapping[str, tuple[str, ...]]


@cache
def needs() -> Needs:
    """Return the content of ``kernels.toml``."""
    found = own_table(__package__, "kernels.toml")
    return Needs(
        tuple(found["modules"]),
        {entry["symbol"]: entry["why"] for entry in found["option"]},
        dict(found["iommu"]),
        {name: tuple(symbols) for name, symbols in found["needs"].items()},
    )


@dataclass(frozen=True)
class Kernel:
    """A kernel that can be booted.

    :ivar name: the file or package that the user named.
    :ivar release: as ``uname -r`` prints it.
    :ivar version: version of its package; empty without one.
    :ivar modules: uncompressed modules in the order of loading.
    :ivar config: options without ``CONFIG_``; None: unknown.
    :ivar key: hash of all fields.
    :ivar sha256: of the image.
    :ivar built: built here, of sources that we have.
    """

    name: str
    release: str
    version: str
    image: Path
    modules: tuple[Path, ...]
    config: Mapping[str, str] | None
    key: str
    sha256: str = ""
    built: bool = False

    def lacks(self, symbol: str) -> bool:
        """Return whether the configuration is known and does not enable an option."""
        return self.config is not None and self.config.get(symbol, "n") not in ("y", "m")

    def check(self, machine: Machine) -> None:
        """Check that the kernel has the options that a machine needs.

        :raises UserError: an option is missing; it is named.
        """
        table = topology.table_of(machine)
        options = dict(needs().options)
        if table:
            options[needs().iommu[table]] = f"it has no driver for {machine.title}"
        else:
            # Without an IOMMU no table is replaced.
            options.pop("ACPI_TABLE_UPGRADE", None)
        for symbol, why in options.items():
            if self.lacks(symbol):
                what = f"{self.name} is built without {symbol}: {why}"
                raise UserError(what, hint="use another kernel")

    def missing(self, wanted: str) -> str:
        """Return which option for a need of a scenario is missing; empty: none is known to be."""
        for symbol in needs().needs.get(wanted, ()):
            if self.lacks(symbol):
                return f"{self.release} is built without {symbol}"
        return ""


def release_of(path: Path) -> str:
    """Return the release of an x86 kernel image.

    :raises UserError: the file is not such an image.
    """
    with os_errors_as(UserError, path), path.open("rb") as file:
        head = file.read(_HEAD)
    for offset, magic, what in _OTHERS:
        if head[offset : offset + len(magic)] == magic:
            raise UserError(f"{path}: is {what}")
    flag, magic = head[_BOOT_FLAG : _BOOT_FLAG + 2], head[_MAGIC : _MAGIC + 4]
    if len(head) < _HEADER_END or flag != b"\x55\xaa" or magic != b"HdrS":
        raise UserError(f"{path}: not an x86 kernel image", hint="give a bzImage or a vmlinuz")
    start = int.from_bytes(head[_VERSION_POINTER : _VERSION_POINTER + 2], "little") + 0x200
    match = re.match(rb"[0-9][\x21-\x7e]*", head[start : start + 100])
    if match is None:
        raise UserError(f"{path}: no release in the kernel image", hint="is the file truncated?")
    return match[0].decode()


def from_file(path: Path) -> Kernel:
    """Return the kernel in a file, with its configuration and modules.

    They are taken from where distributions put them: ``config-*`` next to the image,
    ``lib/modules`` next to its directory.

    :raises UserError: the file is not a kernel that can be booted here.
    """
    path = path.resolve()
    release = release_of(path)
    configs = (path.parent / f"config-{release}", path.parent / "config")
    found = next((place for place in configs if place.is_file()), None)
    config = dotconfig.parse(found.read_text("utf-8", "replace")) if found else None
    places = [path.parents[1] / "lib/modules" / release] if len(path.parents) > 1 else []
    folder = next((p for p in (*places, path.parent) if (p / "kernel").is_dir()), None)
    modules = unpack(folder, needs().modules) if folder else ()
    words = [file_sha256(file) for file in (path, *modules)]
    key = hash_of(release, *words)
    return Kernel(path.name, release, "", path, modules, config, key, words[0])
