# SPDX-License-Identifier: GPL-2.0-only
"""The guest's program on a machine of files: when it says BLOCKED, and when it must not."""

from __future__ import annotations

import mmap
import os
import re
import shutil
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from iommuq.firmware import program
from iommuq.system.run import run

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no compiler")

BRIDGE, DEVICE = "0000:00:07.0", "0000:01:01.0"
MEMORY, MASTER = 2, 4
COMMAND, VENDOR, SIZE = 4, 0x11E81234, 0x100000
#: Memory of the machine: a region, other memory, BAR 0 of the device, and ECAM of two buses.
REGION, OTHER, BAR, ECAM, END = 0x100000, 0x200000, 0x300000, 0x400000, 0x600000
LAST = REGION + 0xFFFC
PATTERN = b"\xa5\xa5\xa5\xa5"
#: Bits of an entry of AMD's device table.
V, TV, GV, IR, IW = 1, 2, 1 << 55, 1 << 61, 1 << 62


class Machine:
    """A sysfs of one device behind a bridge, and a DMA engine that writes if it may.

    :ivar reached: addresses that the IOMMU lets through.
    :ivar identification: the first register of the device.
    :ivar at_end: called before a write of the engine ends.
    :ivar last: the number of writes after which the engine is stuck.
    :ivar blocked_in: no write lands that starts while the group has this type.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.reached: set[int] = set()
        self.identification = 0x010000ED
        self.at_end: Callable[[], None] = lambda: None
        self.blocked_in = ""
        self.last = 10_000
        self.folder = root / "sys/devices/pci0000:00" / BRIDGE / DEVICE
        self.folder.mkdir(parents=True)
        self.link = root / "sys/bus/pci/devices" / DEVICE
        self.link.parent.mkdir(parents=True)
        self.link.symlink_to(f"../../../devices/pci0000:00/{BRIDGE}/{DEVICE}")
        (self.link.parent / BRIDGE).symlink_to(f"../../../devices/pci0000:00/{BRIDGE}")
        files = {"vendor": "0x1234", "device": "0x11e8", "class": "0x00ff00"}
        files["resource"] = f"{BAR:#x} {BAR + SIZE - 1:#x} 0x40200"
        for name, text in files.items():
            (self.folder / name).write_text(f"{text}\n")
        self._file("dev/mem", END)
        self._file(str(self.folder.relative_to(root) / "resource0"), SIZE)
        for name in (BRIDGE, DEVICE):
            self._file(self._config(name), 256)
            self.set_command(name, 0x103 | MASTER)
        (root / "proc").mkdir()
        (root / "proc/iomem").write_text("00000000-000fffff : System RAM\n")
        tables = root / "sys/firmware/acpi/tables"
        tables.mkdir(parents=True)
        entry = struct.pack("<QHBB4x", ECAM, 0, 0, 1)
        (tables / "MCFG").write_bytes(b"MCFG" + bytes(40) + entry)

    def _file(self, name: str, size: int) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.truncate(path, size)

    def _config(self, name: str) -> str:
        below = f"/{DEVICE}" if name == DEVICE else ""
        return f"sys/devices/pci0000:00/{BRIDGE}{below}/config"

    def set_command(self, name: str, command: int) -> None:
        """Set a command register, as seen in sysfs and in ECAM."""
        window = ECAM + (0x108000 if name == DEVICE else 7 << 15)
        for path, at in ((self._config(name), 0), ("dev/mem", window)):
            with (self.root / path).open("r+b") as file:
                file.seek(at)
                file.write(struct.pack("<IH", VENDOR, command))

    def command(self, name: str) -> int:
        """Return a command register as sysfs has it."""
        data = (self.root / self._config(name)).read_bytes()
        return int.from_bytes(data[COMMAND : COMMAND + 2], "little")

    def bind(self) -> None:
        """Let a driver have the device."""
        (self.root / "driver").mkdir()
        (self.folder / "driver").symlink_to(self.root / "driver")

    def group(self, kind: str, begin: int, kind_of_region: str = "direct") -> None:
        """Put the device into a group of a type, with one region of 64 KiB."""
        group = self.root / "sys/kernel/iommu_groups/3"
        group.mkdir(parents=True)
        (self.folder / "iommu_group").symlink_to(group)
        (group / "type").write_text(f"{kind}\n")
        text = f"{begin:#018x} {begin + 0xFFFF:#018x} {kind_of_region}\n"
        text += "0x00000000fee00000 0x00000000feefffff msi\n"
        (group / "reserved_regions").write_text(text)

    def _type(self) -> str:
        return (self.root / "sys/kernel/iommu_groups/3/type").read_text()

    def _lands(self, target: int) -> bool:
        both = MEMORY | MASTER
        window = [ECAM + 4 + (7 << 15), ECAM + 4 + 0x108000]
        if self.link.exists():
            commands = [self.command(name) for name in (BRIDGE, DEVICE)]
        else:
            commands = [struct.unpack_from("<H", self._memory, at)[0] for at in window]
        return target in self.reached and all(one & both == both for one in commands)

    def _drive(self, bars: Sequence[tuple[mmap.mmap, int]], stop: threading.Event) -> None:
        while not stop.is_set():
            time.sleep(0.002)
            for bar, at in bars:
                if bar[at + 0x98] & 1 and self.last:
                    self.last -= 1
                    stopped = self.blocked_in and self._type().startswith(self.blocked_in)
                    time.sleep(0.02)
                    (target,) = struct.unpack_from("<Q", bar, at + 0x88)
                    if not stopped and self._lands(target):
                        self._memory[target : target + 4] = bytes(4)
                    self.at_end()
                    bar[at + 0x98] &= ~1

    def do(self, steps: Path, *lines: str) -> list[str]:
        """Run the program with the engine going, and return how each step ended."""
        script = self.root / "script"
        script.write_text("".join("\t".join(line.split()) + "\n" for line in lines))
        stop = threading.Event()
        with (
            (self.root / "dev/mem").open("r+b") as memory,
            (self.folder / "resource0").open("r+b") as resource,
            mmap.mmap(memory.fileno(), END) as self._memory,
            mmap.mmap(resource.fileno(), SIZE) as bar,
        ):
            bars = [(bar, 0), (self._memory, BAR)]
            for one, at in bars:
                struct.pack_into("<I", one, at, self.identification)
            thread = threading.Thread(target=self._drive, args=(bars, stop))
            thread.start()
            try:
                done = run([steps, script, "30"], cwd=self.root, timeout=60, check=False)
            finally:
                stop.set()
                thread.join()
        said = done.output.splitlines()
        assert said[-1] == "end", said
        return [line.split(" ", 2)[2] for line in said if line.startswith("step ")]

    def word(self, address: int) -> bytes:
        """Return four bytes of memory."""
        with (self.root / "dev/mem").open("rb") as file:
            file.seek(address)
            return file.read(4)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the program; its machine is in the folder ``root`` next to it."""
    where = tmp_path_factory.mktemp("oracle")
    code = [path for path in program.sources() if path.suffix == ".c"]
    less_time = ["-DLIMIT_NS=2000000000ULL", "-DTRIES=400"]
    flags = ["-O2", "-D_GNU_SOURCE", f'-DROOT="{where}/root"', *less_time]
    run(["gcc", *flags, "-o", where / "steps", *code], cwd=where, timeout=60)
    return where / "steps"


@pytest.fixture
def machine(built: Path, tmp_path: Path) -> Iterator[Machine]:
    root = built.parent / "root"
    root.symlink_to(tmp_path)
    yield Machine(tmp_path)
    root.unlink()


DMA = f"dma {DEVICE} {OTHER:x}"


def test_an_engine_that_could_write_is_blocked(machine: Machine, built: Path) -> None:
    machine.bind()
    assert machine.do(built, DMA) == [f"BLOCKED {OTHER:#x}"]
    assert machine.word(OTHER) == PATTERN
    machine.reached = {OTHER}
    assert machine.do(built, DMA) == [f"REACHED {OTHER:#x}"]


OFF = [
    (DEVICE, 0x103, "no bus mastering"),
    (DEVICE, 0x105, "no memory decoding"),
    (BRIDGE, 0x103, "no bus mastering"),
    (BRIDGE, 0x004, "no memory decoding"),
    (BRIDGE, 0x000, "no memory decoding and no bus mastering"),
]


@pytest.mark.parametrize(("where", "command", "lacks"), OFF)
def test_what_is_switched_off_is_not_blocked(
    machine: Machine, built: Path, where: str, command: int, lacks: str
) -> None:
    machine.bind()
    machine.reached = {OTHER}
    machine.set_command(where, command)
    off = f"OFF {where}: command {command:#06x}, {lacks}"
    assert machine.do(built, DMA) == [off]
    # It is only read: a driver has the device.
    assert machine.command(where) == command
    # The step for it says so, and switches on what is above, too.
    assert machine.do(built, f"enable {DEVICE}", DMA) == ["ok", f"REACHED {OTHER:#x}"]
    assert machine.command(where) == command | MEMORY | MASTER


@pytest.mark.parametrize(("where", "command"), [one[:2] for one in OFF])
def test_without_a_driver_it_is_switched_on(
    machine: Machine, built: Path, where: str, command: int
) -> None:
    machine.reached = {OTHER}
    machine.set_command(where, command)
    assert machine.do(built, DMA) == [f"REACHED {OTHER:#x}"]
    assert machine.command(where) == command | MEMORY | MASTER


def test_the_machine_is_prepared_with_it_on(machine: Machine, built: Path) -> None:
    machine.set_command(DEVICE, 0x103)
    machine.set_command(BRIDGE, 0x103)
    assert machine.do(built, f"device {DEVICE} 1234:11e8") == ["ok 1234:11e8"]
    assert [machine.command(name) for name in (DEVICE, BRIDGE)] == [0x107, 0x107]
    # A device that is none of this program's keeps its register.
    (machine.folder / "device").write_text("0x11e9\n")
    machine.set_command(DEVICE, 0x103)
    assert machine.do(built, f"device {DEVICE} 1234:11e9") == ["ok 1234:11e9"]
    assert machine.command(DEVICE) == 0x103


@pytest.mark.parametrize(("where", "command", "lacks"), [OFF[0], OFF[2], OFF[3]])
def test_what_the_kernel_has_let_go_of_is_looked_at_in_ecam(
    machine: Machine, built: Path, where: str, command: int, lacks: str
) -> None:
    # Its group goes with it, and a kernel may well stop all that it does.
    machine.group("DMA", REGION)
    fifo, kept = machine.root / "fifo", machine.root / "kept"
    kept.mkdir()
    os.mkfifo(fifo)

    def remove() -> None:
        with fifo.open("wb"):
            machine.set_command(where, command)
            machine.link.unlink()
            # Who has the folder open finds nothing in it either.
            move(machine.folder, kept)

    for wanted in (f"OFF {where}: command {command:#06x}, {lacks}", f"BLOCKED {OTHER:#x}"):
        thread = threading.Thread(target=remove)
        thread.start()
        said = machine.do(built, f"device {DEVICE} -", f"table ../../../..{fifo}", DMA)
        thread.join()
        assert said[2] == wanted
        move(kept, machine.folder)
        machine.link.symlink_to(f"../../../devices/pci0000:00/{BRIDGE}/{DEVICE}")
        command = 0x107


def move(files: Path, to: Path) -> None:
    """Move all files of a folder into another one."""
    for each in list(files.iterdir()):
        each.rename(to / each.name)


@pytest.mark.parametrize(
    ("dte", "meaning"),
    [
        (0, "IDENTITY"),
        (V, "BLOCKED"),
        (V | TV, "BLOCKED"),
        (V | TV | IR, "IDENTITY"),
        (V | TV | IW, "IDENTITY"),
        (V | TV | 4 << 9 | IR | IW, "PAGES"),
        (V | TV | GV | IR | IW, "PAGES"),
    ],
)
def test_an_entry_of_the_device_table(
    machine: Machine, built: Path, dte: int, meaning: str
) -> None:
    """Without page tables an entry permits what its bits IR and IW do, and no more."""
    ivhd = struct.pack("<BBHHHQ", 0x10, 0, 0, 0, 0, OTHER)
    (machine.root / "sys/firmware/acpi/tables/IVRS").write_bytes(bytes(48) + ivhd)
    with (machine.root / "dev/mem").open("r+b") as file:
        # A table of three pages, with the entry of DEVICE.
        for at, value in ((OTHER, REGION | 2), (REGION + 0x108 * 32, dte)):
            file.seek(at)
            file.write(struct.pack("<Q", value))
    (said,) = machine.do(built, f"entry {DEVICE} own")
    assert said.split()[0] == meaning


def test_a_device_that_came_back_by_itself(machine: Machine, built: Path) -> None:
    """Its folder is another one than that which is open."""
    fifo, old = machine.root / "fifo", machine.root / "old"
    os.mkfifo(fifo)

    def change() -> None:
        with fifo.open("wb"):
            machine.folder.rename(old)
            machine.folder.mkdir()
            move(old, machine.folder)

    thread = threading.Thread(target=change)
    thread.start()
    steps = (f"device {DEVICE} -", f"table ../../../..{fifo}", f"present {DEVICE}")
    said = machine.do(built, *steps)
    thread.join()
    assert said[2] == "yes"


def test_an_address_that_two_devices_have_tells_nothing(machine: Machine, built: Path) -> None:
    """The kernel gives the address of a device that it has removed to another one."""
    other = "0000:01:02.0"
    shutil.copytree(machine.folder, machine.folder.parent / other, symlinks=True)
    (machine.link.parent / other).symlink_to(f"../../../devices/pci0000:00/{BRIDGE}/{other}")
    said = machine.do(built, f"device {DEVICE} -", DMA, f"device {other} -", DMA)
    assert [line.split()[0] for line in said] == ["ok", "BLOCKED", "ok", "EADDRINUSE"]


def test_a_region_shows_that_the_engine_works(machine: Machine, built: Path) -> None:
    machine.bind()
    machine.group("DMA", REGION)
    machine.reached = {LAST}
    known = f"while its region at {LAST:#x} is reached"
    assert machine.do(built, DMA) == [f"BLOCKED {OTHER:#x}, {known}"]
    # What was there is put back.
    assert machine.word(LAST) == bytes(4)
    # It reaches nothing, so that it does not reach this either tells nothing.
    machine.reached = set()
    said = f"{OTHER:#x} is not reached, and its region at {LAST:#x} is not either, before it"
    assert machine.do(built, DMA) == [f"UNSEEN {said}"]
    assert machine.word(LAST) == bytes(4)
    # Whether the region is reached is a check of its own.
    assert machine.do(built, f"dma {DEVICE} {REGION:x}") == [f"BLOCKED {REGION:#x}"]
    # What is reached, is.
    machine.reached = {OTHER}
    assert machine.do(built, DMA) == [f"REACHED {OTHER:#x}"]


@pytest.mark.parametrize(
    ("kind", "begin", "of_region"),
    [("identity", REGION, "direct"), ("DMA", 0, "direct"), ("DMA", REGION, "reserved")],
)
def test_what_need_not_be_reached_shows_nothing(
    machine: Machine, built: Path, kind: str, begin: int, of_region: str
) -> None:
    # In identity each write is a finding, the kernel's own memory is not written to.
    machine.bind()
    machine.group(kind, begin, of_region)
    assert machine.do(built, DMA) == [f"BLOCKED {OTHER:#x}"]


def test_another_device_is_no_oracle(machine: Machine, built: Path) -> None:
    machine.bind()
    machine.identification = 0x12345678
    assert machine.do(built, DMA) == ["NOEDU its first register is another one's"]
    # So it looks without memory decoding, too.
    machine.set_command(BRIDGE, 0x104)
    assert machine.do(built, DMA) == [f"OFF {BRIDGE}: command 0x0104, no memory decoding"]


def test_an_engine_that_goes_away_is_not_blocked(machine: Machine, built: Path) -> None:
    machine.bind()
    machine.at_end = lambda: machine.set_command(DEVICE, 0x103)
    assert machine.do(built, DMA) == [f"OFF {DEVICE}: command 0x0103, no bus mastering"]

    def vanish() -> None:
        with (machine.folder / "resource0").open("r+b") as file:
            file.write(b"\xff" * 4)

    machine.set_command(DEVICE, 0x107)
    machine.at_end = vanish
    assert machine.do(built, DMA) == [f"OFF the first register of {DEVICE} holds 0xffffffff"]


@pytest.mark.parametrize("last", [0, 1, 2])
def test_an_engine_that_does_not_end_is_stuck(machine: Machine, built: Path, last: int) -> None:
    # It may be the region's write that does not end, before the one that counts or after it.
    machine.bind()
    machine.group("DMA", REGION)
    machine.reached = {LAST}
    machine.last = last
    assert machine.do(built, DMA) == ["STUCK the DMA engine does not end"]


def test_an_engine_that_comes_late_is_not_blocked(machine: Machine, built: Path) -> None:
    machine.bind()
    machine.reached = {OTHER}
    machine.set_command(DEVICE, 0x103)
    machine.at_end = lambda: machine.set_command(DEVICE, 0x107)
    assert machine.do(built, DMA) == [f"OFF {DEVICE}: command 0x0103, no bus mastering"]
    assert machine.do(built, DMA) == [f"REACHED {OTHER:#x}"]


def test_a_region_must_be_reached_to_the_end(machine: Machine, built: Path) -> None:
    machine.bind()
    machine.group("DMA", REGION)
    machine.reached = {LAST}
    machine.at_end = machine.reached.clear
    said = f"{OTHER:#x} is not reached, and its region at {LAST:#x} is not either, after it"
    assert machine.do(built, DMA) == [f"UNSEEN {said}"]


SWITCH = f"switch {DEVICE} identity {OTHER:x} type"


def test_writes_outside_of_any_switch_keep_nothing(machine: Machine, built: Path) -> None:
    # A switch is a write to a file here, and takes far less than it takes to hit it.
    machine.group("DMA", OTHER)
    machine.reached = {OTHER}
    [said] = machine.do(built, SWITCH)
    found = re.fullmatch(
        r"UNSEEN 0 of (\d+) writes lost, (\d+) came .*, which are too few; .*", said
    )
    assert found, said
    assert int(found[1]) >= 5
    assert int(found[2]) < 10


def test_a_switch_needs_a_write_that_lands(machine: Machine, built: Path) -> None:
    machine.bind()
    machine.group("DMA", OTHER)
    machine.reached = set()
    assert machine.do(built, SWITCH) == [f"BLOCKED before the first switch: {OTHER:#x}"]
    machine.reached = {OTHER}
    machine.set_command(BRIDGE, 0x103)
    off = f"{BRIDGE}: command 0x0103, no bus mastering"
    assert machine.do(built, SWITCH) == [f"OFF before the first switch: {off}"]


def test_a_write_is_lost_by_an_engine_that_could_write(machine: Machine, built: Path) -> None:
    machine.bind()
    machine.group("DMA", OTHER)
    machine.reached = {OTHER}
    writes = iter(range(1000))

    def lose() -> None:
        if next(writes) == 10:
            machine.reached = set()

    machine.at_end = lose
    [said] = machine.do(built, SWITCH)
    assert said.startswith("lost 3 of ")

    def die() -> None:
        if next(writes) == 510:
            machine.set_command(DEVICE, 0x103)

    machine.reached = {OTHER}
    machine.at_end = die
    writes = iter(range(500, 1000))
    assert machine.do(built, SWITCH) == [f"OFF {DEVICE}: command 0x0103, no bus mastering"]


def test_after_the_last_switch_a_write_must_land(machine: Machine, built: Path) -> None:
    machine.group("DMA", OTHER)
    machine.reached = {OTHER}
    machine.blocked_in = "identity"
    assert machine.do(built, SWITCH) == [f"BLOCKED after the last switch: {OTHER:#x}"]
