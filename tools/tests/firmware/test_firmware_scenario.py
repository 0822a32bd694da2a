# SPDX-License-Identifier: GPL-2.0-only
"""Firmware scenarios and the topology of their machines: ours, and those that are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from iommuq.firmware import scenario, topology
from iommuq.guests import machine
from iommuq.guests.machine import Machine, Qemu
from iommuq.system import files
from iommuq.system.errors import UserError

GOOD = """
title = "A claim is refused"
holds = "It is."
machines = ["q35-amd", "q35-intel"]
arguments = ["iommu=pt"]
needs = ["group"]

[[region]]
devices = ["marked", "second"]
base = 0x3e000000
size = 0x10000

[[step]]
do = "bind marked vfio-pci"

[[step]]
do = "claim group marked"
check = "refused"
expect = ["EINVAL", "EPERM"]

[[step]]
do = "dma second region+0x1000"
check = "reached"
expect = "REACHED"
machines = ["q35-amd"]

[[step]]
do = 'message "has requested"'
check = "told"
expect = "present"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of the scenarios of a project with our machines."""
    ours = files.project_root()
    (tmp_path / "patches").mkdir()
    shutil.copytree(ours / "selftests/machines", tmp_path / "selftests/machines")
    monkeypatch.setenv("IOMMUQ_ROOT", str(tmp_path))
    where = tmp_path / "selftests/scenarios"
    where.mkdir()
    return where


def of(devices: tuple[str, ...]) -> Machine:
    return Machine("m", "M", "qemu", "x86_64", 512, 5.0, qemu=Qemu("q35", devices))


@pytest.mark.parametrize("name", sorted(p.stem for p in scenario.folder().glob("*.toml")))
def test_ours_are_good(name: str) -> None:
    found = scenario.load_scenario(name)
    assert found.name == name
    # A title and what holds are for people: no scenario without either.
    assert found.title[-1] != "."
    for each in found.machines:
        text, first = scenario.script(found, machine.load_machine(each))
        lines = text.splitlines()
        assert lines[first - 1] == "listen"
        assert len(lines) == first + len(found.steps(each))


def test_where_one_is_refused_another_is_not() -> None:
    # Or a kernel that refuses everything would look good.
    for found in scenario.choose([]):
        for each in found.machines:
            claims = [s for s in found.steps(each) if s.check and s.words[0] in ("claim", "own")]
            if claims and each != "q35-plain":
                assert any(step.expected == ("ok",) for step in claims), (found.name, each)


def test_a_scenario_is_a_file(folder: Path) -> None:
    (folder / "a-claim.toml").write_text(GOOD)
    assert scenario.names() == ["a-claim"]
    found = scenario.load_scenario("a-claim")
    assert found.checks("q35-intel") == ("refused", "told", "no_splat")
    assert found.checks("q35-amd") == ("refused", "reached", "told", "no_splat")
    assert found.kernel_arguments == ("memmap=64K$0x3d000000", "memmap=64K$0x3e000000", "iommu=pt")
    text, first = scenario.script(found, machine.load_machine("q35-amd"))
    lines = text.splitlines()
    assert lines[0] == "device\t0000:00:05.0\t1234:11e8"
    assert lines[first:] == [
        "bind\t0000:00:05.0\tvfio-pci",
        "claim\tgroup\t0000:00:05.0",
        "dma\t0000:01:02.0\t3e001000",
        "message\thas requested",
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("holds =", "hold = 1\nholds =", "hold: unknown key"),
        ('title = "A claim is refused"', "", "title: is missing"),
        ('holds = "It is."', 'holds = " "', "holds is empty"),
        ('holds = "It is."', 'holds = "It is."\nseconds = 0', "seconds is not above 0"),
        ('["q35-amd", "q35-intel"]', "[]", "machines is empty"),
        ('["q35-amd", "q35-intel"]', '["q36"]', "machines: no machine 'q36'"),
        ('["q35-amd", "q35-intel"]', '["q35-plain"]', "machines: q35-plain has no IOMMU"),
        ('["iommu=pt"]', '["iommu=pt quiet"]', "arguments: not one word"),
        ('["group"]', '["grupp"]', "needs.0"),
        ('["marked", "second"]', '["marked", "third"]', "region.0.devices: no device 'third'"),
        ("base = 0x3e000000", "base = 0x3e000010", "base is not a multiple of the page size"),
        ("base = 0x3e000000", "base = -4096", "base is not a multiple of the page size"),
        ("base = 0x3e000000", "base = 0x3cfff000", "overlaps the memory at 0x3d000000"),
        ("base = 0x3e000000", "base = 0xffffffffff000", "beyond 52 bits"),
        ("size = 0x10000", "size = 0", "size is not a multiple of the page size"),
        ("size = 0x10000", 'size = 4096\nkind = "odd"', "region.0.kind"),
        ("size = 0x10000", 'size = 4096\nkind = "exclusion"', "region.0: q35-intel allows only"),
        ("size = 0x10000", 'size = 4096\nspread = "all"', "region.0: q35-intel allows only"),
        ("size = 0x10000", 'size = 4096\nname = "other"', "`other` is a reserved name"),
        ('do = "bind marked vfio-pci"', 'do = "bond marked vfio-pci"', "step.0: do: there are"),
        ('do = "bind marked vfio-pci"', 'do = "bind marked"', "step.0: do: bind takes DEVICE"),
        ('do = "bind marked vfio-pci"', 'do = "bind mark vfio-pci"', "step.0.do: no device 'mark'"),
        ('do = "bind marked vfio-pci"', "do = 'bind \"marked'", "step.0: do: No closing quotation"),
        ('do = "bind marked vfio-pci"', 'do = "map marked 0 lots"', "'lots' is not a number"),
        ('do = "bind marked vfio-pci"', 'do = "fail attach all"', "'all' is not a number"),
        ('do = "bind marked vfio-pci"', 'do = "fail attach 0"', "0 is no nth"),
        ('do = "bind marked vfio-pci"', 'do = "renumber marked 256"', "256 is no bus"),
        ('do = "bind marked vfio-pci"', 'do = "removals marked 0"', "0 is no rounds"),
        (
            'do = "bind marked vfio-pci"',
            'do = "switch marked identity region home"',
            "'home' is none of",
        ),
        ('"claim group marked"', '"claim grup marked"', "step.1: do: 'grup' is none of"),
        ("region+0x1000", "regio+0x1000", "step.2.do: 'regio+0x1000' is neither a region"),
        ('check = "told"', 'check = "reached"', "q35-amd has two checks of one name"),
        ('check = "told"', 'check = "no_splat"', "every scenario has no_splat"),
        ('check = "told"', 'check = "Told!"', "check is not a name like"),
        ('expect = "present"', "expect = []", "expect is empty"),
        ('expect = "present"', 'expect = "two words"', "'two words' is not one word"),
        ('machines = ["q35-amd"]\n\n[[step]]', 'machines = ["um"]\n\n[[step]]', "step.2.machines"),
        ("[[region]]", "[[region]", "line"),
    ],
)
def test_a_mistake_is_named(folder: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    path = folder / "a-claim.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        scenario.load_scenario("a-claim")
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_two_regions_of_one_name_are_refused(folder: Path) -> None:
    again = '[[region]]\ndevices = ["marked"]\nbase = 0x3e010000\nsize = 4096\n\n[[step]]'
    (folder / "a-claim.toml").write_text(GOOD.replace("[[step]]", again, 1))
    with pytest.raises(UserError, match="region: two have the same name"):
        scenario.load_scenario("a-claim")


@pytest.mark.parametrize("name", ["nosuch", "../scenarios/a-claim", "", "A"])
def test_what_is_no_scenario_is_refused(folder: Path, name: str) -> None:
    (folder / "a-claim.toml").write_text(GOOD)
    with pytest.raises(UserError, match="no scenario"):
        scenario.load_scenario(name)


def test_buses_are_numbered_depth_first() -> None:
    found = topology.devices(
        of(
            (
                "intel-iommu",
                # In the order of their places, not of the options.
                "pcie-root-port,id=late,addr=9",
                "pci-bridge,id=early,addr=3.1",
                "edu,id=one,addr=5",
                "pci-bridge,id=nested,bus=early,addr=2",
                "edu,id=deep,bus=nested,addr=1f.7",
                "edu,id=last,bus=late,addr=0",
            )
        )
    )
    assert found["one"].address == "0000:00:05.0"
    assert found["deep"].address == "0000:02:1f.7"
    assert found["deep"].path == ((3, 1), (2, 0), (0x1F, 7))
    assert found["deep"].devid == 0x02FF
    assert found["last"].address == "0000:03:00.0"
    assert found["one"].pci_id == "1234:11e8"


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        (("edu,id=a",), "a: needs addr="),
        (("edu,id=a,addr=20",), "a: needs addr="),
        (("edu,id=a,addr=1.8",), "a: needs addr="),
        (("edu,id=a,bus=b,addr=1",), "no bus 'b'"),
        (("edu,id=a,addr=1", "edu,id=b,addr=1"), "same address as"),
        (("edu,id=a,addr=1", "edu,id=a,addr=2"), "two devices have one id"),
        # Two bridges that hang on each other.
        (("pci-bridge,id=a,bus=b,addr=1", "pci-bridge,id=b,bus=a,addr=1"), "no bus"),
    ],
)
def test_a_topology_that_cannot_be(devices: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        topology.devices(of(devices))


@pytest.mark.parametrize(
    ("name", "table"),
    [("q35-amd", "IVRS"), ("q35-intel", "DMAR"), ("q35-intel-scalable", "DMAR"), ("q35-plain", "")],
)
def test_the_table_is_that_of_the_machine_s_iommu(name: str, table: str) -> None:
    assert topology.table_of(machine.load_machine(name)) == table
