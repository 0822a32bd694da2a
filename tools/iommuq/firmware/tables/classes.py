# SPDX-License-Identifier: GPL-2.0-only
"""What kind of device a PCI device is: out of `lspci -n`, or out of sysfs.

ACPI tables do not have it, and VT-d's driver goes by it.
"""

from __future__ import annotations

import re
from pathlib import Path

from iommuq.system.errors import UserError
from iommuq.system.progress import one_line

#: Devices by their place, such as ``0000:00:14.0``, with base class and subclass as one
#: number, such as 0x0c03.
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
    """Return what a class is called."""
    if code == 0x0C03:
        return "USB controller"
    return _BASES.get(code >> 8, f"class {code:04x}")


def is_relaxable(code: int) -> bool:
    """Tell whether VT-d's driver makes the RMRRs of such a device relaxable.

    Source: drivers/iommu/intel/iommu.c, device_rmrr_is_relaxable(): USB controllers of any
    kind, and all displays.
    """
    return code == 0x0C03 or code >> 8 == 0x03


def read(path: Path) -> Classes:
    """Read the classes of a machine's devices.

    :param path: a file with what ``lspci -n`` or ``lspci -nn`` printed, or a directory like
        ``/sys/bus/pci/devices``.
    :raises UserError: it cannot be read, or is neither.
    """
    try:
        found = _sysfs(path) if path.is_dir() else _lspci(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{one_line(str(path))}: {one_line(reason)}", hint=_HINT) from error
    if not found:
        raise UserError(f"{one_line(str(path))}: no devices in it", hint=_HINT)
    return found


def _lspci(path: Path) -> Classes:
    if not path.is_file() and path.exists():
        raise ValueError("no regular file")
    with path.open("rb") as file:
        raw = file.read(_SIZE_LIMIT + 1)
    if len(raw) > _SIZE_LIMIT:
        raise ValueError(f"more than {_SIZE_LIMIT >> 20} MiB")
    found = {}
    for number, line in enumerate(raw.decode("utf-8", "backslashreplace").split("\n"), 1):
        # With -v each device has further lines, which are indented.
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
        way = _way(folder)
        if way is not None:
            found[way] = code
    return found


def _way(folder: Path) -> str | None:
    """Return the way to a device behind bridges as a DMAR scope has it.

    In sysfs a device is below its bridge: ``pci0000:00/0000:00:1c.0/0000:02:00.0`` is
    ``0000:00:1c.0/00.0``, whatever its bus is numbered.
    """
    steps = []
    for part in reversed(folder.resolve().parts):
        if not _ADDRESS.fullmatch(part):
            break
        steps.append(part)
    if len(steps) < 2:
        return None
    return "/".join([steps[-1], *(step.rpartition(":")[2] for step in steps[-2::-1])])
