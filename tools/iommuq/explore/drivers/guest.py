# SPDX-License-Identifier: GPL-2.0-only
"""A machine of QEMU that carries steps out: booted once, and again after it died."""

from __future__ import annotations

import contextlib
import os
import re
import select
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from iommuq.explore.drivers.world import Answer, Seen, World, answer
from iommuq.explore.guest import CONSOLE_LINES, HARMLESS, GuestDied
from iommuq.firmware import program
from iommuq.firmware.kernels import Kernel
from iommuq.firmware.scenario import OTHER, OTHER_SIZE
from iommuq.guests import qemu
from iommuq.guests.boot import boot
from iommuq.guests.channel import Transcript
from iommuq.guests.initramfs import Suite, build
from iommuq.results.console import splats
from iommuq.results.console.splats import Splat
from iommuq.suites.firmware.guest import asked, own_table, with_regions
from iommuq.system.errors import IommuqError
from iommuq.system.logtext import clean_line, split_stamp

#: Seconds for the answer to one line.
ANSWER_LIMIT = 30.0
#: Bytes of an answer.
ANSWER_SIZE = 1 << 16
#: Seconds that a guest lives at most.
LIFETIME = 24 * 3600.0
_GREETING = "steps 1"
# The clock of a guest whose idle time passes at once needs no second one to be held against.
_ARGUMENTS = ("tsc=nowatchdog",)
_TICK = 0.05
# Seconds for the text of a splat, which takes another way than the answer.
_SPLAT_LIMIT = 1.0
# The kinds of splat whose title does not say where it was, and the line that does.
_FAULTS = ("Oops", "general protection fault", "BUG")
_PLACE = re.compile(r"^RIP: \S*?:(\w+\+0x\w+)", re.MULTILINE)
_CUT = re.compile(r"\bcut here\b")


class DriverGuest:
    """A guest that answers lines, for use in a ``with`` block.

    :param log: gets the command and the console.
    :ivar boots: how often it was started.
    """

    def __init__(self, kernel: Kernel, world: World, log: Path) -> None:
        self.kernel, self.world, self.log = kernel, world, log
        self.boots = 0
        self._stack = contextlib.ExitStack()
        self._console: list[str] = []
        self._mark = 0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._error = ""
        self._rest = b""
        self._number = 0
        self._sound = True
        self._seen: Mapping[str, Seen] = {}

    def __enter__(self) -> DriverGuest:
        self.kernel.check(self.world.machine)
        machine = self.world.machine
        self._table = own_table(machine, asked(self.kernel, machine))
        self._steps = program.build()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def renew(self) -> None:
        """Have the next sequence begin in a new guest."""
        self._sound = False

    def ready(self) -> bool:
        """Begin a sequence.

        :return: whether it begins in a new guest.
        """
        alive = self._thread is not None and self._thread.is_alive()
        fresh = not alive or not self._sound or len(self._console) > CONSOLE_LINES
        if fresh:
            self._end()
            self._start()
        self._mark = len(self._console)
        return fresh

    def ask(self, line: str) -> Answer:
        """Have a step carried out.

        :raises GuestDied: there is no answer.
        """
        number, self._number = self._number, self._number + 1
        self._write(f"{line}\n".encode())
        lines: list[str] = []
        deadline = time.monotonic() + ANSWER_LIMIT
        size = 0
        while not lines or not lines[-1].startswith("now "):
            lines.append(self._line(deadline))
            size += len(lines[-1]) + 1
            if size > ANSWER_SIZE:
                raise self._died("its answer has no end")
        try:
            told = answer(self._known, lines, number, self._seen)
        except ValueError as error:
            raise self._died(f"malformed answer: {error}") from error
        self._seen = told.devices
        return told

    def splats(self, told: int) -> list[Splat]:
        """Return the splats since the sequence began, if there are more than were told."""
        found = splats.find(self.console())
        deadline = time.monotonic() + _SPLAT_LIMIT
        while len(found) > told and time.monotonic() < deadline:
            # The rest of its text may still be on its way; the second line names a WARN.
            size = len(self._console)
            time.sleep(_TICK)
            found = splats.find(self.console())
            if len(self._console) == size and not _CUT.search(found[-1].title):
                break
        if any(each.kind not in HARMLESS for each in found):
            self._sound = False
        return found

    def console(self) -> list[str]:
        """Return what was printed since the sequence began."""
        lines = self._console[self._mark :]
        return [split_stamp(clean_line(line))[1] for line in lines]

    def _start(self) -> None:
        world = self.world
        opened = threading.Event()

        def port(folder: Path) -> Path:
            fds = []
            for name in ("in", "out"):
                os.mkfifo(folder / f"port.{name}")
                # For both directions: opening does not wait, and there is no end of file.
                fds.append(
                    os.open(folder / f"port.{name}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                )
                self._stack.callback(os.close, fds[-1])
            self._in, self._out = fds
            opened.set()
            return folder / "port"

        self._console, self._mark, self._error, self._rest = [], 0, "", b""
        self._sound, self._number, self._seen = True, 0, {}
        # Until they are watched, an answer has no states.
        self._known = replace(world, devices=())
        suite = Suite("steps", (program.GUEST_PATH, "--serve", qemu.PORT), limit=LIFETIME)
        modules = {f"/lib/modules/{path.name}": path for path in self.kernel.modules}
        archive = build(
            [suite],
            {program.GUEST_PATH: self._steps} | modules,
            modules=tuple(modules),
            before=with_regions(self._table, world.machine, world.regions),
        )
        memory = [(OTHER, OTHER_SIZE), *((each.base, each.size) for each in world.regions)]
        reserve = [f"memmap={size >> 10}K${base:#x}" for base, size in memory]
        arguments = (*world.machine.arguments, *_ARGUMENTS, *reserve)
        # A second processor takes turns with the first one, and each waits for the other's locks.
        machine = replace(world.machine, cpus=1, arguments=arguments)
        console, over = self._console, threading.Event()
        self._over = over

        def hopeless(_transcript: Transcript) -> str:
            return "was stopped" if over.is_set() else ""

        def serve() -> None:
            try:
                boot(
                    machine,
                    self.kernel.image,
                    archive,
                    self.log,
                    limit=LIFETIME,
                    hopeless=hopeless,
                    port=port,
                    foreign=not self.kernel.built,
                    on_console=console.append,
                )
                self._error = "its program has ended"
            except IommuqError as error:
                self._error = error.what.removeprefix("guest lost: ")
            finally:
                opened.set()

        self._in = self._out = -1
        self._thread = threading.Thread(target=serve, daemon=True)
        self._thread.start()
        opened.wait()
        self.boots += 1
        greeting = self._line(time.monotonic() + machine.boot_limit)
        if greeting != _GREETING:
            raise self._died(f"its greeting is {greeting[:80]!r}")
        for name in world.devices:
            for kind in ("device", "watch"):
                tail = "\t-" if kind == "device" else ""
                self._watch(f"{kind}\t{world.addresses[name]}{tail}", name, kind)

    def _watch(self, line: str, name: str, kind: str) -> None:
        if kind == "watch":
            self._known = replace(self._known, devices=(*self._known.devices, name))
        told = self.ask(line)
        if told.word != "ok":
            raise self._died(f"{kind} {name}: {told.word} {told.more}")

    def _end(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._stack.close()

    def _died(self, why: str, *, silent: bool = False) -> GuestDied:
        said = self.console()
        self._end()
        hint = f"full log: {self.log}"
        return GuestDied(f"guest lost: {why}", hint=hint, console=said, silent=silent)

    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _write(self, data: bytes) -> None:
        while data:
            if not self._alive():
                raise self._died(self._error or "it has ended")
            try:
                data = data[os.write(self._in, data) :]
            except BlockingIOError:
                time.sleep(_TICK)

    def _line(self, deadline: float) -> str:
        poll = select.poll()
        if self._thread is None or self._out == -1:
            raise self._died(self._error or "it has ended")
        poll.register(self._out, select.POLLIN)
        while b"\n" not in self._rest:
            if len(self._rest) > ANSWER_SIZE:
                raise self._died("its answer has no end")
            if not poll.poll(_TICK * 1000):
                # It may have answered and ended meanwhile.
                if not self._alive() and not poll.poll(0):
                    raise self._died(self._error or "it has ended")
                if time.monotonic() > deadline:
                    raise self._died("no answer in time", silent=True)
                continue
            with contextlib.suppress(BlockingIOError):
                self._rest += os.read(self._out, ANSWER_SIZE)
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode("ascii", "backslashreplace").removesuffix("\r")


def titles(found: Sequence[Splat]) -> tuple[str, ...]:
    """Return the titles of splats; where one names no function, with that of the text."""
    return tuple(_titled(each) for each in found)


def _titled(splat: Splat) -> str:
    place = _PLACE.search(splat.text)
    # As for `splat_key`: a title with a number is that of a place already.
    if place is None or "+0x" in splat.title or splat.kind not in _FAULTS:
        return splat.title
    return f"{splat.title} at {place[1]}"
