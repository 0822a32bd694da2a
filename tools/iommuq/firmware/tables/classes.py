# SPDX-License-Identifier: GPL-2.0-only
"""Read the classes of PCI devices, which VT-d's driver uses, from `lspci -n` or sysfs."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

from iommuq.system.errors import UserError
from iommuq.system.progress import one_line

#: Base class and subclass as one number, such as 0x0c03, by place, such as ``0000:00:14.0``.
Classes = dict[str, int]

_SIZE_LIMIT = 16 << 20
_HINT = "give the output of `lspci -Dn`, or the directory /sys/bus/pci/devices"
_ADDRESS = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])")
# "00:14.0 0c03: 8086:a36d", and of `lspci -nn` "00:14.0 USB controller [0c03]: Intel …".
_LINE = re.compile(rf"{_ADDRESS.pattern} (?:.*?\[([0-9a-f]{{4}})\]: |([0-9a-f]{{4}}): )", re.I)
_BASES = {
    0x01: "mass storage",
    0x02: "network controller",
    0x03: "display",
    0x04: "multimedia",
    0x06: "bridge",
    0x0C: "serial bus controller",
}


def name(code: int) -> str:
    """Return the name of a class."""
    if code == 0x0C03:
        return "USB controller"
    return _BASES.get(code >> 8, f"class {code:04x}")


def is_relaxable(code: int) -> bool:
    """Return whether VT-d's driver makes the RMRRs of such a device relaxable.

    Source: drivers/iommu/intel/iommu.c, device_rmrr_is_relaxable(): USB and displays.
    """
    return code == 0x0C03 or code >> 8 == 0x03


def read(path: Path) -> Classes:
    """Read the classes of a machine's devices.

    :param path: output of ``lspci -n`` or ``lspci -nn``, or ``/sys/bus/pci/devices``.
    :raises UserError: it cannot be read, or is neither.
    """
    try:
        found = _sysfs(path) if path.is_dir() else _lspci(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{one_line(str(path))}: {one_line(reason)}", hint=_HINT) from error
    if not found:
        raise UserError(f"{one_line(str(path))}: no devices", hint=_HINT)
    return found


def _lspci(path: Path) -> Classes:
    if not path.is_file() and path.exists():
        raise ValueError("not a regular file")
    with path.open("rb") as file:
        raw = file.read(_SIZE_LIMIT + 1)
    if len(raw) > _SIZE_LIMIT:
        raise ValueError(f"more than {_SIZE_LIMIT >> 20} MiB")
    found = {}
    for number, line in enumerate(raw.decode("utf-8", "backslashreplace").split("\n"), 1):
        # `lspci -v` adds indented lines.
        if not line.strip() or line[0].isspace():
            continue
        match = _LINE.match(line)
        if match is None:
            raise ValueError(f"line {number} is not one of `lspci -n`: {line[:60]!r}")
        segment, place, *code = match.groups()
        found[f"{segment or '0000'}:{place}".lower()] = int(code[0] or code[1], 16)
    return found


def _sysfs(path: Path) -> Classes:
    found = {}
    for folder in sorted(path.iterdir()):
        if not _ADDRESS.fullmatch(folder.name):
            continue
        with (folder / "class").open("rb") as file:
            text = file.read(64).decode("ascii", "replace").strip()
        if not re.fullmatch(r"0x[0-9a-f]{6}", text):
            raise ValueError(f"{folder.name}/class is no class: {text!r}")
        found[folder.name] = code = int(text, 16) >> 8
        # Behind a bridge also as in a DMAR scope: for the folder
        # pci0000:00/0000:00:1c.0/0000:02:00.0 that is 0000:00:1c.0/00.0.
        steps = list(takewhile(_ADDRESS.fullmatch, reversed(folder.resolve().parts)))
        if len(steps) > 1:
            way = [steps[-1], *(step.rpartition(":")[2] for step in steps[-2::-1])]
            found["/".join(way)] = code
    return found
