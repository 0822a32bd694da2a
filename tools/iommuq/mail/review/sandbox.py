# SPDX-License-Identifier: GPL-2.0-only
"""Run untrusted code in a bubblewrap sandbox, described in docs/reviewing.md.

iommuq's process for builds runs inside too, so no process outside follows links made there.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import iommuq
from iommuq.mail.review import sandbox_filter
from iommuq.mail.review.sandbox_filter import Machine
from iommuq.mail.review.sandbox_watch import Watch
from iommuq.system import tables
from iommuq.system.errors import CommandTimeout, InfraError, ToolMissing, TooMuchOutput
from iommuq.system.groups import MARK
from iommuq.system.run import Completed, run, tail

MIB = 1 << 20
# With our process id added: the user of the processes if we are root, whom RLIMIT_NPROC does
# not limit.  systemd's list of user ids has no use for these, and two reviews share none.
_FIRST_ID = 0x70000000
_DATA = Path(__file__).with_name("sandbox.toml")
_HINT = "nothing was run; --trust runs the series without a sandbox, as your user"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# bubblewrap reads the filter from a descriptor, and run() passes none on.  Its own
# environment can be read in the sandbox: it has nothing but what finds it again.
_WITH_FILTER = f'exec env -i {MARK}="${MARK}" "$@" 3<"$0"'
_PROBE_LIMIT = 120.0
_PROBE_PROCESSES = 24
# Tests that network, host, namespaces and environment are closed, and processes limited.
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
class Limits:
    """The limits of a sandbox; ``sandbox.toml`` explains each."""

    processes: int
    memory: int
    address_space: int
    file_size: int
    disk: int
    files: int
    tmp: int
    shm: int
    output: int
    seconds: float


@dataclass(frozen=True)
class _Document:
    readable: tuple[str, ...]
    limits: Limits
    machine: tuple[Machine, ...]


@cache
def _document() -> _Document:
    return tables.load_toml(_Document, _DATA)


def default_limits() -> Limits:
    """Return the limits of ``sandbox.toml``."""
    return _document().limits


@dataclass(frozen=True)
class Sandbox:
    """A sandbox.

    :ivar writable: the only writable directory; it has the same path inside.
    :ivar readable: readable besides the host's programs, with the same paths inside.
    :ivar trusted: only the limits, no sandbox.
    """

    writable: Path
    limits: Limits
    readable: tuple[Path, ...] = ()
    trusted: bool = False

    @property
    def owner(self) -> int | None:
        """The required owner of the writable directory; None for the current user."""
        return _FIRST_ID + os.getpid() if os.geteuid() == 0 and not self.trusted else None

    @property
    def _filter(self) -> Path:
        """The filter of system calls: beside the writable directory, not in it."""
        return self.writable.with_name(f"{self.writable.name}.seccomp")

    def hand_over(self) -> None:
        """Give the writable directory and its content to `owner`.

        Must be called before the first run in the sandbox, and never after.
        """
        if not self.trusted:
            machine = sandbox_filter.find(_document().machine, platform.machine())
            self._filter.write_bytes(sandbox_filter.program(machine))
        if self.owner is None:
            return
        for folder, folders, names in os.walk(self.writable):
            for path in (folder, *(os.path.join(folder, each) for each in (*folders, *names))):  # noqa: PTH118
                try:
                    os.chown(path, self.owner, self.owner, follow_symlinks=False)
                except OSError as error:  # Root of a user namespace without that user.
                    why = f"no user {self.owner}: {error.strerror}"
                    raise InfraError(f"no sandbox can be made here: {why}", hint=_HINT) from error

    def argv(self, words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
        """Return the argument vector that runs *words* in the sandbox.

        :param environment: all variables, besides PATH, HOME and the locale.
        """
        outer = [] if self.trusted else self._bubblewrap(environment)
        return [*outer, *self._rlimits(), *words]

    def _rlimits(self) -> list[str]:
        limits = self.limits
        return [
            "prlimit",
            # Without a sandbox, all processes of the user would count.
            *([] if self.trusted else [f"--nproc={limits.processes}"]),
            f"--as={limits.address_space * MIB}",
            f"--fsize={limits.file_size * MIB}",
            f"--cpu={int(limits.seconds)}",
            "--core=0",
            "--",
        ]

    def _bubblewrap(self, environment: Mapping[str, str]) -> list[str]:
        program = shutil.which("bwrap") or "bwrap"
        argv = ["/bin/sh", "-c", _WITH_FILTER, str(self._filter), program, "--seccomp", "3"]
        argv += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
        argv += ["--unshare-cgroup-try", "--die-with-parent", "--new-session"]
        argv += ["--hostname", "sandbox", "--clearenv"]
        argv += ["--cap-drop", "ALL"]
        if self.owner is None:
            argv += ["--unshare-user"]
        else:
            # For setpriv below.
            for name in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
                argv += ["--cap-add", name]
        for name in _document().readable:
            argv += [*_parents(Path(name)), "--ro-bind-try", name, name]
        for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
            if Path(name).is_symlink():
                argv += ["--symlink", str(Path(name).readlink()), name]
            else:
                argv += ["--ro-bind-try", name, name]
        argv += ["--proc", "/proc", "--dev", "/dev"]
        for place, size in (("/dev/shm", self.limits.shm), ("/tmp", self.limits.tmp)):
            argv += ["--size", str(size * MIB), "--perms", "1777", "--tmpfs", place]
        # After /tmp, since it may be below it.
        for shown in self.readable:
            argv += [*_parents(shown), "--ro-bind", str(shown), str(shown)]
        argv += [*_parents(self.writable), "--bind", str(self.writable), str(self.writable)]
        # Both are a tmpfs without a limit.
        argv += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"]
        path = f"{Path(sys.prefix) / 'bin'}:{_PATH}"
        known = {"PATH": path, "HOME": "/tmp", "LC_ALL": "C.UTF-8"}
        for key, value in {**known, **environment}.items():
            argv += ["--setenv", key, value]
        argv += ["--"]
        if self.owner is not None:
            argv += ["setpriv", f"--reuid={self.owner}", f"--regid={self.owner}"]
            argv += ["--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
            argv += ["--"]
        # The OOM killer chooses these processes first.
        argv += ["choom", "--adjust", "1000", "--"]
        # bubblewrap's --chdir would run as the wrong user.
        return [*argv, "env", f"--chdir={self.writable}"]

    def probe(self) -> None:
        """Test that the sandbox works on this machine.

        :raises ToolMissing: bubblewrap is not installed.
        :raises InfraError: it does not work; most likely user namespaces are off.
        """
        if self.trusted:
            return
        self.hand_over()
        for tool in ("bwrap", "prlimit", "choom", "setpriv"):
            if shutil.which(tool) is None:
                package = "bubblewrap" if tool == "bwrap" else "util-linux"
                raise ToolMissing(f"{tool} is not installed ({package}): no sandbox", hint=_HINT)
        few = replace(self, limits=replace(self.limits, processes=_PROBE_PROCESSES))
        # Not by devices: some drivers add one to every new namespace.
        network = str(Path("/proc/self/ns/net").readlink())
        canary = secrets.token_hex(16)
        argv = few.argv(["sh", "-c", _PROBE, str(self.writable), network, canary], {})
        options: dict[str, Any] = {"timeout": _PROBE_LIMIT, "check": False, "watched": True}
        try:
            done = run(argv, cwd=self.writable, env={"IOMMUQ_CANARY": canary}, **options)
        except CommandTimeout as error:
            raise InfraError("the sandbox does not start", hint=_HINT) from error
        if done.returncode != 0 or done.output.strip() != "contained":
            said = tail(done.output.strip() or done.stderr, 1) or f"exit {done.returncode}"
            raise InfraError(f"no sandbox can be made here: {said}", hint=_HINT)

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
        with watch.watching() as watcher:
            try:
                done = run(
                    self.argv(words, environment),
                    cwd=self.writable,
                    env=dict(environment) if self.trusted else None,
                    timeout=self.limits.seconds,
                    on_line=on_line,
                    check=False,
                    watched=True,
                    on_start=watcher.begin,
                    most=self.limits.output * MIB,
                )
            except TooMuchOutput as error:
                text = f"the series was stopped: it printed more than {self.limits.output} MiB"
                raise InfraError(text) from error
            except CommandTimeout as error:
                text = f"the series was stopped: not done after {self.limits.seconds:g} s"
                raise InfraError(text, hint="--limit SECONDS raises the limit") from error
        if watcher.reason:
            raise InfraError(f"the series was stopped: {watcher.reason}", hint=str(_DATA))
        return done


def remove(folder: Path) -> None:
    """Remove a directory written in a sandbox, of any depth and with any modes.

    `shutil.rmtree` is recursive, and could exceed Python's limit.
    """
    for words in (("rm", "-rf"), ("chmod", "-R", "u+rwX"), ("rm", "-rf")):
        if folder.exists():
            run([*words, "--", folder], cwd=folder.parent, check=False, watched=True)


def _parents(path: Path) -> list[str]:
    """Return the options for the parents of *path*; by default only the user can read them."""
    return [
        word
        for parent in reversed(path.parents[:-1])
        for word in ("--perms", "0755", "--dir", str(parent))
    ]


def python_paths() -> tuple[Path, ...]:
    """Return the paths that our interpreter and package need."""
    package = Path(iommuq.__file__).resolve().parent
    wanted = [Path(sys.prefix), Path(sys.base_prefix), package]
    return tuple(dict.fromkeys(each for each in wanted if not each.is_relative_to("/usr")))
