# SPDX-License-Identifier: GPL-2.0-only
"""What holds for every table: what is written is read again, and nothing else can happen."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rawtables
from iommuq.firmware.tables import anytable, dmar, iort, ivhd, ivrs
from iommuq.firmware.tables.acpi import SIZE_LIMIT, Header, TableError
from iommuq.firmware.tables.anytable import Table
from iommuq.firmware.tables.dmar import Dmar, Scope
from iommuq.firmware.tables.explain import describe
from iommuq.firmware.tables.iort import Iort
from iommuq.firmware.tables.ivrs import Ivrs
from iommuq.firmware.tables.sanity import Reserved, check

BYTE, WORD, DWORD, QWORD = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))


def some(strategy: st.SearchStrategy[Any], size: int = 4) -> st.SearchStrategy[Any]:
    return st.lists(strategy, max_size=size).map(tuple)


def raw(least: int, most: int | None = None) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=least, max_size=least if most is None else most)


def headers(signature: bytes) -> st.SearchStrategy[Header]:
    return st.builds(Header, st.just(signature), BYTE, raw(6), raw(8), DWORD, raw(4), DWORD)


SCOPES = some(
    st.builds(Scope, BYTE, BYTE, some(st.tuples(BYTE, BYTE)), BYTE, BYTE, BYTE, raw(0, 1))
)
STRUCTURES = st.one_of(
    st.builds(dmar.Drhd, QWORD, SCOPES, WORD, BYTE, BYTE),
    st.builds(dmar.Rmrr, QWORD, QWORD, SCOPES, WORD, WORD),
    st.builds(dmar.Atsr, SCOPES, WORD, BYTE, BYTE),
    st.builds(dmar.Rhsa, QWORD, DWORD, DWORD, raw(0, 3)),
    st.builds(dmar.Andd, BYTE, raw(0, 20), raw(3)),
    st.builds(dmar.Satc, SCOPES, WORD, BYTE, BYTE),
    st.builds(dmar.Sidp, SCOPES, WORD, WORD),
    st.builds(dmar.Unknown, st.integers(7, 0xFFFF), raw(0, 20)),
)
DMARS = st.builds(Dmar, some(STRUCTURES), headers(b"DMAR"), BYTE, BYTE, raw(10))

TYPED = {1, 2, 3, 4, 0x42, 0x43, 0x46, 0x47, 0x48}
ENTRIES = some(
    st.one_of(
        st.builds(ivhd.Select, st.sampled_from([1, 2, 3, 4]), WORD, BYTE),
        st.builds(
            ivhd.Alias, st.sampled_from([0x42, 0x43]), WORD, WORD, BYTE, st.tuples(BYTE, BYTE)
        ),
        st.builds(ivhd.Extended, st.sampled_from([0x46, 0x47]), WORD, DWORD, BYTE),
        st.builds(ivhd.Special, BYTE, BYTE, WORD, BYTE, WORD),
        st.builds(ivhd.AcpiDevice, WORD, raw(8), raw(8), BYTE, raw(0, 9), BYTE),
        st.builds(ivhd.Other, st.sampled_from(sorted({*range(0x40)} - TYPED)), raw(3)),
        st.builds(ivhd.Other, st.sampled_from(sorted({*range(0x40, 0x80)} - TYPED)), raw(7)),
    )
)
UNITS = (ENTRIES, WORD, BYTE, WORD, WORD, DWORD)
BLOCKS = st.one_of(
    st.builds(ivrs.Ivhd, st.just(0x10), WORD, QWORD, *UNITS),
    st.builds(
        ivrs.Ivhd, st.sampled_from([0x11, 0x40]), WORD, QWORD, *UNITS, st.tuples(QWORD, QWORD)
    ),
    st.builds(
        ivrs.Ivmd, st.sampled_from(ivrs.MEMORY), BYTE, QWORD, QWORD, WORD, WORD, WORD, raw(6),
        raw(0, 5),
    ),
    st.builds(ivrs.Unknown, st.sampled_from([0, 0x12, 0x23, 0xFF]), BYTE, raw(0, 9)),
)  # fmt: skip
IVRSES = st.builds(Ivrs, some(BLOCKS), headers(b"IVRS"), DWORD, QWORD)

MAPPINGS = some(st.builds(iort.IdMapping, DWORD, DWORD, DWORD, st.integers(48, 400), DWORD))
RANGES = some(st.builds(iort.MemoryRange, QWORD, QWORD, DWORD))
OTHER_KINDS = st.integers(0, 255).filter(lambda kind: kind != iort.RMR)


@st.composite
def _plain_node(draw: st.DrawFn) -> iort.Node:
    body, mappings = draw(raw(0, 40)), draw(MAPPINGS)
    at = 16 + len(body) if mappings else draw(DWORD)
    whole = body + b"".join(one.encode() for one in mappings)
    return iort.Node(draw(OTHER_KINDS), draw(BYTE), draw(DWORD), len(mappings), at, whole)


NODES = some(
    st.one_of(
        _plain_node(),
        st.builds(
            rawtables.rmr_node, RANGES, MAPPINGS, flags=DWORD, identifier=DWORD, revision=BYTE
        ),
    )
)
IORTS = st.builds(Iort, NODES, headers(b"IORT"), DWORD, raw(0, 9), raw(0, 9))
TABLES = st.one_of(DMARS, IVRSES, IORTS)


def read_or_refused(data: bytes) -> Table | None:
    """Read a table; if it is refused, its error must name a byte of it."""
    refused: TableError | None = None
    try:
        table = anytable.parse(data, name="x")
    except TableError as error:
        refused = error
    if refused is not None:
        assert 0 <= refused.offset <= len(data)
        assert refused.what.startswith(f"x: byte 0x{refused.offset:x}: ")
        return None
    assert table.encode() == data
    for line in describe(table):
        assert line.isprintable()
    assert all(36 <= one.offset < len(data) for one in anytable.findings(table) if one.offset != 8)
    return table


@settings(deadline=None)
@given(TABLES)
def test_what_is_written_is_read(table: Table) -> None:
    assert read_or_refused(table.encode()) == table


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    read_or_refused(data)


@settings(deadline=None)
@given(st.sampled_from([b"DMAR", b"IVRS", b"IORT"]), st.binary(max_size=300))
def test_any_bytes_after_a_good_header(signature: bytes, body: bytes) -> None:
    read_or_refused(rawtables.table(signature, 1, body))


@settings(deadline=None)
@given(
    TABLES.map(lambda table: table.encode()) | st.sampled_from([*rawtables.ALL.values()]),
    st.lists(st.tuples(st.integers(36, 500), BYTE), min_size=1, max_size=4),
    st.integers(0, 9),
)
def test_tables_that_are_a_bit_wrong(data: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    changed = bytearray(data)
    for offset, byte in changes:
        if offset < len(changed):
            changed[offset] = byte
    # With the checksum mended, so that what is wrong must be found by itself.
    read_or_refused(rawtables.sealed(bytes(changed[: max(36, len(changed) - cut)])))


@settings(deadline=None)
@given(TABLES, st.data())
def test_a_changed_byte_is_noticed(table: Table, data: st.DataObject) -> None:
    raw = bytearray(table.encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(TableError):
        anytable.parse(bytes(raw))


@settings(deadline=None)
@given(TABLES)
def test_raising_changes_the_oem_revision_alone(table: Table) -> None:
    if table.header.oem_revision == 0xFFFFFFFF:
        return
    before, after = table.encode(), table.raised().encode()
    assert struct.unpack_from("<I", after, 24)[0] == table.header.oem_revision + 1
    assert before[:9] + before[10:24] + before[28:] == after[:9] + after[10:24] + after[28:]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 4), st.integers(0, 1)), max_size=6))
def test_overlaps_are_found_as_by_comparing_all(regions: list[tuple[int, int, int]]) -> None:
    claims = [
        Reserved(number, base << 12, size << 12, who, "R")
        for number, (base, size, who) in enumerate(regions)
    ]
    found = check(claims)
    odd = any(
        one.base < two.base + two.size
        and two.base < one.base + one.size
        and ((one.base, one.size) != (two.base, two.size) or one.who == two.who)
        for one in claims
        for two in claims[: one.offset]
    )
    assert bool(found) == odd


# Full of the smallest structures there are: comparing each with each would take for ever.


@pytest.mark.parametrize(
    ("signature", "head", "unit"),
    [
        (b"DMAR", rawtables.DMAR_HEAD, b"\x7f\0\4\0"),
        (b"DMAR", rawtables.DMAR_HEAD, rawtables.RMRR[:2] + b"\x18\0" + rawtables.RMRR[4:24]),
        (b"IVRS", rawtables.IVRS_HEAD, b"\x7f\0\4\0"),
        (b"IVRS", rawtables.IVRS_HEAD, rawtables.IVMD_ONE),
    ],
    ids=["dmar-unknown", "dmar-rmrr", "ivrs-unknown", "ivrs-ivmd"],
)
def test_big_tables(signature: bytes, head: bytes, unit: bytes) -> None:
    count = SIZE_LIMIT // 4 // len(unit)
    table = read_or_refused(rawtables.table(signature, 1, head, unit * count))
    assert table is not None


def test_big_iort() -> None:
    # As many mappings as fit into a node, all leading to the same place.
    mappings = [iort.IdMapping(0, 0xFFFF, 0, 48)] * 3000
    whole = b"".join(one.encode() for one in mappings)
    root = iort.Node(iort.ROOT_COMPLEX, 3, 0, 3000, 16, whole)
    smmu = iort.Node(iort.SMMU_V3, 3, 0, 0, 0, bytes(60))
    rmr = rawtables.rmr_node([iort.MemoryRange(0x10000, 0x10000)], mappings)
    table = read_or_refused(Iort((smmu, *[root] * 8, *[rmr] * 8)).encode())
    assert table is not None
    assert any("too many mappings" in line for line in describe(table))
