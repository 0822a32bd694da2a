# SPDX-License-Identifier: GPL-2.0-only
"""What a person is told of a table, and of the classes of the machine's devices."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import rawtables
from iommuq.firmware.tables import anytable, classes, dmar, iort, ivhd, ivrs
from iommuq.firmware.tables.dmar import Andd, Dmar, Rmrr, Scope
from iommuq.firmware.tables.explain import describe, explain
from iommuq.firmware.tables.ivhd import Select
from iommuq.firmware.tables.ivrs import Ivhd, Ivrs
from iommuq.system.errors import UserError

TOOLS = Path(__file__).parents[2]
LSPCI = """\
00:02.0 0300: 8086:9bc8 (rev 03)
00:05.0 00ff: 1234:11e8 (rev 10)
0000:00:14.0 0C03: 8086:a3af
00:1f.0 ISA bridge [0601]: Intel Corporation H470 [8086:0684]
10000:e0:06.0 0604: 8086:09ab
"""


def told(data: bytes, kinds: dict[str, int] | None = None) -> list[str]:
    return describe(anytable.parse(data), kinds)


def about(lines: list[str], word: str) -> str:
    """Return the one line about something."""
    [line] = [line for line in lines if word in line]
    return line.strip()


def after(lines: list[str], word: str) -> list[str]:
    """Return the lines that are indented further than the one about something."""
    [start] = [index for index, line in enumerate(lines) if word in line]
    depth = len(lines[start]) - len(lines[start].lstrip())
    below = []
    for line in lines[start + 1 :]:
        if len(line) - len(line.lstrip()) <= depth:
            break
        below.append(line.strip())
    return below


EITHER = "direct-relaxable if it is a USB controller or a display, else direct, refused"


def test_vtd_without_classes() -> None:
    lines = told(rawtables.REAL_DMAR)
    assert after(lines, "RMRR 0x3e000000-0x3e00ffff (64 KiB), segment 0000") == [
        f"00:05.0: {EITHER}"
    ]
    assert after(lines, "RMRR 0x7d100000-0x7d1fffff (1 MiB), segment 0001") == [
        f"00.1 behind bridge 00:1c.0 (0001:00:1c.0/00.1): {EITHER}",
        f"bridge 00:1d.0 (0001:00:1d.0) and every device below it; each: {EITHER}",
    ]
    assert after(lines, "registers at 0xfed91000") == ["ACPI device \\_SB.PCI0.I2C0 as 00:15.0"]
    assert lines[-1].startswith("direct-relaxable  mapped")


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (0x0C03, "USB controller: direct-relaxable, not refused"),
        (0x0300, "display: direct-relaxable, not refused"),
        (0x0380, "display: direct-relaxable, not refused"),
        (0x0C05, "serial bus controller: direct, refused to VFIO and iommufd"),
        (0x0106, "mass storage: direct, refused to VFIO and iommufd"),
        (0x00FF, "class 00ff: direct, refused to VFIO and iommufd"),
    ],
)
def test_vtd_with_classes(code: int, verdict: str) -> None:
    known = {"0000:00:05.0": code, "0001:00:1c.0/00.1": code}
    lines = told(rawtables.REAL_DMAR, known)
    assert after(lines, "RMRR 0x3e000000") == [f"00:05.0, {verdict}"]
    below, bridge = after(lines, "RMRR 0x7d100000")
    assert below == f"00.1 behind bridge 00:1c.0 (0001:00:1c.0/00.1), {verdict}"
    assert bridge.endswith(EITHER)
    missing = told(rawtables.REAL_DMAR, {"0000:00:06.0": code})
    assert about(missing, "00:05.0, ") == (f"00:05.0, not among the given devices: {EITHER}")


def test_vtd_regions_that_linux_does_not_read() -> None:
    scopes = (
        Scope(dmar.NAMESPACE, 0, ((0x15, 0),), number=1),
        Scope(dmar.IOAPIC, 0, ((0x1E, 7),), number=2),
        Scope(9, 0, ((1, 0),)),
    )
    table = Dmar((Rmrr(0x1000, 0x1FFF, scopes), Andd(1, b"\x1b[2J\\_SB\0")))
    lines = describe(table)
    assert after(lines, "RMRR 0x1000-0x1fff (4 KiB), segment") == [
        "ACPI device \\x1b[2J\\_SB as 00:15.0: Linux ignores it here",
        "I/O APIC 2 as 00:1e.7: Linux ignores it here",
        "unknown kind 9 0 as 00:01.0: Linux ignores it here",
    ]
    assert "  byte 0x30: RMRR 0x1000-0x1fff (4 KiB) is for no PCI device" in lines
    none = describe(Dmar((Rmrr(0x1000, 0x1FFF),)))
    assert after(none, "RMRR 0x1000-0x1fff (4 KiB), segment") == ["for no device"]


def test_table_without_regions() -> None:
    for name in ("qemu-dmar", "qemu-ivrs", "qemu-iort"):
        lines = told(rawtables.ALL[name])
        assert lines[lines.index("Regions:") + 1] == (
            "  none: no device is refused because of this table"
        )
        # Nothing is direct, so the legend is left out.
        assert not any("direct" in line for line in lines)


def test_amd() -> None:
    lines = told(rawtables.REAL_IVRS)
    assert after(lines, "IVHD 10h") == ["00:00.0 to ff:1f.7", "I/O APIC 0 as 00:14.0"]
    assert about(lines, "IVHD 10h").endswith("; ignored: Linux uses 40h")
    assert after(lines, "IVHD 40h") == [
        "every device",
        "00:01.1",
        "(seen as 00:14.4) 05:00.0",
        "(seen as 00:14.5) 06:00.0 to 06:1f.7",
        "(no ATS) 00:01.0",
        "HPET 1 as 00:14.0",
        "ACPI device AMDI0020:\\_SB. as 00:14.5",
        "(no ATS) 00:02.0 to 00:03.7",
    ]
    assert about(lines, "IVMD 21h").endswith("unity map, read and write")
    assert after(lines, "IVMD 21h") == ["0000:00:05.0: direct, refused to VFIO and iommufd"]
    assert about(lines, "IVMD 22h").endswith("exclusion range (not translated)")
    assert after(lines, "IVMD 22h") == [
        "every device from 0000:00:01.0 to 00:1f.7: direct, read and write (Linux makes it "
        "a unity map), refused to VFIO and iommufd"
    ]
    assert about(lines, "IVMD 20h").endswith("unity map, read")
    assert after(lines, "IVMD 20h") == [
        "every device of segment 0001: direct, refused to VFIO and iommufd"
    ]


def test_amd_class_does_not_matter() -> None:
    kinds = {
        "0000:00:00.7": 0x0600,
        "0000:00:01.0": 0x0C03,
        "0000:00:1f.7": 0x0300,
        "0000:01:00.0": 0x0300,
        "0001:00:02.0": 0x0106,
        "0000:00:01.0/00.0": 0x0106,
    }
    lines = told(rawtables.REAL_IVRS, kinds)
    assert after(lines, "IVMD 22h")[1:] == ["0000:00:01.0, USB controller", "0000:00:1f.7, display"]
    assert after(lines, "IVMD 20h")[1:] == ["0001:00:02.0, mass storage"]
    assert after(lines, "IVMD 21h")[1:] == ["no such device in this machine"]
    crowd = {f"0001:{bus:02x}:00.0": 0x0200 for bus in range(70)}
    assert after(told(rawtables.REAL_IVRS, crowd), "IVMD 20h")[-1] == "and 6 more"


def test_amd_odd() -> None:
    unit = Ivhd(
        0x10,
        2,
        0,
        (
            Select(ivhd.START, 8),
            Select(ivhd.SELECT, 16),
            Select(ivhd.END, 24),
            ivhd.Other(5, bytes(3)),
            ivhd.AcpiDevice(32, b"AMDI0020", uid_kind=ivhd.UID_INTEGER, uid=b"\7"),
            Select(ivhd.START, 40),
        ),
    )
    table = Ivrs((unit,)).with_ivmd(0x1000, 0x1000, devid=8, flags=0)
    lines = describe(table)
    assert after(lines, "IVHD 10h") == [
        "00:01.0, a range without an end",
        "00:02.0",
        "a range without a start to 00:03.0",
        "device entry of unknown type 0x05",
        "ACPI device AMDI0020:7 as 00:04.0",
        "00:05.0, a range without an end",
    ]
    assert about(lines, "IVMD 21h").endswith("neither unity map nor exclusion range, no access")
    assert after(lines, "IVMD 21h") == ["0000:00:01.0: Linux ignores it"]
    assert "  none: Linux cannot use this table" in describe(Ivrs(()))


def test_arm() -> None:
    lines = told(rawtables.REAL_IORT)
    assert after(lines, "RMR node at byte 0xd8: direct, refused to VFIO and iommufd") == [
        "0x80000000-0x8000ffff (64 KiB)",
        "0x80020000-0x8003ffff (128 KiB)",
        "IDs of SMMUv3 with registers at 0x9050000 at byte 0x48: 0x10",
        "IDs of SMMUv3 with registers at 0x9050000 at byte 0x48: 0x18",
        "for PCI 0000:00:02.0",
        "for PCI 0000:00:03.0",
    ]
    relaxable = after(lines, "RMR node at byte 0x184: direct-relaxable, not refused")
    assert relaxable[-1] == "for named component \\_SB.DMA0"
    assert any("_DSM function 5" in line for line in lines)
    old = iort.parse(rawtables.REAL_IORT)
    old = replace(old, header=replace(old.header, revision=4))
    assert about(describe(old), "RMR node at byte 0xd8").endswith("revision is less than 5")


def test_arm_devices() -> None:
    parsed = iort.parse(rawtables.REAL_IORT)
    memory = [iort.MemoryRange(0x10000, 0x10000)]
    named = parsed.nodes[4]
    # The count of a single mapping says nothing.
    single = iort.IdMapping(0, 5, 0x10000, 0x48, flags=1)
    named = replace(named, body=named.body[:-20] + single.encode())

    def devices(*mappings: iort.IdMapping) -> list[str]:
        node = rawtables.rmr_node(memory, mappings)
        lines = describe(replace(parsed, nodes=(*parsed.nodes[:3], node, named)))
        return [line for line in after(lines, "RMR node at") if line.startswith("for ")]

    assert devices(iort.IdMapping(0, 15, 8, 0x48)) == ["for PCI 0000:00:01.0 to 00:02.7"]
    assert devices(iort.IdMapping(0, 0xFFFFFFFE, 0, 0x48)) == [
        "for PCI 0000:00:00.0 to ff:1f.7",
        "for named component \\_SB.DMA0",
    ]
    none = ["for no device of the table"]
    assert devices(iort.IdMapping(0, 0, 0x10001, 0x48)) == none
    assert devices(iort.IdMapping(0, 0, 0, 0x30)) == none
    assert devices(*[iort.IdMapping(0, 0, 1, 0x48)] * 70)[-1] == "for 6 more"
    # A root complex whose requester IDs do not come out as they are.
    root = replace(
        parsed.nodes[2],
        body=parsed.nodes[2].body[:-20] + iort.IdMapping(8, 255, 256, 0x48).encode(),
    )
    node = rawtables.rmr_node(memory, [iort.IdMapping(0, 0, 264, 0x48)])
    lines = describe(replace(parsed, nodes=(*parsed.nodes[:2], root, node)))
    assert after(lines, "RMR node at")[-1] == "for PCI 0000:00:02.0"


# Classes.


def test_classes_of_lspci(tmp_path: Path) -> None:
    (tmp_path / "lspci").write_text(LSPCI)
    assert classes.read(tmp_path / "lspci") == {
        "0000:00:02.0": 0x0300,
        "0000:00:05.0": 0x00FF,
        "0000:00:14.0": 0x0C03,
        "0000:00:1f.0": 0x0601,
        "10000:e0:06.0": 0x0604,
    }


def test_classes_of_lspci_in_full(tmp_path: Path) -> None:
    (tmp_path / "lspci").write_text("00:14.0 0c03: 8086:a3af (prog-if 30 [XHCI])\n\tFlags: x\n\n")
    assert classes.read(tmp_path / "lspci") == {"0000:00:14.0": 0x0C03}


def test_classes_of_sysfs(tmp_path: Path) -> None:
    root = tmp_path / "devices/pci0000:00"
    places = {
        root / "0000:00:02.0": 0x030000,
        root / "0000:00:1c.0": 0x060400,
        root / "0000:00:1c.0/0000:01:00.0": 0x060400,
        root / "0000:00:1c.0/0000:01:00.0/0000:02:01.3": 0x0C0330,
    }
    bus = tmp_path / "bus/pci/devices"
    bus.mkdir(parents=True)
    for folder, code in places.items():
        folder.mkdir(parents=True)
        (folder / "class").write_text(f"0x{code:06x}\n")
        (bus / folder.name).symlink_to(folder)
    (bus / "README").touch()
    assert classes.read(bus) == {
        "0000:00:02.0": 0x0300,
        "0000:00:1c.0": 0x0604,
        "0000:01:00.0": 0x0604,
        "0000:00:1c.0/00.0": 0x0604,
        "0000:02:01.3": 0x0C03,
        "0000:00:1c.0/00.0/01.3": 0x0C03,
    }


def test_classes_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "words").write_text("00:02.0 0300: 8086:9bc8\nlspci: \x1bnot found\n")
    (tmp_path / "names").write_text("00:02.0 VGA compatible controller: Intel\n")
    (tmp_path / "big").write_bytes(bytes((16 << 20) + 1))
    (tmp_path / "none").mkdir()
    (tmp_path / "bad/0000:00:02.0").mkdir(parents=True)
    (tmp_path / "bad/0000:00:02.0/class").write_text("VGA")
    (tmp_path / "bare/0000:00:02.0").mkdir(parents=True)
    reasons = {
        "pipe": "not a regular file",
        "empty": "no devices",
        "words": r"line 2 is not one of `lspci -n`: 'lspci: \\x1bnot found'",
        "names": "line 1 is not one",
        "big": "more than 16 MiB",
        "none": "no devices",
        "bad": "0000:00:02.0/class is no class: 'VGA'",
        "bare": "No such file",
        "missing": "No such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(UserError, match=reason) as caught:
            classes.read(tmp_path / name)
        assert str(tmp_path / name) in caught.value.what
        assert "lspci" in caught.value.hint


# As a command.


def command(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "iommuq", "firmware", "table", *argv),
        env=os.environ | {"PYTHONPATH": str(TOOLS)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_command(tmp_path: Path) -> None:
    (tmp_path / "DMAR").write_bytes(rawtables.REAL_DMAR)
    (tmp_path / "lspci").write_text(LSPCI)
    done = command(tmp_path / "DMAR", "--classes", tmp_path / "lspci")
    assert (done.returncode, done.stderr) == (0, "")
    expected = explain(tmp_path / "DMAR", classes.read(tmp_path / "lspci"))
    assert done.stdout.splitlines() == expected
    assert "    00:05.0, class 00ff: direct, refused to VFIO and iommufd" in expected


def test_command_refuses(tmp_path: Path) -> None:
    (tmp_path / "DMAR").write_bytes(rawtables.REAL_DMAR[:-1] + b"!")
    done = command(tmp_path / "DMAR")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"iommuq: {tmp_path}/DMAR: byte 0x9: wrong checksum: the sum of all bytes is 0x63, not 0\n"
        "  (dump the table again, as root: cat /sys/firmware/acpi/tables/NAME >FILE)\n"
    )
    assert command(tmp_path / "none").returncode == 2
    assert command(tmp_path).returncode == 2
    assert command().returncode == 2


def test_hostile_names_do_not_reach_the_terminal(tmp_path: Path) -> None:
    table = ivrs.parse(rawtables.QEMU_IVRS)
    header = replace(table.header, oem_id=b"\x1b]0;x\7")
    (tmp_path / "x\x1b[2J").write_bytes(replace(table, header=header).encode())
    assert all(line.isprintable() for line in explain(tmp_path / "x\x1b[2J"))
    (tmp_path / "x\x1b[2J").write_bytes(b"\x1b[2J")
    with pytest.raises(UserError) as caught:
        explain(tmp_path / "x\x1b[2J")
    assert caught.value.what.isprintable()
