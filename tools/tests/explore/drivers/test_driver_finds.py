# SPDX-License-Identifier: GPL-2.0-only
"""Finds of drivers: names, files, files from others, and the scenarios that come of them."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuq.explore import store, write
from iommuq.explore.campaign import Outcome
from iommuq.explore.drivers import finds
from iommuq.explore.drivers.finds import DriverFind, load, scenario
from iommuq.explore.drivers.guest import titles
from iommuq.explore.drivers.rules import RULES
from iommuq.explore.drivers.steps import VFIO, Step
from iommuq.explore.drivers.world import World, data, layouts
from iommuq.explore.finds import Find, splat_key
from iommuq.explore.operations import Operation
from iommuq.explore.rules.model import Breach
from iommuq.firmware import scenario as scenarios
from iommuq.firmware.scenario import load_scenario
from iommuq.results.console import splats
from iommuq.results.console.splats import Splat
from iommuq.system import files
from iommuq.system.errors import UserError

_SETTINGS = settings(database=None, derandomize=True, deadline=None, max_examples=150)
LOOK, REPLUG, RESCAN = Step("look"), Step("replug"), Step("rescan")
BIND = Step("bind", ("control", VFIO))
CLAIM = Step("claim", ("cdev", "control"))
MAP = Step("map", ("control", "0x3d002000", "0x1000"))
FAILS = Step("claim", ("group", "control"), "iommu_group_claim_dma_owner", 2)
FIND = DriverFind(
    Breach("isolation.memory", "control reaches all memory", "dma control other|BLOCKED"),
    (REPLUG, BIND, CLAIM, LOOK),
    "q35-intel",
    "mixed",
    base="7.3",
    step="follow-up/0001",
    seed=3,
)
SPLAT = replace(FIND, breach=Breach("splats.printed", "the kernel printed a splat", ""))
WARN = "WARNING: CPU: 0 PID: 1 at drivers/iommu/iommu.c:{} {}+0x1/0x2"


# Signatures.


@pytest.mark.parametrize(
    ("find", "signature"),
    [
        (FIND, "q35-intel: isolation.memory"),
        (replace(FIND, note="removed"), "q35-intel: isolation.memory (removed)"),
        (replace(FIND, faulted=True), "q35-intel: isolation.memory that met a failure"),
        (replace(FIND, machine="q35-amd"), "q35-amd: isolation.memory"),
        (replace(FIND, layout="pairs"), "q35-intel: isolation.memory"),
        (replace(FIND, operations=(LOOK,)), "q35-intel: isolation.memory"),
        (replace(FIND, operations=()), "q35-intel: isolation.memory after boot"),
        (SPLAT, "q35-intel: splats.printed"),
        (
            replace(SPLAT, splats=(WARN.format(7, "one"), WARN.format(9, "iommu_two"))),
            "q35-intel: splats.printed: WARNING in iommu_two",
        ),
        # A panic is what becomes of the splat before it.
        (
            replace(SPLAT, splats=(WARN.format(7, "one"), "Kernel panic - not syncing: x")),
            "q35-intel: splats.printed: WARNING in one",
        ),
        (
            replace(SPLAT, splats=("Kernel panic - not syncing: x",)),
            "q35-intel: splats.printed: Kernel panic - not syncing: x",
        ),
    ],
)
def test_a_signature(find: DriverFind, signature: str) -> None:
    """It has the machine, the rule, what is special, and the last step that changed something."""
    assert find.signature == signature
    assert find.relabelled("6.12", "x", 9).signature == signature


def _splat(*lines: str) -> Splat:
    (found,) = splats.find(lines)
    return found


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        (
            ["BUG: kernel NULL pointer dereference, address: 028", "RIP: 0010:one+0x1/0x2"],
            "BUG in one",
        ),
        (
            [
                "Oops: general protection fault, probably for address 0x1: 0000 [#1] KASAN",
                "RIP: 0010:two+0x1/0x2",
            ],
            "Oops in two",
        ),
        (["kernel BUG at drivers/iommu/iommu.c:55!", "RIP: 0010:three+0x1/0x2"], "kernel in three"),
        (
            ["BUG: KASAN: slab-use-after-free in four+0x1/0x2", "RIP: 0010:x+0x1/0x2"],
            "slab-use-after-free in four",
        ),
        ([WARN.format(7, "five"), "RIP: 0010:x+0x1/0x2"], "WARNING in five"),
        (
            ["BUG: kernel NULL pointer dereference, address: 028"],
            "BUG: kernel NULL pointer dereference, address: N",
        ),
        (
            ["refcount_t: underflow; use-after-free.", "RIP: 0010:x+0x1/0x2"],
            "refcount_t: underflow; use-after-free.",
        ),
    ],
)
def test_the_name_of_a_splat(lines: list[str], key: str) -> None:
    """Two defects that are in two functions have two names."""
    assert [splat_key(each) for each in titles([_splat(*lines)])] == [key]


# Files.


def test_a_find_is_the_same_from_its_file() -> None:
    """All of it, with failures and splats; also by the way that reads both kinds of find."""
    find = replace(
        FIND,
        operations=(REPLUG, BIND, FAILS, LOOK),
        splats=("WARNING: \x1b[31m", ""),
        faulted=True,
        note="removed, behind a bridge",
    )
    stored = json.loads(json.dumps(find.to_json()))
    assert load(stored, "x") == find
    assert store.load_any(stored, "x") == find
    path = store.keep("7.3-q35-intel", find)
    assert store.read(path) == find
    assert list(store.kept("7.3-q35-intel")) == [find]


def test_finds_of_the_core_are_told_apart() -> None:
    """What has a machine is one of a driver, also next to the other kind in one folder."""
    core = Find(Breach("regions.lost", "x", "state.ret == 0"), (Operation("add"),), base="7.3")
    assert store.load_any(core.to_json(), "x") == core
    store.keep("7.3", core)
    store.keep("7.3", FIND)
    assert {type(each) for each in store.kept("7.3")} == {Find, DriverFind}
    for data_ in (core.to_json() | {"machine": 1}, FIND.to_json() | {"machine": None}):
        with pytest.raises(UserError, match=r"^x: "):
            store.load_any(data_, "x")


@pytest.mark.parametrize("data_", [None, [], "machine", ["machine"], 7, {}])
def test_what_is_no_find(data_: Any) -> None:
    """It is an error of one line."""
    with pytest.raises(UserError, match=r"^x: not a find") as caught:
        store.load_any(data_, "x")
    assert "\n" not in str(caught.value)


CHANGES: list[dict[str, Any]] = [
    {"format": 2},
    {"format": True},
    {"format": None},
    {"format": []},
    {"rule": "regions.gone"},
    {"rule": []},
    {"rule": {}},
    {"rule": None},
    {"machine": "q36"},
    {"machine": "uml-x86_64"},
    {"machine": ""},
    {"machine": "../../etc/passwd"},
    {"machine": "q35-intel\n"},
    {"machine": ["q35-intel"]},
    {"layout": "none"},
    {"layout": 1},
    {"text": ""},
    {"text": 'a "quote'},
    {"text": "a\nb"},
    {"text": "a\x1b[31m"},
    {"text": "a\\u0022"},
    {"text": "a" * 402},
    {"text": None},
    {"expect": "dma control other"},
    {"expect": 'x"|ok'},
    {"expect": "x\n|ok"},
    {"expect": "x|"},
    {"expect": "|ok"},
    {"expect": "x|ok|ok"},
    {"expect": "x" * 102 + "|ok"},
    {"note": "A"},
    {"note": "a" * 61},
    {"note": 0},
    {"base": "7.3 --at x"},
    {"base": "a/b"},
    {"step": "`x`"},
    {"step": "x" * 301},
    {"splats": "x"},
    {"splats": [1]},
    {"splats": {"a": 1}},
    {"splats": None},
    {"seed": -1},
    {"seed": 1 << 32},
    {"seed": True},
    {"seed": 1.0},
    {"seed": "1"},
    {"faulted": 1},
    {"faulted": None},
    {"operations": None},
    {"operations": [REPLUG.to_json()] * 1001},
    {"operations": [{"kind": "claim", "words": ["group", "\x1b"]}]},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: repr(c)[:40])
def test_a_hostile_file(change: dict[str, Any]) -> None:
    """Each change is refused in one short line that can be printed."""
    with pytest.raises(UserError) as caught:
        load({**FIND.to_json(), **change}, "x")
    said = str(caught.value)
    assert said.isprintable()
    assert len(said) < 400


@pytest.mark.parametrize("name", sorted(set(FIND.to_json()) - {"signature"}))
def test_a_file_that_lacks_something(name: str) -> None:
    """Nothing has a default: the program has written all of it."""
    data_ = FIND.to_json()
    del data_[name]
    with pytest.raises(UserError, match=r"^x: "):
        load(data_, "x")


def test_a_long_list_of_splats_is_read_at_once() -> None:
    """The file has a limit, and so has what is made of it."""
    begin = time.monotonic()
    find = load({**SPLAT.to_json(), "splats": [" at " + "a:1" * 100_000] * 3}, "x")
    assert len(find.signature) < 200
    assert time.monotonic() - begin < 2


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@_SETTINGS
@given(st.dictionaries(st.sampled_from(sorted(FIND.to_json())), _VALUES, max_size=2))
def test_any_file_is_taken_or_refused(changes: dict[str, Any]) -> None:
    """Nothing but a `UserError` is raised, and what is taken can be shown and written."""
    try:
        find = store.load_any({**FIND.to_json(), **changes}, "x")
    except UserError:
        return
    assert find.lines()
    assert isinstance(find, DriverFind)
    assert scenario(find)


def test_a_find_as_text() -> None:
    """What, the rule and its source, the regions, and the steps."""
    lines = replace(FIND, operations=(BIND, FAILS), splats=("WARNING: x",)).lines()
    assert lines[0] == "FAIL: q35-intel: control reaches all memory"
    assert lines[1].startswith("  rule isolation.memory: A device whose group ")
    assert lines[3] == "  regions: region: marked; of-function: function1; behind: second"
    assert lines[5:] == [
        "  2. claim group control, allocation 2 of iommu_group_claim_dma_owner fails",
        "  splat: WARNING: x",
    ]


# Scenarios.


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that scenarios are written to, in a project of its own."""
    monkeypatch.setattr(scenarios, "folder", lambda: tmp_path)
    monkeypatch.setattr(finds, "folder", lambda: tmp_path)
    return tmp_path


#: For each rule what a breach of it expects; see `test_driver_rules`.
EXPECTED = {
    "regions.lost": "dma marked region|REACHED",
    "isolation.memory": "dma control other|BLOCKED",
    "isolation.removed": "dma control other|BLOCKED",
    "isolation.owner": "dma-foreign marked control 0x3d002000|BLOCKED",
    "belief.mapped": "dma-mapped control 0x3d002000|REACHED",
    "belief.identity": "dma control other|REACHED",
    "ownership.direct": "claim group first|EINVAL",
    "refusal.changed": "type control|DMA-FQ",
    "nofail.back": "present ats|yes",
    "nofail.grouped": "together ats ats|yes",
    "nofail.refused": "rescan|ok",
    "nofail.hangs": "claim cdev control|ok",
    "errnos.documented": "claim cdev control|ok",
    "splats.printed": "",
}


@pytest.mark.parametrize("machine", [each["name"] for each in data()["machine"]])
@pytest.mark.parametrize("layout", layouts())
@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_a_find_becomes_a_scenario(folder: Path, machine: str, layout: str, rule: str) -> None:
    """It is accepted on its machine, has the regions of the layout, and ends with the check."""
    expect = EXPECTED[rule]
    if rule == "regions.lost":
        region = World.open(machine, layout).regions[0]
        expect = f"dma {region.devices[0]} {region.name}|REACHED"
    find = replace(
        FIND,
        breach=Breach(rule, "a text", expect),
        machine=machine,
        layout=layout,
        operations=(REPLUG, BIND, FAILS, MAP, LOOK, CLAIM),
    )
    assert load(find.to_json(), "x") == find
    assert write.add(Path("/none"), "it-fails", find) == folder / "it-fails.toml"
    found = load_scenario("it-fails")
    assert found.machines == (machine,)
    assert [(each.name, each.base) for each in found.region] == [
        (each.name, each.base) for each in World.open(machine, layout).regions
    ]
    assert found.checks(machine) == ("holds", "no_splat")
    do, _, word = expect.partition("|")
    last = found.step[-1]
    assert (last.do, last.check) == (do or "listen", "holds")
    assert last.expected[0] == (word or "ok")
    assert set(found.needs) == {"cdev", "group", "faults"}
    assert found.alone
    assert sum(each.check != "" for each in found.step) == 1


def steps_of(folder: Path, find: DriverFind) -> list[tuple[str, tuple[str, ...]]]:
    """Return what the scenario of a find does, and what may come of each step."""
    name = f"some-{len(list(folder.iterdir()))}"
    write.add(Path("/none"), name, find)
    return [(each.do, each.expected) for each in load_scenario(name).step]


def test_the_steps_of_a_scenario(folder: Path) -> None:
    """Looks are left out; what may fail may, and the check is not done before it is asked for."""
    found = steps_of(folder, replace(FIND, operations=(BIND, LOOK, FAILS, CLAIM, LOOK)))
    errnos = ("EBUSY", "EINVAL", "EPERM", "ENODEV", "ENOENT")
    assert found == [
        ("bind control vfio-pci", ("ok", "UNBOUND")),
        ("fail iommu_group_claim_dma_owner 2", ("ok",)),
        ("claim group control", ("ok", *errnos, "ENOMEM")),
        ("failed", ("yes", "no")),
        ("claim cdev control", ("ok", *errnos)),
        ("dma control other", ("BLOCKED",)),
    ]


def test_an_error_that_is_not_documented(folder: Path) -> None:
    """The scenario holds with each one that is, and the failure is injected in the last step."""
    breach = Breach("errnos.documented", "x", "claim group control|ok")
    found = steps_of(folder, replace(FIND, breach=breach, operations=(BIND, FAILS)))
    errnos = ("EBUSY", "EINVAL", "EPERM", "ENODEV", "ENOENT")
    assert found[1:] == [
        ("fail iommu_group_claim_dma_owner 2", ("ok",)),
        ("claim group control", ("ok", *errnos, "ENOMEM")),
    ]


def test_a_claim_that_must_be_refused(folder: Path) -> None:
    """It is the check, and is not done twice."""
    breach = Breach("ownership.direct", "x", "claim group first|EINVAL")
    steps = (Step("bind", ("first", VFIO)), Step("claim", ("group", "first")))
    found = steps_of(folder, replace(FIND, breach=breach, operations=steps))
    assert found[1:] == [("claim group first", ("EINVAL",))]


def test_a_replug_in_a_scenario(folder: Path) -> None:
    """All devices are removed and found again, and have no driver then."""
    names = World.open("q35-intel", "mixed").devices
    found = [do for do, _ in steps_of(folder, replace(FIND, operations=(REPLUG, LOOK)))]
    assert found == [
        *(f"remove {name}" for name in names),
        "rescan",
        *(f"unbind {name}" for name in names),
        "dma control other",
    ]


@pytest.mark.parametrize(
    "name",
    ["", "a", "ab", "A-x", "1-x", "../x", "a/b", "a b", "a_b", "a.b", "x" * 62, "é-x", "a-b\n"],
)
def test_a_bad_name(folder: Path, name: str) -> None:
    """Nothing is written, inside or outside of the folder."""
    with pytest.raises(UserError, match="is not a name of a scenario"):
        write.add(folder, name, FIND)
    assert list(folder.iterdir()) == []


def test_a_name_that_is_taken(folder: Path) -> None:
    """No scenario is replaced."""
    path = write.add(folder, "late-find", FIND)
    before = path.read_bytes()
    with pytest.raises(UserError, match="there is a scenario of the name late-find"):
        write.add(folder, "late-find", replace(FIND, operations=()))
    assert path.read_bytes() == before


def test_the_folder_is_that_of_the_project() -> None:
    """Where scenarios are looked for is where they are written."""
    assert scenarios.folder() == files.project_root() / "selftests" / "scenarios"
    with pytest.raises(UserError, match="there is a scenario of the name late-joiner"):
        finds.write("late-joiner", FIND)


# Sums of several plans.


def test_the_sum_of_two_outcomes() -> None:
    """Numbers are added, but for the blocks of one kernel; the parts stay as they are."""
    first = Outcome([FIND], [], {"a": (1.0, 2)}, 10, 2, 3.0, 7, 1)
    second = Outcome([], [SPLAT], {"b": (2.0, 3)}, 5, 1, 0.5, 4, 2)
    whole = Outcome()
    for _ in range(2):
        # Each progress is told so.
        whole.sum(first, second)
    assert whole == Outcome([FIND], [SPLAT], {"a": (1.0, 2), "b": (2.0, 3)}, 15, 3, 3.5, 7, 3)
    whole.finds.append(SPLAT)
    assert (first.finds, second.finds) == ([FIND], [])
