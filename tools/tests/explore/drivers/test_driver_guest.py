# SPDX-License-Identifier: GPL-2.0-only
"""A guest of a driver over its two FIFOs, on a script in place of QEMU.

How it ends is always a `GuestDied`, and nothing of it is left.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fakedriver import WARNING
from iommuq.explore.drivers import guest as guests
from iommuq.explore.drivers.guest import DriverGuest
from iommuq.explore.drivers.player import DriverPlayer
from iommuq.explore.drivers.rules import chosen
from iommuq.explore.drivers.steps import VFIO, Step
from iommuq.explore.drivers.world import Seen, World
from iommuq.explore.guest import GuestDied
from iommuq.firmware import program
from iommuq.firmware.scenario import OTHER
from iommuq.guests import qemu
from iommuq.guests.boot import GuestLost
from iommuq.system.errors import InfraError

WORLD = World.open("q35-intel", "mixed")
LINES = len(WORLD.devices) * 2


class Port:
    """The guest's side of the two FIFOs."""

    def __init__(self, port: Path, over: Callable[[], bool], say: Callable[[str], None]) -> None:
        self.over, self.say = over, say
        self.lines: list[str] = []
        self.states = ["5,DMA,-,0"] * len(WORLD.devices)
        self._watched = 0
        self._in = os.open(f"{port}.in", os.O_RDONLY | os.O_NONBLOCK)
        self._out = os.open(f"{port}.out", os.O_WRONLY | os.O_NONBLOCK)
        self._rest = b""

    def close(self) -> None:
        """Close both."""
        os.close(self._in)
        os.close(self._out)

    def read(self) -> str | None:
        """Return the next line; None: the guest is to end."""
        while b"\n" not in self._rest:
            if self.over():
                return None
            try:
                self._rest += os.read(self._in, 4096)
            except BlockingIOError:
                time.sleep(0.002)
        line, _, self._rest = self._rest.partition(b"\n")
        self.lines.append(line.decode())
        return self.lines[-1]

    def write(self, text: str) -> None:
        """Write; the guest is to end if that takes too long."""
        data = text.encode()
        while data and not self.over():
            try:
                data = data[os.write(self._out, data) :]
            except BlockingIOError:
                time.sleep(0.002)

    def answer(self, word: str = "ok") -> None:
        """Answer the last line as the program does."""
        number = len(self.lines) - 1
        self._watched += self.lines[-1].startswith("watch")
        states = "".join(f" {each}" for each in self.states[: self._watched])
        self.write(f"step {number} {word}\nnow {number}{states}\n")

    def serve(self, lines: int = -1) -> bool:
        """Greet, and answer some lines, or all; whether the guest goes on."""
        self.write("steps 1\n")
        while lines:
            if self.read() is None:
                return False
            self.answer()
            lines -= 1
        return True

    def wait(self) -> None:
        """Do nothing until the guest is ended."""
        while not self.over():
            time.sleep(0.002)


def answers(port: Port) -> None:
    """Answer each line."""
    port.serve()


class Machine:
    """What replaces QEMU: boots are programs that get a `Port`.

    :ivar ports: one for each boot.
    """

    def __init__(self) -> None:
        self.program: Callable[[Port], None] = answers
        self.ports: list[Port] = []
        self.seen: dict[str, Any] = {}

    def boot(self, machine: Any, image: Path, archive: Any, log: Path, **more: Any) -> None:
        """Run the program, as `iommuq.guests.boot.boot` runs QEMU."""
        self.seen = {"machine": machine, "image": image, "archive": archive, "log": log, **more}
        transcript: Any = None
        folder = Path(tempfile.mkdtemp())
        self.seen["port"] = more["port"](folder)
        port = Port(
            self.seen["port"], lambda: bool(more["hopeless"](transcript)), more["on_console"]
        )
        self.ports.append(port)
        try:
            self.program(port)
        finally:
            port.close()
            shutil.rmtree(folder)
        if port.over():
            raise GuestLost("guest lost: it was stopped", hint="", tail="", report=None)  # type: ignore[arg-type]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    """Return what replaces QEMU, with short limits; nothing may be left at the end."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    found = Machine()
    monkeypatch.setattr(guests, "boot", found.boot)
    monkeypatch.setattr(guests, "own_table", lambda _machine, _ask: b"table")
    monkeypatch.setattr(program, "build", lambda: Path("/steps"))
    monkeypatch.setattr(guests, "build", lambda *_args, **more: more)
    monkeypatch.setattr(
        guests, "with_regions", lambda table, _machine, regions: (table, len(regions))
    )
    monkeypatch.setattr(guests, "ANSWER_LIMIT", 0.4)
    before = set(threading.enumerate())
    fds = len(list(Path("/proc/self/fd").iterdir()))
    yield found
    assert set(threading.enumerate()) == before
    assert list((tmp_path / "tmp").iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == fds


@contextmanager
def opened(limit: float = 5.0) -> Iterator[DriverGuest]:
    """Open a guest; it must not take long."""
    begin = time.monotonic()
    kernel: Any = SimpleNamespace(
        built=True, check=lambda _m: None, image=Path("/image"), modules=()
    )
    world = replace(WORLD, machine=replace(WORLD.machine, boot_limit=0.5))
    with DriverGuest(kernel, world, Path("/log")) as guest:
        yield guest
    assert time.monotonic() - begin < limit


def test_a_guest_that_answers(machine: Machine) -> None:
    """It is told of each device, and answers with the states of all."""
    with opened() as guest:
        assert guest.ready()
        found = guest.ask("listen")
        assert (found.word, found.devices["ats"]) == ("ok", Seen(True, 5, "DMA", "-"))
        assert not guest.ready()
        port = machine.ports[0]
        assert port.lines[:2] == ["device\t0000:00:05.0\t-", "watch\t0000:00:05.0"]
        assert len(port.lines) == LINES + 1
        assert guest.boots == 1
        assert guest.console() == []


def test_what_is_booted(machine: Machine) -> None:
    """The program serves the port, and the regions and OTHER are reserved and claimed."""
    with opened() as guest:
        guest.ready()
        seen = machine.seen
    assert seen["archive"]["before"] == (b"table", 3)
    assert (seen["image"], seen["log"]) == (Path("/image"), Path("/log"))
    reserved = [each for each in seen["machine"].arguments if each.startswith("memmap=")]
    assert reserved == [
        f"memmap=64K${each:#x}" for each in (OTHER, 0x3E000000, 0x3E100000, 0x3E200000)
    ]
    # The qemu command has the other ends.
    argv = qemu._port(seen["port"])
    assert argv[1] == f"pipe,id=steps,path={seen['port']}"


@pytest.mark.parametrize("how", ["renew", "ended", "dead", "talks"])
def test_a_new_guest(machine: Machine, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is started on request, and after the one before has ended or said too much."""
    with opened() as guest:
        guest.ready()
        if how == "renew":
            guest.renew()
        elif how == "ended":
            guest._end()
        elif how == "dead":
            machine.ports[0].states = ["?"]
            with pytest.raises(GuestDied):
                guest.ask("listen")
        else:
            monkeypatch.setattr(guests, "CONSOLE_LINES", 2)
            for _ in range(3):
                machine.ports[0].say("x")
        assert guest.ready()
        assert guest.boots == 2
        assert guest.ask("listen").word == "ok"
        assert guest.console() == []


# How a guest is lost.


def greets(text: str) -> Callable[[Port], None]:
    """Return a program with another greeting."""

    def program(port: Port) -> None:
        port.write(text)
        port.wait()

    return program


def ends(_port: Port) -> None:
    """End at once."""


def lost(_port: Port) -> None:
    """End as a guest does whose kernel has panicked."""
    raise GuestLost("guest lost: it panicked", hint="x", tail="", report=None)  # type: ignore[arg-type]


def cannot(_port: Port) -> None:
    """Not start."""
    raise InfraError("QEMU is too old", hint="x")


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (ends, "its program has ended"),
        (lost, "^guest lost: it panicked \\(full log: /log\\)$"),
        (cannot, "QEMU is too old"),
        (greets(""), "no answer in time"),
        (greets("steps"), "no answer in time"),
        (greets("steps 2\n"), "its greeting is 'steps 2'"),
        (greets("\n"), "its greeting is ''"),
        (greets("\x1b[31m" * 30 + "\n"), "its greeting is "),
        (greets("é\xff\n"), "its greeting is "),
        (greets("x" * 200_000), "its answer has no end"),
        (greets("steps 1\n"), "no answer in time"),
    ],
)
def test_a_guest_that_does_not_boot(
    machine: Machine, program: Callable[[Port], None], why: str
) -> None:
    """It is lost at once or at the limit, with a line that can be printed."""
    machine.program = program
    with opened() as guest:
        with pytest.raises(GuestDied, match=why) as caught:
            guest.ready()
        assert str(caught.value).isprintable()
        assert caught.value.hint == "full log: /log"
        # The next one is better.
        machine.program = answers
        assert guest.ready()
        assert guest.ask("listen").word == "ok"


def says(text: str, *, ends_then: bool = False) -> Callable[[Port], None]:
    """Return a program that says something in place of the answer to a sequence's first line."""

    def program(port: Port) -> None:
        if not port.serve(LINES) or port.read() is None:
            return
        port.write(text.replace("N", str(LINES)))
        if not ends_then:
            port.wait()

    return program


def floods(port: Port) -> None:
    """Write good lines without end."""
    if port.serve(LINES) and port.read() is not None:
        while not port.over():
            port.write("round: 1\n" * 1000)


NOW = "now N" + " 5,DMA,-,0" * len(WORLD.devices)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (says(""), "no answer in time"),
        (says("step N ok\n"), "no answer in time"),
        (says(f"step N ok\n{NOW}"), "no answer in time"),
        (says(f"{NOW}\n"), "malformed answer: now "),
        (says("now \n"), "malformed answer: now"),
        (says(f"step 1 ok\n{NOW}\n"), "malformed answer: step 1 ok"),
        (says(f"step N \x07\n{NOW}\n"), "malformed answer: "),
        (says(f"step N ok\n{NOW} 5,DMA,-,0\n"), "malformed answer: now"),
        (says(f"\xff\xfe\n{NOW}\n"), "malformed answer"),
        (says("x" * 300_000), "its answer has no end"),
        (floods, "its answer has no end"),
        (says("", ends_then=True), "its program has ended"),
        (says("step N ok\n", ends_then=True), "its program has ended"),
        (says(f"step N ok\n{NOW[:-3]}", ends_then=True), "its program has ended"),
    ],
)
def test_an_answer_that_is_none(
    machine: Machine, program: Callable[[Port], None], why: str
) -> None:
    """Garbage, silence, an end in the middle and no end: the guest is lost, and not waited for."""
    machine.program = program
    with opened() as guest:
        guest.ready()
        with pytest.raises(GuestDied, match=why) as caught:
            guest.ask("listen")
        assert caught.value.silent == (why == "no answer in time")
        # It stays lost until it is started again.
        with pytest.raises(GuestDied):
            guest.ask("listen")
        machine.program = answers
        assert guest.ready()
        assert guest.ask("listen").word == "ok"


def test_an_answer_before_the_end_is_read(machine: Machine) -> None:
    """What a guest has said is not lost with it."""
    machine.program = says(f"step N ok\n{NOW}\n", ends_then=True)
    with opened() as guest:
        guest.ready()
        try:
            assert guest.ask("listen").word == "ok"
        except GuestDied:
            pytest.fail("the answer was there")
        with pytest.raises(GuestDied, match="its program has ended"):
            guest.ask("listen")


def test_an_interrupt_leaves_nothing(machine: Machine) -> None:
    """Ctrl-C while a guest is asked ends it; the fixture looks what is left."""
    machine.program = says("")

    def interrupted() -> None:
        with opened() as guest:
            guest.ready()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


# Splats.


def prints(*lines: str, pause: float = 0.0) -> Callable[[Port], None]:
    """Return a program that prints on the console at its first line after boot, and later."""

    def program(port: Port) -> None:
        if not port.serve(LINES) or port.read() is None:
            return
        port.say(f"[    1.000000] {lines[0]}")
        port.answer()
        for each in lines[1:]:
            time.sleep(pause)
            port.say(f"[    1.000000] {each}")
        while port.read() is not None:
            port.answer()

    return program


def test_a_splat_that_comes_late_has_its_name(machine: Machine) -> None:
    """Its text takes another way than the answer, and is waited for."""
    machine.program = prints(*(each.format("iommu_x") for each in WARNING), pause=0.12)
    with opened() as guest:
        guest.ready()
        assert guest.splats(0) == []
        guest.ask("listen")
        (found,) = guest.splats(0)
        assert "iommu_x" in found.title
        # A WARN is no reason for a new guest.
        assert not guest.ready()
        assert guest.splats(0) == []


def test_after_a_splat_that_is_not_harmless(machine: Machine) -> None:
    """The kernel is not sound any more."""
    machine.program = prints("BUG: KASAN: slab-use-after-free in iommu_x+0x1/0x2")
    with opened() as guest:
        guest.ready()
        guest.ask("listen")
        assert len(guest.splats(0)) == 1
        assert guest.ready()
        assert guest.boots == 2


def test_a_lost_guest_has_its_console(machine: Machine) -> None:
    """What it printed since the sequence began is what a crash is named after."""

    def program(port: Port) -> None:
        if port.serve(LINES + 1) and port.read() is not None:
            port.say("BUG: kernel NULL pointer dereference, address: 028")
            port.say("RIP: 0010:iommu_y+0x1/0x2")

    machine.program = program
    with opened() as guest:
        player = DriverPlayer(guest, chosen())
        player.begin()
        player.send(Step("bind", ("control", VFIO)))
        (find,) = player.check()
        assert find.signature == "q35-intel: splats.printed: BUG in iommu_y"
        assert player.crashed
