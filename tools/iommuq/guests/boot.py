# SPDX-License-Identifier: GPL-2.0-only
"""Boot a kernel on a machine, and return the report of its suites.

The report is complete, or `GuestLost` is raised.  No verdict depends on the console.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from iommuq.guests import qemu, uml
from iommuq.guests.channel import Channel, SuiteState, Transcript
from iommuq.guests.initramfs import Initramfs
from iommuq.guests.machine import Machine
from iommuq.system import run as processes
from iommuq.system.errors import CommandTimeout, InfraError, TooMuchOutput
from iommuq.system.groups import Bounds
from iommuq.system.logtext import LINES, clean_line, cut, split_stamp
from iommuq.system.sandbox.reader import boxed
from iommuq.system.temporary import temporary_folder

#: Lines of the console that are shown for a lost guest.
TAIL_LINES = 12
#: Bytes of the console; with more the guest is ended.
CONSOLE_LIMIT = 16 << 20
# MiB of address space that QEMU takes besides the memory of the guest.
_QEMU = 4096
#: Seconds that a suite may take on top of its limit: to be killed, and for SysRq-t.
SUITE_GRACE = 20.0
#: Seconds from the last line of the report to the end of the guest.
END_LIMIT = 10.0

# Only for the message.
_PANIC = re.compile(r"Kernel panic - not syncing: .*|.*\bqemu-system-\w+: .*")
_OUT_OF_MEMORY = re.compile(r"(?:Out of memory|Memory cgroup out of memory)\b.*")


@dataclass(frozen=True)
class SuiteReport:
    """The result of a suite.

    :ivar status: its exit status like ``$?``; None if it was killed or not run.
    :ivar trouble: why *status* is no reliable verdict; empty if it is one.
    :ivar output: its lines of output, usually KTAP.
    :ivar seconds: its duration, by the clock of the guest.
    :ivar console: its lines of the console of the guest.
    """

    name: str
    status: int | None
    trouble: str
    output: tuple[str, ...]
    seconds: float
    console: range


@dataclass(frozen=True)
class GuestReport:
    """The result of a guest.

    :ivar suites: in the order they were run.
    :ivar accelerator: ``native``, ``kvm`` or ``tcg``.
    :ivar boot_seconds: from the start to the first suite; NaN without one.
    :ivar console: all lines of the console.
    """

    suites: tuple[SuiteReport, ...]
    accelerator: str
    boot_seconds: float
    console: tuple[str, ...]

    def interleaved(self, suite: SuiteReport) -> list[str]:
        """Return kernel messages and the lines of the suite in order, to locate splats.

        The console cuts lines at about 900 characters; `SuiteReport.output` has all of them.
        """
        mark = f"iommuq: {suite.name}| "
        lines = []
        for line in self.console[suite.console.start : suite.console.stop]:
            text = split_stamp(clean_line(line))[1]
            lines.append(text.removeprefix(mark) if text.startswith(mark) else line)
        return lines

    def outside(self, suites: Sequence[SuiteReport]) -> list[str]:
        """Return the lines of the console that are of none of some suites."""
        inside = {number for suite in suites for number in suite.console}
        return [line for number, line in enumerate(self.console) if number not in inside]


class GuestLost(InfraError):
    """A guest ended without a complete report.

    :ivar tail: the last lines of its console.
    :ivar report: the incomplete report; its last suite may have killed the guest.
    """

    def __init__(self, what: str, *, hint: str, tail: str, report: GuestReport) -> None:
        super().__init__(what, hint=hint)
        self.tail = tail
        self.report = report


def boot(
    machine: Machine,
    kernel: Path,
    initramfs: Initramfs,
    log: Path,
    *,
    limit: float | None = None,
    hopeless: Callable[[Transcript], str] | None = None,
    foreign: bool = False,
    port: Callable[[Path], Path] | None = None,
    on_console: Callable[[str], None] | None = None,
) -> GuestReport:
    """Boot, run the suites of the initramfs, and power off.

    :param kernel: the image, or the executable of a UML kernel.
    :param log: gets the command and the console.
    :param limit: seconds for all of it; by default the sum of the limits of machine and suites.
    :param hopeless: called several times a second, from another thread: returns why the
        guest is to be killed, or an empty string.
    :param foreign: the kernel was not built here: QEMU runs in a sandbox, if there can be one.
    :param port: makes two FIFOs for a second port in a folder; see `qemu.argv`.
    :param on_console: called with each line of the console, from another thread.
    :raises GuestLost: the guest ended without a complete report.
    :raises InfraError: the guest could not be started.
    """
    if not kernel.is_file():
        raise InfraError(f"{kernel}: no such kernel", hint="build it again")
    if limit is None:
        limit = machine.boot_limit + END_LIMIT
        limit += sum(suite.limit + SUITE_GRACE for suite in initramfs.suites)
    console: list[str] = []

    def on_line(line: str) -> None:
        keeper.flooded = keeper.flooded or len(console) == LINES
        if not keeper.flooded:
            console.append(cut(line.removesuffix("\r")))
            if on_console is not None:
                on_console(console[-1])

    accelerator = uml.ACCELERATOR
    if machine.guest == "qemu":
        qemu.check_version(machine)
        accelerator = qemu.choose_accelerator(machine)
    with temporary_folder("guest") as work, contextlib.ExitStack() as stack:
        fifo = work / "channel"
        archive = initramfs.path
        if foreign:
            # The sandbox may have a user that cannot read ours.
            kernel = Path(shutil.copyfile(kernel, work / "kernel"))
            archive = Path(shutil.copyfile(archive, work / "initramfs"))
        if machine.guest == "qemu":
            environment: dict[str, str] = {}
            second = port(work) if port is not None else None
            argv = qemu.argv(machine, kernel, archive, fifo, work, accelerator, second)
            pid_file = qemu.pid_file(work)
        else:
            environment = uml.environment()
            argv = uml.argv(machine, kernel, archive, fifo, work)
            pid_file = uml.pid_file(work)
        keeper = _Keeper(machine, None if foreign else pid_file, hopeless)
        reason = ""
        with Channel(fifo, keeper.tick) as channel:
            if foreign:
                seconds = int(limit * (machine.cpus + 1))
                bounds = Bounds((machine.memory + _QEMU) << 20, seconds, file=1 << 20)
                inside = stack.enter_context(boxed(argv, cwd=work, kvm=True, bounds=bounds))
                argv = inside.argv
            try:
                done = processes.run(
                    argv,
                    cwd=work,
                    env=environment,
                    timeout=limit,
                    log_path=log,
                    on_line=on_line,
                    most=CONSOLE_LIMIT,
                    check=False,
                    watched=True,
                    on_start=keeper.started,
                )
                if done.returncode < 0:
                    reason = processes.describe_status(done.returncode)
            except CommandTimeout:
                reason = f"did not end within {limit:g} s"
            except TooMuchOutput:
                keeper.flooded = True
    transcript = channel.transcript
    flooded = keeper.flooded or transcript.flooded
    boot_seconds = float("nan") if transcript.began is None else transcript.began - keeper.start
    report = _report(initramfs, transcript, accelerator, boot_seconds, console)
    # What was dropped may have been a splat.
    if transcript.whole and not flooded and len(report.suites) == len(initramfs.suites):
        return report
    if flooded:
        keeper.reason = f"wrote more than {CONSOLE_LIMIT >> 20} MiB or {LINES} lines"
    what = f"guest lost: {machine.name} {_explain(initramfs, transcript, keeper.reason or reason)}"
    said = [split_stamp(line)[1] for line in map(clean_line, console) if line]
    last_word = next(filter(_PANIC.fullmatch, said), None)
    raise GuestLost(
        f"{what}: {last_word}" if last_word else what,
        hint=f"full log: {log}",
        tail="\n".join(said[-TAIL_LINES:]),
        report=report,
    )


class _Keeper:
    """Kills a guest that exceeds a limit or is hopeless; `reason` says why.

    :ivar flooded: its console exceeded a limit.
    """

    def __init__(
        self, machine: Machine, pid_file: Path | None, hopeless: Callable[[Transcript], str] | None
    ) -> None:
        self.start = time.monotonic()
        self._pid = ""
        self.reason = ""
        self.flooded = False
        self._limit = machine.boot_limit
        self._pid_file = pid_file
        self._hopeless = hopeless

    def started(self, pid: int) -> None:
        """Take the id of the process that starts the guest."""
        self._pid = str(pid)

    def tick(self, transcript: Transcript) -> None:
        """Check the progress of the guest."""
        now = time.monotonic()
        if transcript.began is None and now > self.start + self._limit:
            self.reason = f"did not start its first suite within {self._limit:g} s"
            self._kill()
        elif self._hopeless is not None and (reason := self._hopeless(transcript)):
            self.reason = reason
            self._kill()
        else:
            late = transcript.ended is not None and now > transcript.ended + END_LIMIT
            if late or self.flooded or transcript.flooded:
                self._kill()

    def _kill(self) -> None:
        # Only the guest: run() ends the rest of its group.  No file: it has ended, or has
        # not written it yet, then run() kills it at the limit.  In a sandbox its own id is
        # another, and it ends with bubblewrap.
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(self._pid_file.read_text() if self._pid_file is not None else self._pid)
            parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                os.kill(pid, signal.SIGKILL)


def _explain(initramfs: Initramfs, transcript: Transcript, reason: str) -> str:
    """Return in a few words how a guest was lost."""
    where, state = "before its first suite", None
    if transcript.suites:
        state, number = transcript.suites[-1], len(transcript.suites) - 1
        names = [suite.name for suite in initramfs.suites]
        name = names[number] if number < len(names) else f"suite {number}"
        where = f"{'after' if state.over else 'in'} {name}"
    if transcript.garbled:
        return f"malformed report at {transcript.garbled!r}, {where}"
    if state is not None and state.stuck:
        return f"a suite survived SIGKILL, {where}"
    if transcript.broken:
        return f"cannot run suites: {transcript.broken}"
    return f"{reason or 'ended'}, {where}"


def _report(
    initramfs: Initramfs,
    transcript: Transcript,
    accelerator: str,
    boot_seconds: float,
    console: Sequence[str],
) -> GuestReport:
    suites = []
    texts = [split_stamp(clean_line(line))[1] for line in console]
    start = 0
    for number, (suite, state) in enumerate(zip(initramfs.suites, transcript.suites, strict=False)):
        place = range(start, start)
        if state.begin is not None:
            place = _place(texts, start, number, suite.name)
            start = place.stop
        memory = next(
            filter(None, map(_OUT_OF_MEMORY.match, texts[place.start : place.stop])), None
        )
        trouble = _trouble(state, suite.limit)
        if memory is not None:
            trouble = "; ".join(filter(None, [trouble, f"guest out of memory: {memory[0]}"]))
        status = None if state.expired else state.status
        seconds = (state.end or 0.0) - (state.begin or 0.0) if state.end else 0.0
        suites.append(SuiteReport(suite.name, status, trouble, tuple(state.output), seconds, place))
    return GuestReport(tuple(suites), accelerator, boot_seconds, tuple(console))


def _place(texts: Sequence[str], start: int, number: int, name: str) -> range:
    """Return the lines of the console of a suite; too many if the marks are missing."""

    def find(text: str, first: int) -> int | None:
        return next((i for i in range(first, len(texts)) if texts[i].startswith(text)), None)

    begin = find(f"iommuq: begin {number} {name}", start)
    first = start if begin is None else begin + 1
    end = find(f"iommuq: end {number} {name}", first)
    if end is None:
        end = find(f"iommuq: begin {number + 1} ", first)
    return range(first, len(texts) if end is None else end)


def _trouble(state: SuiteState, limit: float) -> str:
    if state.missing:
        return f"not run: the guest has no {state.missing}"
    reasons = []
    if state.status is None:
        reasons.append("did not end")
    if state.expired:
        reasons.append(f"did not end within {limit:g} s and was killed")
    if state.left:
        reasons.append("left processes that held its output open")
    return "; ".join(reasons)
