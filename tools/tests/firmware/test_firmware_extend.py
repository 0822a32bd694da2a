# SPDX-License-Identifier: GPL-2.0-only
"""Tables with more regions than they had: what is written, and what cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest

import rawtables
from iommuq.firmware.tables import anytable, dmar, ivrs
from iommuq.firmware.tables.acpi import Header, TableError
from iommuq.firmware.tables.anytable import Device, Reservation, Spread
from iommuq.firmware.tables.dmar import Dmar, Rmrr, Scope
from iommuq.firmware.tables.ivrs import Ivhd, Ivmd
from iommuq.system.errors import UserError
from rawtables import QEMU_DMAR, QEMU_IORT, QEMU_IVRS, patched, table


def endpoint(device: int, function: int = 0) -> Scope:
    return Scope(dmar.ENDPOINT, 0, ((device, function),))


def test_rmrr_of_ours_is_that_of_the_specification() -> None:
    parsed = dmar.parse(QEMU_DMAR).with_rmrr(0x3E000000, 0x3E00FFFF, [endpoint(5)])
    expected = table(b"DMAR", 1, rawtables.DMAR_HEAD, rawtables.DRHD, rawtables.ATSR,
                     rawtables.RMRR)  # fmt: skip
    assert parsed.encode() == expected
    assert parsed.raised().encode() == patched(expected, 24, b"\2")


def test_ivmd_of_ours_is_that_of_the_specification() -> None:
    parsed = ivrs.parse(QEMU_IVRS).with_ivmd(0x3E000000, 0x10000, devid=0x28)
    parsed = parsed.with_ivmd(
        0x7C000000, 0x200000, kind=ivrs.RANGE, devid=8, last=0xFF, flags=ivrs.EXCLUSION
    )
    body = (rawtables.IVRS_HEAD, rawtables.IVHD_10, rawtables.IVHD_11)
    expected = table(b"IVRS", 1, *body, rawtables.IVMD_ONE, rawtables.IVMD_RANGE)
    assert parsed.encode() == expected
    assert parsed.raised().encode() == patched(expected, 24, b"\2")


def test_oem_revision_that_cannot_be_raised() -> None:
    data = patched(QEMU_DMAR, 24, b"\xff\xff\xff\xff")
    with pytest.raises(UserError, match="OEM revision"):
        anytable.extend(data, [])


def test_extend_by_signature() -> None:
    region = Reservation(0x3E000000, 0x10000, (Device.parse("00:05.0"),))
    wide = dmar.parse(anytable.extend(QEMU_DMAR, [region]))
    assert wide.structures[-1] == Rmrr(0x3E000000, 0x3E00FFFF, (endpoint(5),))
    assert wide.header.oem_revision == 2
    many = ivrs.parse(anytable.extend(QEMU_IVRS, [region]))
    assert many.blocks[-1] == Ivmd(ivrs.SELECT, 7, 0x3E000000, 0x10000, 0x28)
    assert many.header.oem_revision == 2


def test_extend_behind_a_bridge() -> None:
    device = Device.parse("00:07.0/02.0", devid=0x110)
    other = Device.parse("0000:00:06.0")
    region = Reservation(0x3E000000, 0x1000, (device, other))
    rmrr = dmar.parse(anytable.extend(QEMU_DMAR, [region])).structures[-1]
    assert isinstance(rmrr, Rmrr)
    assert [scope.path for scope in rmrr.scopes] == [((7, 0), (2, 0)), ((6, 0),)]
    blocks = ivrs.parse(anytable.extend(QEMU_IVRS, [region])).blocks[-2:]
    assert [block.devid for block in blocks] == [0x110, 0x30]
    with pytest.raises(UserError, match=r"requester ID of 0000:00:07\.0/02\.0"):
        anytable.extend(QEMU_IVRS, [Reservation(0, 0, (replace(device, devid=None),))])


def test_extend_spread() -> None:
    devices = (Device.parse("00:06.0"), Device.parse("00:05.0"))
    region = Reservation(0, 0x1000, devices, Spread.RANGE, ivrs.EXCLUSION)
    everywhere = Reservation(0, 0x1000, (), Spread.ALL)
    blocks = ivrs.parse(anytable.extend(QEMU_IVRS, [region, everywhere])).blocks[-2:]
    assert blocks == (Ivmd(ivrs.RANGE, 8, 0, 0x1000, 0x28, 0x30), Ivmd(ivrs.ALL, 7, 0, 0x1000))
    for wrong in (region, everywhere, replace(region, spread=Spread.EACH)):
        with pytest.raises(UserError, match="RMRR"):
            anytable.extend(QEMU_DMAR, [wrong])
    with pytest.raises(UserError, match="first and its last"):
        anytable.extend(QEMU_IVRS, [Reservation(0, 0, (), Spread.RANGE)])


def test_extend_segments() -> None:
    region = Reservation(0x1000, 0x1000, (Device.parse("0001:00:05.0"),))
    rmrr = dmar.parse(anytable.extend(QEMU_DMAR, [region])).structures[-1]
    assert isinstance(rmrr, Rmrr)
    assert rmrr.segment == 1
    both = Reservation(0x1000, 0x1000, (*region.devices, Device.parse("00:05.0")))
    with pytest.raises(UserError, match="one segment"):
        anytable.extend(QEMU_DMAR, [both])
    blocks = ivrs.parse(anytable.extend(QEMU_IVRS, [both])).blocks[-2:]
    assert [block.segment for block in blocks if isinstance(block, Ivmd)] == [1, 0]


def test_extend_refuses() -> None:
    for data in (QEMU_IORT, b"", b"APIC"):
        with pytest.raises(UserError, match="no regions can be added to table"):
            anytable.extend(data, [])
    device = (Device.parse("00:05.0"),)
    for region in (
        Reservation(1 << 64, 1, device),
        Reservation(0, -1, device),
        Reservation(-1, 1, device),
    ):
        with pytest.raises(UserError, match="does not fit its field"):
            anytable.extend(QEMU_IVRS, [region])
    with pytest.raises(UserError, match="does not fit its field"):
        anytable.extend(QEMU_DMAR, [Reservation(0x1000, 0x1000, device * 9000)])
    with pytest.raises(TableError):
        anytable.extend(QEMU_DMAR[:-1], [])


@pytest.mark.parametrize(
    "place", ["", "5", "00:05", "00:20.0", "00:05.8", "00:05.0/", "00:05.0/20.0", "x:00:05.0"]
)
def test_places_that_are_none(place: str) -> None:
    with pytest.raises(UserError, match="not a PCI device"):
        Device.parse(place)


def test_values_of_the_wrong_length() -> None:
    with pytest.raises(UserError, match="length of its field"):
        Dmar((), reserved=bytes(3)).encode()
    with pytest.raises(UserError, match="length of its field"):
        Dmar((), Header(b"DMAR", oem_id=b"TOOLONGBYFAR")).encode()
    with pytest.raises(ValueError, match="features"):
        Ivhd(0x11, 0, 0)
