# SPDX-License-Identifier: GPL-2.0-only
"""The guest that carries out operations: started once, and again after it died.

It is one process that is asked over a pair of FIFOs; a kernel that crashes costs one boot.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from iommuq.explore import wire
from iommuq.explore.operations import Operation
from iommuq.explore.wire import State
from iommuq.guests import uml
from iommuq.results.console import splats
from iommuq.results.console.splats import Splat
from iommuq.system import run as processes
from iommuq.system.errors import InfraError, IommuqError
from iommuq.system.logtext import clean_line, cut, split_stamp
from iommuq.system.temporary import temporary_folder

#: MiB of memory of a guest.
MEMORY = 128
#: Seconds from its start to its greeting, and for the answer to one message.
BOOT_LIMIT, ANSWER_LIMIT = 60.0, 30.0
#: Bytes of the console; a guest that writes more is ended, and another one started.
CONSOLE_LIMIT = 16 << 20
#: Lines of the console after which a new guest is started at the next chance.
CONSOLE_LINES = 50_000
#: Kinds of splat after which the kernel is still sound: lockdep and KASAN go on.
HARMLESS = ("WARNING",)

_TICK = 0.02
_SPINS = 600
_CUT = re.compile(r"\bcut here\b")
# Seconds for the console to be read; it is printed before the answer.
_MOMENT = 0.001
_LIFETIME = 24 * 3600.0


class GuestDied(InfraError):
    """The guest ended, did not answer in time, or its answer is malformed.

    :ivar console: what it printed since the last sequence began.
    :ivar silent: it has not ended, and did not answer in time.
    """

    def __init__(
        self, what: str, *, hint: str, console: Sequence[str], silent: bool = False
    ) -> None:
        super().__init__(what, hint=hint)
        self.console = tuple(console)
        self.silent = silent


class Guest:
    """A guest that answers messages, for use in a ``with`` block.

    :param kernel: the UML kernel, built with ``explore/explore.config``.
    :param log: gets the command and the console.
    :ivar boots: how often it was started.
    """

    def __init__(self, kernel: Path, log: Path) -> None:
        self.kernel = kernel
        self.log = log
        self.boots = 0
        self._stack = contextlib.ExitStack()
        self._console: list[str] = []
        self._mark = 0
        self._pid = 0
        self._error = ""
        self._thread: threading.Thread | None = None
        self._sound = True

    def __enter__(self) -> Guest:
        try:
            self._start()
        except BaseException:
            # Ctrl-C while it boots.
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def fresh(self) -> None:
        """Begin a sequence: in a new guest if this one died, or may be unsound."""
        alive = self._thread is not None and self._thread.is_alive()
        if not alive or not self._sound or len(self._console) > CONSOLE_LINES:
            self._end()
            self._start()
        self._mark = len(self._console)

    def send(self, operation: Operation) -> None:
        """Begin to carry out an operation; `receive` must follow.

        :raises GuestDied: the guest has ended.
        """
        self._write(wire.message([operation]))

    def receive(self) -> State:
        """Wait for the operation that was sent, and return the state after it.

        :raises GuestDied: there is no answer.
        """
        data = self._read(wire.STATE_SIZE, ANSWER_LIMIT)
        try:
            return wire.state(data)
        except ValueError as error:
            raise self._died(f"malformed answer: {error}") from error

    def console(self) -> list[str]:
        """Return what was printed since the sequence began."""
        return [split_stamp(clean_line(line))[1] for line in self._console[self._mark :]]

    def renew(self) -> None:
        """Have the next sequence begin in a new guest."""
        self._sound = False

    def splats(self, told: int) -> list[Splat]:
        """Return the splats since the sequence began, when the guest has counted another one.

        The text takes another way than the answer, and is waited for.

        :param told: how many were returned before.
        """
        deadline = time.monotonic() + 1.0
        found = splats.find(self.console())
        while time.monotonic() < deadline:
            size = len(self._console)
            time.sleep(_MOMENT)
            found = splats.find(self.console())
            # The line that names a WARN is the second one.
            named = len(found) > told and not _CUT.search(found[-1].title)
            if named and len(self._console) == size:
                break
        if any(each.kind not in HARMLESS for each in found):
            self._sound = False
        return found

    def _start(self) -> None:
        folder = self._stack.enter_context(temporary_folder("explore"))
        self._fds = []
        for name in ("in", "out"):
            os.mkfifo(folder / name)
            # For both directions: opening does not wait, and there is no end of file.
            fd = os.open(folder / name, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            self._stack.callback(os.close, fd)
            self._fds.append(fd)
        self._console = []
        self._mark = 0
        self._error = ""
        self._sound = True
        self._pid = 0
        argv = uml.serving_argv(self.kernel, folder, MEMORY)
        console = self._console

        def serve() -> None:
            try:
                done = processes.run(
                    argv,
                    cwd=folder,
                    env=uml.environment(),
                    timeout=_LIFETIME,
                    log_path=self.log,
                    on_line=lambda line: console.append(cut(line.removesuffix("\r"))),
                    check=False,
                    watched=True,
                    on_start=self._started,
                    most=CONSOLE_LIMIT,
                )
                self._error = processes.describe_status(done.returncode)
            except IommuqError as error:
                self._error = str(error)

        self._thread = threading.Thread(target=serve, daemon=True)
        self._thread.start()
        self.boots += 1
        if not wire.greeting_is_right(self._read(wire.HELLO_SIZE, BOOT_LIMIT)):
            raise self._died("its greeting is not that of this version")

    def _started(self, pid: int) -> None:
        self._pid = pid

    def _end(self) -> None:
        if self._thread is not None:
            # The process was started by run(), which has not waited for it yet.
            while self._thread.is_alive():
                if self._pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(self._pid, signal.SIGKILL)
                self._thread.join(_TICK)
            self._thread = None
        self._stack.close()

    def _died(self, why: str) -> GuestDied:
        said = self.console()
        self._end()
        last = next((line for line in reversed(said) if line.strip()), "")
        what = f"guest lost: {why}" + (f": {last}" if last else "")
        return GuestDied(what, hint=f"full log: {self.log}", console=said)

    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _write(self, data: bytes) -> None:
        if not self._alive():
            raise self._died(self._error or "it has ended")
        while data:
            try:
                data = data[os.write(self._fds[0], data) :]
            except BlockingIOError:
                if not self._alive():
                    raise self._died(self._error) from None
                time.sleep(_TICK)

    def _read(self, size: int, limit: float) -> bytes:
        if self._thread is None:
            raise self._died(self._error or "it has ended")
        fd = self._fds[1]
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        deadline = time.monotonic() + limit
        found = b""
        # Most answers are there sooner than a process can be woken.
        for _ in range(_SPINS):
            with contextlib.suppress(BlockingIOError):
                found = os.read(fd, size)
                break
        while len(found) < size:
            if not poll.poll(_TICK * 1000):
                if not self._alive():
                    raise self._died(self._error or "it has ended")
                if time.monotonic() > deadline:
                    raise self._died(f"no answer within {limit:g} s")
                continue
            with contextlib.suppress(BlockingIOError):
                found += os.read(fd, size - len(found))
        return found
