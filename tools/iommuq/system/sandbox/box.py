# SPDX-License-Identifier: GPL-2.0-only
"""Run untrusted code in a bubblewrap sandbox, described in docs/reviewing.md.

iommuq's process for builds runs inside too, so no process outside follows links made there.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from iommuq.system.errors import CommandTimeout, InfraError, ToolMissing, TooMuchOutput
from iommuq.system.run import Completed, run, tail
from iommuq.system.sandbox import area, reader, scope
from iommuq.system.sandbox.bubblewrap import View, give
from iommuq.system.sandbox.model import DATA, MIB, Limits
from iommuq.system.sandbox.watch import Watch

# With our process id added: the user of the processes if we are root, whom RLIMIT_NPROC does
# not limit.  systemd's list of user ids has no use for these, and two reviews share none.
_FIRST_ID = 0x70000000
_PROBE_LIMIT = 120.0
_PROBE_PROCESSES = 24
# Tests that network, host, namespaces and environment are closed, and processes limited.
_PROBED = "probe"
_PROBE = """
net=$(readlink /proc/self/ns/net) && [ "$net" != "$1" ] || { echo network is reachable; exit 1; }
if ( : > /usr/iommuq-probe ) 2>/dev/null; then rm /usr/iommuq-probe; echo writes to /usr; exit 1; fi
unshare --user true 2>/dev/null && { echo it can make namespaces; exit 1; }
grep -qs "$2" /proc/[0-9]*/environ && { echo the environment outside can be read; exit 1; }
: > "$0/probe" || { echo cannot write to its own directory; exit 1; }
( i=0; while [ $i -lt 64 ]; do sleep 9 & i=$((i+1)); done ) 2>/dev/null && {
    echo processes are not limited; exit 1; }
echo contained
"""


@dataclass(frozen=True)
class Sandbox:
    """A sandbox.

    :ivar writable: the only writable directory; it has the same path inside.
    :ivar readable: readable besides the host's programs, with the same paths inside.
    :ivar trusted: only the limits, no sandbox.
    :ivar noun: what is run, for messages.
    :ivar hint: what the user can do if there can be no sandbox.
    """

    writable: Path
    limits: Limits
    readable: tuple[Path, ...] = ()
    trusted: bool = False
    noun: str = "the program"
    hint: str = "nothing was run"

    @property
    def owner(self) -> int | None:
        """The required owner of the writable directory; None for the current user."""
        return _FIRST_ID + os.getpid() if os.geteuid() == 0 and not self.trusted else None

    @property
    def _calls(self) -> Path:
        """The filter of system calls: beside the writable directory, not in it."""
        return self.writable.with_name(f"{self.writable.name}.seccomp")

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Make and probe the writable directory for the block, of a fixed size if we are root."""
        self.writable.mkdir(mode=0o755)
        try:
            with area.opened(self.writable, self.limits):
                self.probe()
                (self.writable / _PROBED).unlink(missing_ok=True)
                if self.owner is not None:
                    os.chown(self.writable, os.geteuid(), os.getegid())
                yield
        finally:
            for path in self.writable.parent.glob(f"{self._calls.name}*"):
                path.unlink(missing_ok=True)

    def hand_over(self) -> None:
        """Give the writable directory and its content to `owner`.

        Must be called before the first run in the sandbox, and never after.
        """
        if self.owner is not None:
            give(self.writable, self.owner, self.hint)

    def argv(self, words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
        """Return the argument vector that runs *words* in the sandbox.

        :param environment: all variables, besides PATH, HOME and the locale.
        """
        limits = self.limits
        bounded = [
            "prlimit",
            # Without a sandbox, all processes of the user would count.
            *([] if self.trusted else [f"--nproc={limits.processes}"]),
            f"--as={limits.address_space * MIB}",
            f"--fsize={limits.file_size * MIB}",
            f"--cpu={int(limits.seconds)}",
            # With 0 the kernel would still start a program that core_pattern names.
            "--core=1",
            "--",
            *words,
        ]
        if self.trusted:
            return bounded
        view = View(
            (self.writable,), self.readable, tmp=limits.tmp, shm=limits.shm, owner=self.owner
        )
        return view.argv(bounded, environment, self._calls, guests=True)

    def probe(self) -> None:
        """Test that the sandbox works on this machine.

        :raises ToolMissing: bubblewrap is not installed.
        :raises InfraError: it does not work; most likely user namespaces are off.
        """
        if self.trusted:
            return
        self.hand_over()
        for tool in ("bwrap", "prlimit", "setpriv"):
            if shutil.which(tool) is None:
                package = "bubblewrap" if tool == "bwrap" else "util-linux"
                raise ToolMissing(
                    f"{tool} is not installed ({package}): no sandbox", hint=self.hint
                )
        few = replace(self, limits=replace(self.limits, processes=_PROBE_PROCESSES))
        # Not by devices: some drivers add one to every new namespace.
        network = str(Path("/proc/self/ns/net").readlink())
        canary = secrets.token_hex(16)
        argv = few.argv(["sh", "-c", _PROBE, str(self.writable), network, canary], {})
        options: dict[str, Any] = {"timeout": _PROBE_LIMIT, "check": False, "watched": True}
        try:
            done = run(argv, cwd=self.writable, env={"IOMMUQ_CANARY": canary}, **options)
        except CommandTimeout as error:
            raise InfraError("the sandbox does not start", hint=self.hint) from error
        if done.returncode != 0 or done.output.strip() != "contained":
            said = tail(done.output.strip() or done.stderr, 1) or f"exit {done.returncode}"
            raise InfraError(f"no sandbox can be made here: {said}", hint=self.hint)

    def run(
        self,
        words: Sequence[str],
        *,
        environment: Mapping[str, str],
        on_line: Callable[[str], None] | None = None,
    ) -> Completed:
        """Run a command in the sandbox, and kill it at a limit.

        :param environment: all variables, besides PATH, HOME and the locale.
        :param on_line: called with each line of its output, from another thread.
        :return: the finished process, with any exit status; no descendant is left.
        :raises InfraError: it reached one of the limits.
        """
        watch = Watch(
            self.writable,
            most_memory=self.limits.memory * MIB,
            most_disk=self.limits.disk * MIB,
            most_files=self.limits.files,
            # The processes that start the sandbox count too.
            most_processes=self.limits.processes + 16,
        )
        with scope.entered(self.limits) as group, watch.watching() as watcher:
            try:
                done = run(
                    [*group.words, *self.argv(words, environment)],
                    cwd=self.writable,
                    env=dict(environment) if self.trusted else None,
                    timeout=self.limits.seconds,
                    on_line=on_line,
                    check=False,
                    watched=True,
                    on_start=watcher.begin,
                    most=self.limits.output * MIB,
                    most_lines=self.limits.lines,
                )
            except TooMuchOutput as error:
                most = f"{self.limits.output} MiB or {self.limits.lines:,} lines"
                raise InfraError(f"{self.noun} was stopped: it printed more than {most}") from error
            except CommandTimeout as error:
                text = f"{self.noun} was stopped: not done after {self.limits.seconds:g} s"
                raise InfraError(text, hint="--limit SECONDS raises the limit") from error
            reason = watcher.reason or group.reason()
        if reason:
            raise InfraError(f"{self.noun} was stopped: {reason}", hint=str(DATA))
        return done


def protections() -> list[tuple[str, bool, str]]:
    """Return what protects this machine from untrusted code: name, whether it is there, and how."""
    why = reader.missing()
    group = scope.kind()
    fixed = os.geteuid() == 0 and Path("/dev/loop-control").exists()
    return [
        ("namespaces", not why, why or "bubblewrap, with a filter of system calls"),
        ("control group", bool(group), group or "none of version 2: iommuq watches instead"),
        ("fixed size", fixed, "a file system of its own" if fixed else "iommuq watches instead"),
    ]
