# SPDX-License-Identifier: GPL-2.0-only
"""Operations and finds: the C header, words, files, and files from others."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import struct
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simheader
from iommuq.explore import operations, store, wire
from iommuq.explore.choose import decode
from iommuq.explore.finds import FORMAT, Find, load, splat_key
from iommuq.explore.operations import Operation, from_json, kinds, listing, to_json
from iommuq.explore.rules import errnos
from iommuq.explore.rules.model import Breach
from iommuq.system.errors import UserError
from simstates import GOOD, NUMBERS, STATES, changed, moment

_SETTINGS = settings(database=None, derandomize=True, deadline=None, max_examples=150)
ADD = {"kind": "add", "b": 1}
FIND = Find(
    Breach(
        "regions.lost",
        "device 0 does not reach its direct region",
        "(state.dev[0].regions & ~state.dev[0].reach) == 0",
    ),
    (Operation("add", b=1), Operation("claim_group")),
    base="7.3",
    step="follow-up/0001",
    seed=3,
)


# The header.


def test_the_kinds_are_those_of_the_header() -> None:
    """operations.toml has the kinds of the enum, in its order."""
    assert list(kinds()) == simheader.kinds()


def test_the_sizes_are_those_of_the_header() -> None:
    """The layout of Python has as many bytes as the structs have."""
    assert len(wire.message([Operation("end")])) == 4 + simheader.size("iommu_sim_op")
    assert simheader.size("iommu_sim_state") == wire.STATE_SIZE
    assert simheader.constants()["IOMMU_SIM_VERSION"] == wire.VERSION


def test_the_fields_are_in_the_order_of_the_header() -> None:
    """Each byte of a state is read as the field that the header has there."""
    flat = _offsets("iommu_sim_state")
    data = bytearray(wire.STATE_SIZE)
    for number in range(8, len(data)):
        data[number] = number % 251
    struct.pack_into("<iI", data, 0, -22, 7)
    state = wire.state(bytes(3) + bytes(data), 3)
    assert (state.ret, state.blocks) == (-22, 7)
    for name in wire.State._fields[2:10]:
        assert getattr(state, name) == flat[name] % 251, name
    assert list(state.user) == [flat[f"user[{n}]"] % 251 for n in range(wire.DOMAINS)]
    for prefix, all_of, names in (
        ("group", state.groups, wire.Group._fields),
        ("dev", state.devices, wire.Device._fields),
    ):
        for number, each in enumerate(all_of):
            for name, value in zip(names, each, strict=True):
                member = re.sub(r"(pasid)(\d)$", r"\1[\2]", name)
                assert value == flat[f"{prefix}[{number}].{member}"] % 251, name


def _offsets(name: str, prefix: str = "", start: int = 0) -> dict[str, int]:
    found = {}
    for member, (kind, count) in simheader.members(name).items():
        inner = kind.removeprefix("struct ")
        for number in range(count or 1):
            where = f"{prefix}{member}[{number}]" if count else f"{prefix}{member}"
            if inner != kind:
                found.update(_offsets(inner, f"{where}.", start))
                start += simheader.size(inner)
            else:
                found[where] = start
                start += {"u8": 1}.get(kind, 4)
    return found


def test_the_fields_of_an_operation_are_in_the_order_of_the_header() -> None:
    """Each value of an operation is packed where the header has it."""
    operation = Operation("map", 3, 1, 2, 9, 8, 7, "paging", 5, "EINVAL", 6, 1)
    data = wire.message([operation])[4:]
    wanted = {
        "kind": simheader.kinds().index("map"), "dev": 3, "group": 1, "domain": 2, "a": 9,
        "b": 8, "c": 7, "fail_kind": simheader.constants()["SIM_PAGING"], "fail_at": 5,
        "fail_errno": errno.EINVAL, "fail_alloc": 6, "fail_every": 1,
    }  # fmt: skip
    at = 0
    for name, (_, count) in simheader.members("iommu_sim_op").items():
        if name != "pad":
            assert data[at] == wanted.pop(name), name
        at += count or 1
    assert not wanted


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        ("SIM_S_", "PRESENT GROUPED BOUND DEFERRED RESETTING DMA_IOMMU USED"),
        ("SIM_C_", "PCI UNTRUSTED CLAIMED DEFERS BEHIND=BEHIND_BRIDGE"),
        ("SIM_", "NONE IDENTITY BLOCKED PAGING FREED"),
        ("IOMMU_SIM_", "DEVICES=DEVS GROUPS DOMAINS PASIDS NOT_NOW VERSION"),
    ],
)
def test_the_constants_are_those_of_the_header(prefix: str, names: str) -> None:
    """Bits and ids have the same values on both sides."""
    for pair in names.split():
        ours, _, theirs = pair.partition("=")
        assert getattr(wire, ours) == simheader.constants()[prefix + (theirs or ours)], pair


def test_fields_stay_below_what_the_header_has() -> None:
    """No operation of the table names a device, group or domain that is not there."""
    most = {"dev": wire.DEVICES, "group": wire.GROUPS, "domain": wire.DOMAINS}
    for kind in kinds().values():
        for name, values in kind.fields.items():
            assert values <= most.get(name, 256), kind
        assert all(hasattr(errno, name) for name in kind.errnos), kind


# Words.


@pytest.mark.parametrize("name", list(kinds()))
def test_each_kind_has_words(name: str) -> None:
    """Each value of each field is told in one line, which can be in a comment in C."""
    for field, values in {**kinds()[name].fields, "fail_alloc": 1}.items():
        for value in range(values):
            fields: dict[str, Any] = {field: value}
            words = Operation(name, **fields).words()
            assert words
            assert "\n" not in words
            assert "*/" not in words
            assert "{" not in words


def test_the_words_of_a_device_tell_what_it_is() -> None:
    """A device is told with its regions and what its driver insists on."""
    operation = Operation("add", 1, 1, a=1 | 2 | 4 | 8 | 2 << 4, b=1 | 2 << 2 | 3 << 4, c=3)
    assert listing([operation]) == [
        "  1. add device 1 to group 1: PCI, untrusted, behind a bridge, deferred attach, "
        "insists on identity, regions: direct, direct-relaxable, reserved of three pages, "
        "the first at the end of 32 bits"
    ]
    assert Operation("add", a=8 | 1 << 4).words() == (
        "add device 0 to group 0: not PCI, deferred attach, insists on DMA"
    )


def test_the_words_of_failures() -> None:
    """A failure that is injected is told with its number and its error."""
    operation = Operation("bind", fail_kind="blocked", fail_at=2, fail_errno="EBUSY")
    assert operation.words().endswith("(attach 2 to a domain of type blocked fails with EBUSY)")
    assert Operation("bind", fail_alloc=7).words().endswith("(allocation 7 fails)")


# Files of our own.


@given(st.lists(st.tuples(NUMBERS, STATES), min_size=1, max_size=4))
@_SETTINGS
def test_random_operations_go_into_a_file_and_back(pairs: list[tuple[int, wire.State]]) -> None:
    """What can be chosen can be stored, and is the same when it is read."""
    wanted = [each for pair in pairs if (each := decode(*pair)) is not None]
    if wanted:
        assert from_json(json.loads(json.dumps(to_json(wanted))), "file") == wanted


@given(st.data())
@_SETTINGS
def test_all_operations_go_into_a_file_and_back(data: st.DataObject) -> None:
    """Any values in their ranges can be stored, also those that are never chosen."""
    name = data.draw(st.sampled_from(list(kinds())))
    fields: dict[str, Any] = {
        field: data.draw(st.integers(0, values - 1))
        for field, values in kinds()[name].fields.items()
    }
    if data.draw(st.booleans()):
        fields["fail_kind"] = data.draw(st.sampled_from(list(operations.FAIL_KINDS)))
        fields["fail_at"] = data.draw(st.integers(1, operations.FAIL_AT))
        fields["fail_errno"] = data.draw(st.sampled_from(operations.FAIL_ERRNOS))
    fields["fail_alloc"] = data.draw(st.integers(0, operations.FAIL_ALLOC))
    wanted = Operation(name, **fields)
    assert from_json(json.loads(json.dumps(to_json([wanted]))), "file") == [wanted]
    assert len(wire.message([wanted])) == 4 + simheader.size("iommu_sim_op")
    assert wanted.words()


def test_a_find_goes_into_a_file_and_back() -> None:
    """A find that is kept is read as it was, and has the same signature."""
    path = store.keep("7.3", FIND)
    assert store.read(path) == FIND
    assert json.loads(path.read_bytes())["signature"] == "regions.lost after claim_group"


# Files of others.

_FAIL = {"fail_kind": "paging", "fail_at": 1, "fail_errno": "EINVAL"}


@pytest.mark.parametrize(
    "bad",
    [
        None,
        {},
        "add",
        [],
        [ADD] * (operations.MOST + 1),
        [None],
        [["add"]],
        [{}],
        [{"kind": None}],
        [{"kind": []}],
        [{"kind": {"add": 1}}],
        [{"kind": "explode"}],
        [{"kind": "END"}],
        [{"kind": 2}],
        [{"kind": "add", "dev": 4}],
        [{"kind": "add", "dev": -1}],
        [{"kind": "add", "dev": True}],
        [{"kind": "add", "dev": 1.0}],
        [{"kind": "add", "dev": "1"}],
        [{"kind": "add", "dev": None}],
        [{"kind": "add", "dev": [1]}],
        [{"kind": "add", "a": 64}],
        [{"kind": "add", "a": float("nan")}],
        [{"kind": "add", "a": float("inf")}],
        [{"kind": "add", "a": 10**400}],
        [{"kind": "add", "domain": 1}],
        [{"kind": "remove", "group": 0}],
        [{"kind": "add", "words": 1}],
        [{"kind": "add", "__class__": 1}],
        [{"kind": "add", "": 0}],
        [{"kind": "add", **_FAIL, "fail_kind": "nested"}],
        [{"kind": "add", **_FAIL, "fail_kind": ""}],
        [{"kind": "add", **_FAIL, "fail_kind": []}],
        [{"kind": "add", **_FAIL, "fail_kind": 3}],
        [{"kind": "add", **_FAIL, "fail_at": 0}],
        [{"kind": "add", **_FAIL, "fail_at": operations.FAIL_AT + 1}],
        [{"kind": "add", **_FAIL, "fail_at": True}],
        [{"kind": "add", **_FAIL, "fail_errno": "EPERM"}],
        [{"kind": "add", **_FAIL, "fail_errno": {}}],
        [{"kind": "add", **_FAIL, "fail_errno": 22}],
        [{"kind": "add", "fail_kind": "paging", "fail_at": 1}],
        [{"kind": "add", "fail_errno": "EINVAL", "fail_at": 1}],
        [{"kind": "add", "fail_errno": "EINVAL", "fail_kind": "paging"}],
        [{"kind": "add", "fail_at": 1}],
        [{"kind": "add", "fail_alloc": operations.FAIL_ALLOC + 1}],
        [{"kind": "add", "fail_alloc": -1}],
        [ADD, ADD, {"kind": "add", "b": 64}],
    ],
    ids=lambda value: json.dumps(value, default=str)[:60],
)
def test_operations_that_are_none(bad: object) -> None:
    """Each is an error of the user that names the file, and is not long."""
    with pytest.raises(UserError) as caught:
        from_json(bad, "x.json")
    assert str(caught.value).startswith("x.json: ")
    assert len(str(caught.value)) < 700


def test_the_number_of_a_bad_operation_is_told() -> None:
    """An error names the operation by its number in the listing."""
    with pytest.raises(UserError, match=r"x\.json: operation 3: b cannot be 64"):
        from_json([ADD, ADD, {"kind": "add", "b": 64}], "x.json")


def test_the_most_operations_are_allowed() -> None:
    """A sequence of the largest length can be read."""
    assert len(from_json([ADD] * operations.MOST, "x")) == operations.MOST


@pytest.mark.parametrize(
    "change",
    [
        {"format": FORMAT + 1},
        {"format": True},
        {"format": float(FORMAT)},
        {"format": None},
        {"rule": "regions.none"},
        {"rule": "regions"},
        {"rule": ["regions.lost"]},
        {"rule": "x" * 5000},
        {"text": None},
        {"text": ""},
        {"text": 5},
        {"expect": {}},
        {"expect": ""},
        {"base": None},
        {"step": 1},
        {"seed": True},
        {"seed": -1},
        {"seed": 1 << 32},
        {"seed": 1.5},
        {"seed": "1"},
        {"splats": "WARNING"},
        {"splats": [1]},
        {"splats": None},
        {"faulted": "yes"},
        {"faulted": 1},
        {"operations": None},
        {"operations": []},
        {"operations": [{"kind": "add", "dev": 9}]},
        # C, in what becomes a comment or an expression.
        {"text": "a */ int evil; /* b"},
        {"text": "a */"},
        {"text": "a ??/"},
        {"text": "line\nline"},
        {"text": "line\n"},
        {"text": "\u202eright to left"},
        {"text": "half \ud800"},
        {"text": "\x1b[31mred"},
        {"text": "a" * 500},
        {"base": "7.3 */"},
        {"base": "7.3\n"},
        {"base": "7.3 --json"},
        {"step": "0001*/int evil;/*"},
        {"step": "0001\n#include <evil.h>"},
        {"step": "0001`evil`"},
        {"expect": "1); evil(); (1"},
        {"expect": "evil()"},
        {"expect": "state.ret == evil"},
        {"expect": "state.ret = 0"},
        {"expect": "state.ret++"},
        {"expect": "state.ret /* x */ == 0"},
        {"expect": "state.ret, 0"},
        {"expect": 'panic("x")'},
        {"expect": "state.ret == 0\n"},
        {"expect": "state.ret == 0 // "},
        {"expect": "({ evil; })"},
        {"expect": "BUG()"},
        {"expect": "asm(SIM_NONE)"},
        {"expect": "state.ret == 0 \\"},
        {"expect": "SIM_" * 500 + ";"},
        {"expect": "!" * 5000},
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_finds_that_are_none(change: dict[str, Any]) -> None:
    """Each is an error of the user that names the file, soon; no C code gets in."""
    data = {**FIND.to_json(), **change}
    begin = time.monotonic()
    with pytest.raises(UserError) as caught:
        load(data, "x.json")
    assert time.monotonic() - begin < 1
    assert str(caught.value).startswith("x.json: ")
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("data", [None, [], "find", 1, {}, [FIND.to_json()]])
def test_what_is_not_even_a_table(data: object) -> None:
    """Anything else than a find is refused by its format."""
    with pytest.raises(UserError, match=f"^x: not a find of format {FORMAT}$"):
        load(data, "x")


@pytest.mark.parametrize("name", list(kinds()))
def test_what_a_rule_says_of_each_kind_can_be_read(name: str) -> None:
    """The longest text, with the source of an operation, is one that a file may have."""
    # EDOM is documented for none.
    (breach,) = errnos.documented(moment(Operation(name), changed(GOOD, ret=-errno.EDOM)))
    find = Find(breach, (Operation(name),), base="6.12", step="resv-direct/0001")
    assert load(find.to_json(), "x").breach.text == breach.text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe\xfa",
        b"\0\0\0\0",
        b'{"format": 1, "text": "\xc3"}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"[" * 900 + b"]" * 900,
        b'{"format": NaN}',
        b"1" * 10_000,
        b'{"format": 1, "rule": "regions.lost", "text": "t", "expect": "1", "base": "", "step": "",'
        b' "operations": [{"kind": "add", "a": ' + b"[" * 900 + b"]" * 900 + b"}]}",
        b" " * (store.SIZE + 1),
    ],
    ids=lambda content: repr(content[:40]),
)
def test_files_that_are_none(tmp_path: Path, content: bytes) -> None:
    """A file that is damaged or hostile is an error of the user that names it."""
    path = tmp_path / "find.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        store.read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_places_without_a_file(tmp_path: Path) -> None:
    """A directory, a dead link and no file are errors that name the path."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("folder", "link", "none", "folder/none"):
        with pytest.raises(UserError) as caught:
            store.read(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ")


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    """A FIFO is refused before it is opened."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    # Ends a reader that should not be there.
    def write() -> None:
        with contextlib.suppress(BrokenPipeError):
            fifo.write_bytes(b"{}")

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    with pytest.raises(UserError, match="not a regular file"):
        store.read(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer.join(5)
    os.close(reader)


def test_a_file_of_the_largest_size_can_be_read(tmp_path: Path) -> None:
    """The limit is not reached by a find that is just as large."""
    path = tmp_path / "find.json"
    text = json.dumps(FIND.to_json())
    path.write_text(text + " " * (store.SIZE - len(text)), encoding="utf-8")
    assert store.read(path) == FIND


# Signatures.


def test_the_signature_is_the_rule_and_the_last_operation() -> None:
    """It tells a find that met a failure from one that did not."""
    assert FIND.signature == "regions.lost after claim_group"
    faulted = load({**FIND.to_json(), "faulted": True}, "x")
    assert faulted.signature == "regions.lost after claim_group that met a failure"


@pytest.mark.parametrize(
    ("title", "key"),
    [
        (
            "WARNING: drivers/iommu/iommu.c:12 at iommu_detach_group+0x5c/0x2e0, CPU#0: swapper/1",
            "WARNING in iommu_detach_group",
        ),
        (
            "WARNING: CPU: 0 PID: 1 at drivers/iommu/iommu.c:12 iommu_detach_group+0x5c/0x2e0",
            "WARNING in iommu_detach_group",
        ),
        (
            "BUG: KASAN: slab-use-after-free in iommu_group_store_type+0x5c/0x2e0",
            "slab-use-after-free in iommu_group_store_type",
        ),
        ("refcount_t: underflow 12; 0xdead", "refcount_t: underflow N; N"),
    ],
)
def test_the_key_of_a_splat_has_no_addresses(title: str, key: str) -> None:
    """Two splats of one place have one key, whatever their lines and offsets are."""
    assert splat_key(title) == key
    find = Find(Breach("splats.printed", "x", "state.splats == 0"), FIND.operations, (title,))
    assert find.signature == f"splats.printed: {key}"
