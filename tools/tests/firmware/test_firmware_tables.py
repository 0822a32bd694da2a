# SPDX-License-Identifier: GPL-2.0-only
"""Tables as firmware writes them: read, and written back; what is refused, and where."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import rawtables
from iommuq.firmware.tables import acpi, anytable, dmar, iort, ivhd, ivrs
from iommuq.firmware.tables.acpi import Header, TableError
from iommuq.firmware.tables.dmar import Andd, Atsr, Dmar, Drhd, Rhsa, Rmrr, Satc, Scope, Sidp
from iommuq.firmware.tables.ivhd import AcpiDevice, Alias, Extended, Other, Select, Special
from iommuq.firmware.tables.ivrs import Ivhd, Ivmd, Ivrs
from iommuq.system.errors import UserError
from rawtables import QEMU_DMAR, QEMU_IORT, QEMU_IVRS, patched, sealed, table

HEADER = Header(b"DMAR", 1, b"BOCHS ", b"BXPC    ", 1, b"BXPC", 1)
Parser = Callable[[bytes], object]


def endpoint(device: int, function: int = 0) -> Scope:
    return Scope(dmar.ENDPOINT, 0, ((device, function),))


@pytest.mark.parametrize("name", rawtables.ALL)
def test_round_trip(name: str) -> None:
    data = rawtables.ALL[name]
    assert anytable.parse(data).encode() == data


def test_dmar_of_qemu() -> None:
    apic = Scope(dmar.IOAPIC, 0xFF, ((0, 0),))
    assert dmar.parse(rawtables.QEMU_DMAR) == Dmar(
        (Drhd(0xFED90000, (apic, endpoint(5))), Atsr(flags=1)), HEADER, width=0x26, flags=1
    )


def test_dmar_of_a_real_machine() -> None:
    parsed = dmar.parse(rawtables.REAL_DMAR)
    assert parsed.header == replace(HEADER, revision=2)
    assert (parsed.width, parsed.flags) == (0x2E, 5)
    acpi_device = Scope(dmar.NAMESPACE, 0, ((0x15, 0),), number=1)
    assert parsed.structures[1:] == (
        Drhd(0xFED91000, (acpi_device,), flags=1),
        Rmrr(0x3E000000, 0x3E00FFFF, (endpoint(5),)),
        Rmrr(
            0x7D100000,
            0x7D1FFFFF,
            (Scope(dmar.ENDPOINT, 0, ((0x1C, 0), (0, 1))), Scope(dmar.BRIDGE, 0, ((0x1D, 0),))),
            segment=1,
        ),
        Atsr(flags=1),
        Rhsa(0xFED91000, 1),
        Satc((endpoint(2),), flags=1),
        Sidp((replace(endpoint(2), flags=3),)),
        Andd(1, b"\\_SB.PCI0.I2C0\0"),
        dmar.Unknown(42, b"\xde\xad\xbe"),
    )


def test_places_are_those_of_the_bytes() -> None:
    for offset, structure in dmar.parse(rawtables.REAL_DMAR).places():
        data = structure.encode()
        assert rawtables.REAL_DMAR[offset : offset + len(data)] == data
    for offset, block in ivrs.parse(rawtables.REAL_IVRS).places():
        data = block.encode()
        assert rawtables.REAL_IVRS[offset : offset + len(data)] == data


def test_scopes_in_words() -> None:
    scope = Scope(dmar.ENDPOINT, 0, ((0x1C, 0), (1, 0), (0, 1)))
    assert endpoint(5).short() == "00:05.0"
    assert endpoint(5).place(0) == "0000:00:05.0"
    assert scope.short() == "00.1 behind bridge 00:1c.0/01.0"
    assert scope.place(2) == "0002:00:1c.0/01.0/00.1"
    assert Scope(dmar.ENDPOINT, 3, ()).short() == "03: without a path"


def test_ivrs_of_qemu() -> None:
    entries = (Select(ivhd.START, 0), Select(ivhd.END, 0xFFFF), Special(ivhd.IOAPIC, 0, 0xA0))
    old = Ivhd(0x10, 0x10, 0xFED80000, entries, flags=0x51, capability=0x40, attributes=0x44)
    new = replace(old, kind=0x11, attributes=0, features=(0x29D3, 0))
    assert ivrs.parse(rawtables.QEMU_IVRS) == Ivrs(
        (old, new), replace(HEADER, signature=b"IVRS"), info=0x182801
    )


def test_ivrs_of_a_real_machine() -> None:
    _old, new, one, some, every, unknown = ivrs.parse(rawtables.REAL_IVRS).blocks
    assert isinstance(new, Ivhd)
    assert new.entries == (
        Select(ivhd.ALL, 0),
        Select(ivhd.SELECT, 9, 0xD7),
        Alias(ivhd.ALIAS_SELECT, 0x500, 0xA4),
        Alias(ivhd.ALIAS_START, 0x600, 0xA5),
        Select(ivhd.END, 0x6FF),
        Extended(ivhd.EXTENDED_SELECT, 8, 0x80000000),
        Special(ivhd.HPET, 1, 0xA0),
        Other(0, bytes(3)),
        AcpiDevice(0xA5, b"AMDI0020", uid_kind=ivhd.UID_STRING, uid=b"\\_SB.", settings=0x40),
        Extended(ivhd.EXTENDED_START, 0x10, 0x80000000),
        Select(ivhd.END, 0x1F),
    )
    assert one == Ivmd(ivrs.SELECT, 7, 0x3E000000, 0x10000, 0x28)
    assert some == Ivmd(ivrs.RANGE, 8, 0x7C000000, 0x200000, 8, 0xFF)
    assert every == Ivmd(ivrs.ALL, 3, 0x7B000000, 0x1000, segment=1)
    assert [block.devices for block in (one, some, every) if isinstance(block, Ivmd)] == [
        (0x28, 0x28),
        (8, 0xFF),
        (0, 0xFFFF),
    ]
    assert unknown == ivrs.Unknown(0x7F, 0, b"\1\2")


def test_hardware_type_that_linux_goes_by() -> None:
    assert ivrs.parse(rawtables.QEMU_IVRS).hardware_type() == 0x11
    real = ivrs.parse(rawtables.REAL_IVRS)
    assert real.hardware_type() == 0x40
    # Linux does not look beyond a block that it does not know.
    assert real.with_ivmd(0x1000, 0x1000, devid=0x10).hardware_type() == 0x40
    known = replace(real, blocks=real.blocks[:-1])
    assert known.with_ivmd(0x1000, 0x1000, devid=0x10).hardware_type() == 0x21
    assert Ivrs(()).hardware_type() is None


def test_iort_of_qemu() -> None:
    parsed = iort.parse(rawtables.QEMU_IORT)
    assert parsed.header.revision == 3
    nodes = parsed.places()
    assert list(nodes) == [0x30, 0x48, 0xA0]
    assert nodes[0x48].base == 0x9050000
    assert nodes[0x48].mappings == (iort.IdMapping(0, 0xFFFF, 0, 0x30),)
    assert nodes[0xA0].mappings == (iort.IdMapping(0, 0xFFFF, 0, 0x48),)
    assert nodes[0xA0].segment == 0


def test_rmr_nodes() -> None:
    parsed = iort.parse(rawtables.REAL_IORT)
    direct, named, relaxable = parsed.nodes[3:]
    assert direct.ranges == (
        iort.MemoryRange(0x80000000, 0x10000),
        iort.MemoryRange(0x80020000, 0x20000),
    )
    mappings = (iort.IdMapping(0, 0, 0x10, 0x48), iort.IdMapping(0, 0, 0x18, 0x48))
    assert direct.mappings == mappings
    assert direct.rmr_flags == 0
    assert relaxable.rmr_flags == iort.REMAP_PERMITTED
    assert direct == rawtables.rmr_node(direct.ranges, mappings, identifier=3)
    assert named.object_name == "\\_SB.DMA0"
    [first, second] = [(node.kind_name, low, high) for node, _, low, high in
                       iort.devices(parsed, direct)]  # fmt: skip
    assert first == ("PCI root complex", 0x10, 0x10)
    assert second == ("PCI root complex", 0x18, 0x18)
    assert [node for node, *_ in iort.devices(parsed, relaxable)] == [named]


def test_iort_with_gaps() -> None:
    body = struct.pack("<III", 1, 52, 7) + b"gap!" + rawtables.ITS + b"tail"
    data = table(b"IORT", 3, body)
    parsed = iort.parse(data)
    assert (parsed.before, parsed.after, parsed.reserved) == (b"gap!", b"tail", 7)
    assert parsed.encode() == data


def test_mappings_without_a_place_are_none() -> None:
    node = rawtables.ROOT[:12] + bytes(4) + rawtables.ROOT[16:]
    parsed = iort.parse(table(b"IORT", 3, struct.pack("<III", 1, 48, 0), node))
    assert parsed.nodes[0].mappings == ()


# What is refused, and where.


@pytest.mark.parametrize(
    ("data", "offset", "what"),
    [
        (b"", 0x0, "signature missing"),
        (b"DMA", 0x0, "signature DMA, expected DMAR or IVRS or IORT"),
        (b"FACP" + QEMU_DMAR[4:], 0x0, "signature FACP"),
        (b"\x1b[2J" + QEMU_DMAR[4:], 0x0, r"signature \x1b[2J"),
        (QEMU_DMAR[:30], 0xA, "the header is cut short: 26 bytes wanted, 20 left"),
        (QEMU_DMAR[:-1], 0x4, "length 88, but there are 87 bytes"),
        (QEMU_DMAR + b"\0", 0x4, "length 88, but there are 89 bytes"),
        (QEMU_DMAR[:4] + bytes(4) + QEMU_DMAR[8:], 0x4, "length 0 is less than"),
        (QEMU_DMAR[:40] + b"\1" + QEMU_DMAR[41:], 0x9, "the sum of all bytes is 0x01"),
        (sealed(QEMU_DMAR[:40]), 0x24, "DMAR is cut short: 12 bytes wanted, 4 left"),
        (patched(QEMU_DMAR, 50, b"\0\0"), 0x30, "DRHD has length 0, minimum is 4"),
        (patched(QEMU_DMAR, 50, b"\3\0"), 0x30, "DRHD has length 3"),
        (patched(QEMU_DMAR, 50, b"\x0c\0"), 0x34, "DRHD is cut short: 12 bytes wanted, 8 left"),
        (patched(QEMU_DMAR, 50, b"\xff\0"), 0x30, "DRHD has length 255, but only 40 bytes"),
        (patched(QEMU_DMAR, 65, b"\0"), 0x40, "device scope has length 0"),
        (patched(QEMU_DMAR, 65, b"\5"), 0x40, "device scope has length 5, minimum is 6"),
        (patched(QEMU_DMAR, 65, b"\x11"), 0x40, "device scope has length 17, but only 16"),
        (table(b"DMAR", 1, rawtables.DMAR_HEAD, b"\1\0\0"), 0x30, "a structure is cut short"),
        (patched(QEMU_IVRS, 50, b"\0\0"), 0x30, "IVHD has length 0, minimum is 24"),
        (patched(QEMU_IVRS, 50, b"\xff\0"), 0x30, "IVHD has length 255, but only 96"),
        (patched(QEMU_IVRS, 90, b"\x27\0"), 0x58, "IVHD has length 39, minimum is 40"),
        (patched(QEMU_IVRS, 50, b"\x24"), 0x50, "device entry of type 0x48 has length 8"),
        (patched(QEMU_IVRS, 72, b"\x80"), 0x48, "device entry of type 0x80: unknown length"),
        (patched(QEMU_IVRS, 72, b"\xff"), 0x48, "device entry of type 0xff: unknown length"),
        (patched(QEMU_IVRS, 72, b"\xf0"), 0x48, "device entry of type 0xf0 is cut short"),
        (patched(rawtables.REAL_IVRS, 0xC5, b"\xff"), 0xB0, "has length 277, but only 39"),
        (patched(rawtables.REAL_IVRS, 0xD9, b"\x1f"), 0xD7, "IVMD has length 31, minimum is 32"),
        (patched(rawtables.REAL_IVRS, 0x139, b"\0"), 0x137, "of unknown type 0x7f has length 0"),
        (patched(QEMU_IORT, 40, b"\x2f"), 0x28, "offset of the first node is 0x2f"),
        (patched(QEMU_IORT, 40, b"\xd9"), 0x28, "outside of the table"),
        (patched(QEMU_IORT, 36, b"\xff\xff\xff\xff"), 0xD8, "a node is cut short"),
        (patched(QEMU_IORT, 49, b"\0\0"), 0x30, "ITS group has length 0, minimum is 16"),
        (patched(QEMU_IORT, 49, b"\xa9\0"), 0x30, "ITS group has length 169, but only 168"),
        (patched(QEMU_IORT, 80, b"\2"), 0x48, "the ID mappings take bytes 0x44 to 0x6c"),
        (patched(QEMU_IORT, 84, b"\4"), 0x48, "SMMUv3: the ID mappings take bytes 0x4 to"),
        (patched(QEMU_IORT, 80, b"\xff\xff\xff\xff"), 0x48, "SMMUv3: the ID mappings"),
        (patched(rawtables.REAL_IORT, 0xD9, b"\x1b"), 0xD8, "RMR has length 27, minimum is 28"),
        (patched(rawtables.REAL_IORT, 0xEC, b"\5"), 0xD8, "RMR: the memory ranges take bytes"),
    ],
)  # fmt: skip
def test_malformed(data: bytes, offset: int, what: str) -> None:
    with pytest.raises(TableError) as caught:
        anytable.parse(data, name="dump.bin")
    assert caught.value.offset == offset
    assert caught.value.what.startswith(f"dump.bin: byte 0x{offset:x}: ")
    assert what in caught.value.what
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "parse"), [(b"dmar", dmar.parse), (b"ivrs", ivrs.parse), (b"iort", iort.parse)]
)
def test_one_kind_is_not_another(name: bytes, parse: Parser) -> None:
    others = [data for data in rawtables.ALL.values() if data[:4].lower() != name]
    assert len(others) == 4
    for data in others:
        with pytest.raises(TableError) as caught:
            parse(data)
        assert caught.value.offset == 0


@pytest.mark.parametrize("name", rawtables.ALL)
def test_any_flipped_bit_is_noticed(name: str) -> None:
    data = rawtables.ALL[name]
    for index in range(len(data)):
        flipped = bytearray(data)
        flipped[index] ^= 1 << index % 8
        with pytest.raises(TableError):
            anytable.parse(bytes(flipped))


@pytest.mark.parametrize(
    ("start", "hint"),
    [
        (b"DMAR @ 0x0000000000000000\n    0000: 44 4D", "acpixtract"),
        (b"/*\n * Intel ACPI Component Architecture\n", "iasl"),
        (b"PK\3\4", "/sys/firmware/acpi/tables"),
    ],
)
def test_other_forms_are_told_apart(start: bytes, hint: str) -> None:
    with pytest.raises(TableError) as caught:
        anytable.parse(start)
    assert hint in caught.value.hint


# Files.


def test_file(tmp_path: Path) -> None:
    (tmp_path / "DMAR").write_bytes(QEMU_DMAR)
    assert anytable.load_table(tmp_path / "DMAR") == dmar.parse(QEMU_DMAR)


def test_files_that_cannot_be_tables(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "big").write_bytes(bytes(acpi.SIZE_LIMIT + 1))
    (tmp_path / "fits").write_bytes(bytes(acpi.SIZE_LIMIT))
    assert len(acpi.read(tmp_path / "fits")) == acpi.SIZE_LIMIT
    reasons = {
        "pipe": "not a regular file",
        "empty": "byte 0x0: the file is empty",
        "big": "byte 0x100000: more than 1 MiB",
        "none": "No such file",
        ".": "not a regular file",
        "a\0b": "null",
    }
    for name, reason in reasons.items():
        with pytest.raises(UserError, match=reason) as caught:
            acpi.read(tmp_path / name)
        assert str(tmp_path) in caught.value.what
    with pytest.raises(UserError, match="not a regular file"):
        acpi.read(Path("/dev/zero"))
