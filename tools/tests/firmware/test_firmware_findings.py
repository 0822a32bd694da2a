# SPDX-License-Identifier: GPL-2.0-only
"""What is odd about a table, but taken: found, with its place."""

from __future__ import annotations

from dataclasses import replace

import pytest

import rawtables
from iommuq.firmware.tables import anytable, dmar, iort, ivrs
from iommuq.firmware.tables.dmar import Dmar, Rmrr, Scope
from iommuq.firmware.tables.ivrs import Ivhd, Ivrs
from rawtables import QEMU_DMAR, QEMU_IORT, QEMU_IVRS, hexed, patched, table


def endpoint(device: int, function: int = 0) -> Scope:
    return Scope(dmar.ENDPOINT, 0, ((device, function),))


def texts(data: bytes) -> list[str]:
    return [str(finding) for finding in anytable.findings(anytable.parse(data))]


def test_revisions() -> None:
    for data, revision, known in ((QEMU_DMAR, 3, "1 to 2"), (QEMU_IVRS, 0, "1 to 2"),
                                  (QEMU_IORT, 8, "0 to 7")):  # fmt: skip
        [text] = texts(patched(data, 8, bytes([revision])))
        assert text.startswith(f"byte 0x8: table revision {revision} is unknown; known are {known}")


def rmrr(base: int, limit: int, *devices: int) -> Rmrr:
    return Rmrr(base, limit, tuple(map(endpoint, devices)))


def test_nothing_odd() -> None:
    for name, data in rawtables.ALL.items():
        assert texts(data) == [], name


@pytest.mark.parametrize(
    ("regions", "expected"),
    [
        ([rmrr(0x2000, 0x0FFF, 5)], ["byte 0x30: RMRR 0x2000 ends before it begins, at 0xfff"]),
        ([rmrr(0x2000, 0x1FFF, 5)], ["byte 0x30: RMRR 0x2000 is empty"]),
        ([rmrr(0, 0xFFF, 5)], ["byte 0x30: RMRR 0x0-0xfff (4 KiB) begins at address 0"]),
        (
            [rmrr(0x1800, 0x1FFF, 5)],
            ["byte 0x30: RMRR 0x1800-0x1fff (2 KiB) does not begin at a multiple of 4 KiB"],
        ),
        (
            [rmrr(0x1000, 0x2000, 5)],
            ["byte 0x30: RMRR 0x1000-0x2000 (4097 bytes) does not end at a multiple of 4 KiB"],
        ),
        (
            [rmrr((1 << 39) - 0x1000, (1 << 39) + 0xFFF, 5)],
            ["byte 0x30: RMRR 0x7ffffff000-0x8000000fff (8 KiB) lies beyond the last address "
             "of 39 bits"],
        ),
        ([rmrr((1 << 39) - 0x1000, (1 << 39) - 1, 5)], []),
        (
            [rmrr((1 << 39) - 0x1000, 1 << 39, 5)],
            ["byte 0x30: RMRR 0x7ffffff000-0x8000000000 (4097 bytes) does not end at a multiple "
             "of 4 KiB",
             "byte 0x30: RMRR 0x7ffffff000-0x8000000000 (4097 bytes) lies beyond the last address "
             "of 39 bits"],
        ),
        ([rmrr(0x1000, 0x1FFF)], ["byte 0x30: RMRR 0x1000-0x1fff (4 KiB) is for no PCI device"]),
        (
            [rmrr(0x1000, 0x1FFF, 0x20)],
            ["byte 0x30: RMRR 0x1000-0x1fff (4 KiB): 0000:00:20.0 cannot be a device"],
        ),
        (
            [rmrr(0x4000, 0x5FFF, 5), rmrr(0x1000, 0x4FFF, 6)],
            ["byte 0x30: RMRR 0x4000-0x5fff (8 KiB) overlaps RMRR 0x1000-0x4fff (16 KiB) "
             "at byte 0x50"],
        ),
        # The one in the middle reaches less far than the first.
        (
            [rmrr(0x1000, 0x8FFF, 5), rmrr(0x2000, 0x2FFF, 5), rmrr(0x4000, 0x4FFF, 5)],
            ["byte 0x50: RMRR 0x2000-0x2fff (4 KiB) overlaps RMRR 0x1000-0x8fff (32 KiB) "
             "at byte 0x30",
             "byte 0x70: RMRR 0x4000-0x4fff (4 KiB) overlaps RMRR 0x1000-0x8fff (32 KiB) "
             "at byte 0x30"],
        ),
        # The same memory for two devices, one by one, is no mistake; for one it is.
        ([rmrr(0x1000, 0x1FFF, 5), rmrr(0x1000, 0x1FFF, 6)], []),
        (
            [rmrr(0x1000, 0x1FFF, 5), rmrr(0x1000, 0x1FFF, 6), rmrr(0x1000, 0x1FFF, 5)],
            ["byte 0x70: RMRR 0x1000-0x1fff (4 KiB) is a duplicate of the entry at byte 0x30, "
             "for the same devices"],
        ),
        ([rmrr(0x1000, 0x1FFF, 5), rmrr(0x2000, 0x2FFF, 5)], []),
    ],
)  # fmt: skip
def test_odd_rmrrs(regions: list[Rmrr], expected: list[str]) -> None:
    assert texts(Dmar(tuple(regions)).encode()) == expected


def test_odd_dmar() -> None:
    odd = Scope(dmar.ENDPOINT, 0, (), odd=b"\5")
    data = Dmar((Rmrr(0x1000, 0x1FFF, (odd,)),), width=10).encode()
    assert texts(data) == [
        "byte 0x24: host addresses of 11 bits: Linux rejects DMAR",
        "byte 0x30: RMRR 0x1000-0x1fff (4 KiB): 0000:00:- cannot be a device",
    ]
    beyond = Dmar((rmrr(1 << 52, (1 << 52) + 0xFFF, 5),), width=63).encode()
    assert ["52 bits" in text for text in texts(beyond)] == [True]


def test_odd_ivmds() -> None:
    head = Ivrs((Ivhd(0x10, 2, 0),))
    wrapped = head.with_ivmd((1 << 64) - 0x1000, 0x2000, devid=8)
    assert texts(wrapped.encode()) == [
        "byte 0x48: IVMD 0xfffffffffffff000-0x10000000000000fff (8 KiB) lies beyond the last "
        "address of 52 bits"
    ]
    assert texts(head.with_ivmd(0x1000, 0, devid=8).encode()) == ["byte 0x48: IVMD 0x1000 is empty"]
    backwards = head.with_ivmd(0x1000, 0x1000, kind=ivrs.RANGE, devid=8, last=7)
    assert "its last device comes before its first" in texts(backwards.encode())[0]
    for flags, reason in ((0, "Linux ignores it"), (1, "neither read nor written")):
        assert reason in texts(head.with_ivmd(0x1000, 0x1000, devid=8, flags=flags).encode())[0]
    itself = head.with_ivmd(0x1000, 0x1000, devid=2)
    assert texts(itself.encode()) == [
        "byte 0x48: Linux finds no IVHD to use and leaves the IOMMU off"
    ]
    twice = head.with_ivmd(0x1000, 0x1000, devid=8).with_ivmd(0x1000, 0x1000, devid=16)
    assert texts(twice.encode()) == []


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ("04 08 00 00", "byte 0x48: the end of a range of devices without a start"),
        ("03 08 00 00", "byte 0x48: the start of a range of devices without an end"),
        (
            "00 00 00 00 03 08 00 00 02 09 00 00",
            "byte 0x4c: the start of a range of devices without an end",
        ),
        ("43 08 00 00 00 00 00 00 04 07 00 00", "byte 0x50: a range of devices ends before"),
    ],
)
def test_odd_ranges_of_devices(entries: str, expected: str) -> None:
    block = bytearray(rawtables.IVHD_10[:24] + hexed(entries))
    block[2] = len(block)
    [text] = texts(table(b"IVRS", 1, rawtables.IVRS_HEAD, bytes(block)))
    assert text.startswith(expected)


def test_odd_rmr_nodes() -> None:
    good = iort.parse(rawtables.REAL_IORT)
    smmu = good.nodes[:3]

    def odd(base: int, size: int, target: int = 0x48, count: int = 0) -> list[str]:
        mapping = iort.IdMapping(0, count, 1, target)
        node = rawtables.rmr_node([iort.MemoryRange(base, size)], [mapping])
        return texts(replace(good, nodes=(*smmu, node)).encode())

    assert odd(0x10000, 0x10000) == []
    assert odd(0x11000, 0xF000) == [
        "byte 0xf4: RMR 0x11000-0x1ffff (60 KiB) does not begin at a multiple of 64 KiB"
    ]
    assert odd(0x10000, 0) == ["byte 0xf4: RMR 0x10000 is empty"]
    assert odd(0x10000, 0x10000, target=0x30) == [
        "byte 0xd8: RMR: ID mapping 0 refers to ITS group at 0x30, not to an SMMU"
    ]
    assert odd(0x10000, 0x10000, target=0x31) == [
        "byte 0xd8: RMR: ID mapping 0 refers to byte 0x31, where no node begins"
    ]
    assert odd(0x10000, 0x10000, count=0xFFFFFFFF) == [
        "byte 0xd8: RMR: ID mapping 0 goes beyond the highest ID"
    ]
    empty = replace(good, nodes=(*smmu, rawtables.rmr_node([], [])))
    assert texts(empty.encode()) == [
        "byte 0xd8: RMR node without a device",
        "byte 0xd8: RMR node without a region",
    ]
    assert texts(patched(rawtables.REAL_IORT, 8, b"\4")) == [
        "byte 0x8: table revision 4 is less than 5: Linux ignores the RMR nodes"
    ]
