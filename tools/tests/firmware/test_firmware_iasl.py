# SPDX-License-Identifier: GPL-2.0-only
"""Our tables and those of ACPICA's compiler, against each other."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import rawtables
from iommuq.firmware.tables import anytable, dmar, iort, ivhd, ivrs
from iommuq.firmware.tables.acpi import Header
from iommuq.firmware.tables.anytable import Device, Reservation, extend
from iommuq.firmware.tables.dmar import Andd, Dmar, Drhd, Rhsa, Rmrr, Scope
from iommuq.firmware.tables.ivhd import Other, Select
from iommuq.firmware.tables.ivrs import Ivhd, Ivmd, Ivrs
from iommuq.system.run import run

DATA = Path(__file__).parents[1] / "data"
LIMIT = 30.0

pytestmark = pytest.mark.skipif(
    shutil.which("iasl") is None, reason="iasl is not installed (Debian: acpica-tools)"
)


def compiled(name: str, tmp_path: Path) -> bytes:
    """Return the table that iasl makes of a source."""
    source = shutil.copy(DATA / f"{name}.asl", tmp_path)
    done = run(("iasl", "-p", "table", source), cwd=tmp_path, timeout=LIMIT)
    assert "0 Errors, 0 Warnings" in done.output
    return (tmp_path / "table.aml").read_bytes()


def disassembled(data: bytes, tmp_path: Path) -> list[tuple[str, str]]:
    """Return the fields that iasl sees in a table, as name and value, in order."""
    (tmp_path / "ours.aml").write_bytes(data)
    done = run(("iasl", "-d", "ours.aml"), cwd=tmp_path, timeout=LIMIT)
    text = (tmp_path / "ours.dsl").read_text("utf-8")
    for complaint in ("Incorrect checksum", "Invalid", "nknown"):
        assert complaint not in done.output + text
    return re.findall(r"(?m)^\[[0-9A-Fa-f]+h[^]]*\]\s+(\S.*?) : (.*?) *(?:\[.*\])?$", text)


def values(fields: list[tuple[str, str]], name: str) -> list[str]:
    return [value for key, value in fields if key == name]


def test_dmar_of_iasl(tmp_path: Path) -> None:
    data = compiled("dmar", tmp_path)
    parsed = anytable.parse(data)
    graphics = Scope(dmar.ENDPOINT, 0, ((2, 0),))
    usb = Scope(dmar.ENDPOINT, 0, ((0x14, 0),))
    card = Scope(dmar.ENDPOINT, 0, ((0x1C, 4), (1, 0), (0, 1)))
    assert isinstance(parsed, Dmar)
    # The compiler writes a version of its own.
    expected = Header(b"DMAR", 1, b"VENDOR", b"LAPTOP01", 2, b"INTL")
    assert replace(parsed.header, creator_revision=1) == expected
    assert (parsed.width, parsed.flags) == (0x26, 5)
    assert parsed.structures == (
        Drhd(0xFED90000, (graphics,)),
        Drhd(0xFED91000, (Scope(dmar.HPET, 0, ((0x1E, 6),), number=2),), flags=1),
        Rmrr(0x8B000000, 0x8F7FFFFF, (graphics, usb)),
        Rmrr(0x89F00000, 0x89F0FFFF, (card,)),
        Rhsa(0xFED91000, 1),
        Andd(1, b"\\_SB.PCI.I2C\0"),
    )
    assert parsed.encode() == data


def test_ivrs_of_iasl(tmp_path: Path) -> None:
    data = compiled("ivrs", tmp_path)
    parsed = anytable.parse(data)
    assert isinstance(parsed, Ivrs)
    assert parsed.header.oem_revision == 7
    assert parsed.blocks == (
        Ivhd(
            0x11,
            2,
            0xFEB80000,
            (Select(ivhd.START, 8), Select(ivhd.END, 0xFFFE), Other(0, bytes(3))),
            flags=0xB0,
            capability=0x40,
            attributes=0x3777E,
            features=(0x206D73EF22254ADE, 0),
        ),
        Ivmd(ivrs.RANGE, ivrs.EXCLUSION, 0x9FB67000, 0x20000, 8, 0xFFE),
    )
    assert parsed.encode() == data


def test_iort_of_iasl(tmp_path: Path) -> None:
    data = compiled("iort", tmp_path)
    parsed = anytable.parse(data)
    assert isinstance(parsed, iort.Iort)
    assert parsed.before == bytes(4)
    nodes = parsed.places()
    assert [node.kind for node in nodes.values()] == [
        iort.SMMU_V3,
        iort.ROOT_COMPLEX,
        iort.NAMED_COMPONENT,
    ]
    assert nodes[0x34].base == 0x9050000
    assert nodes[0x78].segment == 2
    assert nodes[0x78].mappings == (iort.IdMapping(0, 0xFF, 0x100, 0x34),)
    assert nodes[0xB0].object_name == "\\_SB.DMA0"
    assert nodes[0xB0].mappings == (iort.IdMapping(0, 0, 0x42, 0x34, flags=1),)
    assert parsed.encode() == data


def test_our_dmar_in_iasl(tmp_path: Path) -> None:
    devices = (Device.parse("00:05.0"), Device.parse("0000:00:07.0/02.0", devid=0x110))
    data = extend(rawtables.QEMU_DMAR, [Reservation(0x3E000000, 0x10000, devices)])
    fields = disassembled(data, tmp_path)
    assert values(fields, "Oem Revision") == ["00000002"]
    assert values(fields, "Base Address") == ["000000003E000000"]
    assert values(fields, "End Address (limit)") == ["000000003E00FFFF"]
    assert values(fields, "PCI Path") == ["00,00", "05,00", "05,00", "07,00", "02,00"]


def test_our_ivrs_in_iasl(tmp_path: Path) -> None:
    data = extend(
        rawtables.QEMU_IVRS, [Reservation(0x3E000000, 0x10000, (Device.parse("00:05.0"),))]
    )
    fields = disassembled(data, tmp_path)
    assert values(fields, "Subtable Type") == ["10", "11", "21"]
    assert values(fields, "Flags")[-1] == "07"
    assert values(fields, "DeviceId")[-1] == "0028"
    assert values(fields, "Start Address") == ["000000003E000000"]
    assert values(fields, "Memory Length") == ["0000000000010000"]


def test_our_iort_in_iasl(tmp_path: Path) -> None:
    # Debian 12's iasl does not know RMR nodes yet; all else of the table it does.
    fields = disassembled(rawtables.QEMU_IORT, tmp_path)
    assert values(fields, "Type") == ["00", "04", "02"]
    assert values(fields, "Output Reference") == ["00000030", "00000048"]
