# SPDX-License-Identifier: GPL-2.0-only
"""Run what came from a mailing list where it can do no harm.

All of it runs in one sandbox: our own process that builds and boots, and everything that
it starts.  So there is no process of ours outside that would write to, or believe, a file
that a hostile Makefile has put a link in the place of.

bubblewrap makes the sandbox: no network but a loopback of its own, a few directories of the
host read-only, none of its sockets and no home, one directory to write to, and a process
namespace that ends as a whole.  The kernel's own limits hold for each process, and a
thread of ours looks at what they use together; see `iommuq.mail.review.sandbox_watch`.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import iommuq
from iommuq.mail.review import sandbox_filter
from iommuq.mail.review.sandbox_filter import Machine
from iommuq.mail.review.sandbox_watch import Watch
from iommuq.system import tables
from iommuq.system.errors import CommandTimeout, InfraError, ToolMissing, TooMuchOutput
from iommuq.system.run import Completed, run, tail

#: MiB.
MIB = 1 << 20
#: Whom the sandbox's processes run as if we are root: root is exempt from the limit of
#: processes, and nothing on a Debian system belongs to this one.
OTHER_ID = 65533
_DATA = Path(__file__).with_name("sandbox.toml")
_HINT = "without one nothing of the series runs; --trust if you trust its author with this account"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# bubblewrap reads the filter from a descriptor, and run() hands none on.
_WITH_FILTER = 'exec "$@" 3<"$0"'
_PROBE_LIMIT = 120.0
_PROBE_PROCESSES = 24
# No network, no way to write to the host or to make namespaces, and no forks without end.
_PROBE = """
net=$(readlink /proc/self/ns/net) && [ "$net" != "$1" ] || { echo the network is there; exit 1; }
if ( : > /usr/iommuq-probe ) 2>/dev/null; then rm /usr/iommuq-probe; echo writes to /usr; exit 1; fi
unshare --user true 2>/dev/null && { echo it can make namespaces; exit 1; }
: > "$0/probe" || { echo cannot write to its own directory; exit 1; }
( i=0; while [ $i -lt 64 ]; do sleep 9 & i=$((i+1)); done ) 2>/dev/null && {
    echo processes are not limited; exit 1; }
echo contained
"""


@dataclass(frozen=True)
class Limits:
    """What the processes of a sandbox may use; ``sandbox.toml`` explains each."""

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
    return tables.load(_Document, _DATA)


def default_limits() -> Limits:
    """Return the limits of ``sandbox.toml``."""
    return _document().limits


@dataclass(frozen=True)
class Sandbox:
    """Where to run, and within which limits.

    :ivar writable: the one directory that can be written to; it has the same path inside.
    :ivar readable: what can be read besides the host's programs, with the same paths inside.
    :ivar trusted: no sandbox at all: the limits, and nothing else.
    """

    writable: Path
    limits: Limits
    readable: tuple[Path, ...] = ()
    trusted: bool = False

    @property
    def owner(self) -> int | None:
        """Whom the writable directory has to belong to; None for ourselves."""
        return OTHER_ID if os.geteuid() == 0 and not self.trusted else None

    @property
    def _filter(self) -> Path:
        """The filter of system calls: beside the writable directory, not in it."""
        return self.writable.with_name(f"{self.writable.name}.seccomp")

    def hand_over(self) -> None:
        """Give the writable directory, with what is in it, to whom it has to belong to.

        To be called before anything has run in the sandbox, and never after.
        """
        if not self.trusted:
            machine = sandbox_filter.find(_document().machine, platform.machine())
            self._filter.write_bytes(sandbox_filter.program(machine))
        if self.owner is None:
            return
        for folder, folders, names in os.walk(self.writable):
            for path in (folder, *(os.path.join(folder, each) for each in (*folders, *names))):  # noqa: PTH118
                os.chown(path, self.owner, self.owner, follow_symlinks=False)

    def argv(self, words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
        """Return what runs *words* in the sandbox.

        :param environment: all variables there are, besides PATH, HOME and the locale.
        """
        if self.trusted:
            return [*self._rlimits(), *words]
        return [*self._bubblewrap(environment), *self._rlimits(), *words]

    def _rlimits(self) -> list[str]:
        limits = self.limits
        return [
            "prlimit",
            # Of our own account others' processes would count, too.
            *([] if self.trusted else [f"--nproc={limits.processes}"]),
            f"--as={limits.address_space * MIB}",
            f"--fsize={limits.file_size * MIB}",
            f"--cpu={int(limits.seconds)}",
            "--core=0",
            "--",
        ]

    def _bubblewrap(self, environment: Mapping[str, str]) -> list[str]:
        argv = ["/bin/sh", "-c", _WITH_FILTER, str(self._filter), "bwrap", "--seccomp", "3"]
        argv += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
        argv += ["--unshare-cgroup-try", "--die-with-parent", "--new-session"]
        argv += ["--hostname", "sandbox", "--clearenv"]
        if self.owner is None:
            argv += ["--unshare-user", "--cap-drop", "ALL"]
        else:
            # Just what it takes to become somebody else.
            argv += ["--cap-drop", "ALL"]
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
        # After /tmp: what is to be seen may well be below the host's.
        for shown in self.readable:
            argv += [*_parents(shown), "--ro-bind", str(shown), str(shown)]
        argv += [*_parents(self.writable), "--bind", str(self.writable), str(self.writable)]
        # /dev is a tmpfs without a limit, and so is the root.
        argv += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"]
        known = {
            "PATH": f"{Path(sys.prefix) / 'bin'}:{_PATH}",
            "HOME": "/tmp",
            "LC_ALL": "C.UTF-8",
        }
        for key, value in {**known, **environment}.items():
            argv += ["--setenv", key, value]
        argv += ["--"]
        if self.owner is not None:
            argv += ["setpriv", f"--reuid={self.owner}", f"--regid={self.owner}"]
            argv += ["--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
            argv += ["--"]
        # Of several processes the one that takes the most memory is a bad choice if it is ours.
        argv += ["choom", "--adjust", "1000", "--"]
        # Not bubblewrap's --chdir: that is done before we are somebody else.
        return [*argv, "env", f"--chdir={self.writable}"]

    def probe(self) -> None:
        """See that the sandbox works here, by running something in it.

        :raises ToolMissing: bubblewrap is not installed.
        :raises InfraError: it does not work: user namespaces are off, most likely.
        """
        if self.trusted:
            return
        self.hand_over()
        for tool in ("bwrap", "prlimit", "choom", "setpriv"):
            if shutil.which(tool) is None:
                package = "bubblewrap" if tool == "bwrap" else "util-linux"
                raise ToolMissing(f"{tool} is not installed ({package}): no sandbox", hint=_HINT)
        few = replace(self, limits=replace(self.limits, processes=_PROBE_PROCESSES))
        # Devices tell nothing: some drivers put one of theirs into every new namespace.
        network = str(Path("/proc/self/ns/net").readlink())
        argv = few.argv(["sh", "-c", _PROBE, str(self.writable), network], {})
        try:
            done = run(argv, cwd=self.writable, timeout=_PROBE_LIMIT, check=False, watched=True)
        except CommandTimeout as error:
            raise InfraError("the sandbox does not come up", hint=_HINT) from error
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
        """Run something in the sandbox, and end it if it uses more than it may.

        :param environment: all variables there are, besides PATH, HOME and the locale.
        :param on_line: called with each line of its output, from another thread.
        :return: the finished process, whatever its exit status; nothing of it is left.
        :raises InfraError: it met one of the limits.
        """
        watch = Watch(
            self.writable,
            most_memory=self.limits.memory * MIB,
            most_disk=self.limits.disk * MIB,
            most_files=self.limits.files,
            # Those that bring it up count here, too.
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
                raise InfraError(
                    f"the series printed more than {self.limits.output} MiB"
                ) from error
            except CommandTimeout as error:
                limit = self.limits.seconds
                raise InfraError(
                    f"the series was not done after {limit:g} s and was ended",
                    hint="--limit SECONDS gives it more time",
                ) from error
        if watcher.reason:
            raise InfraError(f"the series was ended: {watcher.reason}", hint=str(_DATA))
        return done


def remove(folder: Path) -> None:
    """Remove what was written in a sandbox, however deep it is and whatever its modes.

    `shutil.rmtree` calls itself for each level, and there may be more than Python has room for.
    """
    for words in (("rm", "-rf"), ("chmod", "-R", "u+rwX"), ("rm", "-rf")):
        if folder.exists():
            run([*words, "--", folder], cwd=folder.parent, check=False, watched=True)


def _parents(path: Path) -> list[str]:
    """Return what makes the directories on the way to *path*.

    bubblewrap makes them by itself, but for us alone.
    """
    return [
        word
        for parent in reversed(path.parents[:-1])
        for word in ("--perms", "0755", "--dir", str(parent))
    ]


def python_paths() -> tuple[Path, ...]:
    """Return what our own interpreter and package need to be there."""
    package = Path(iommuq.__file__).resolve().parent
    wanted = [Path(sys.prefix), Path(sys.base_prefix), package]
    return tuple(dict.fromkeys(each for each in wanted if not each.is_relative_to("/usr")))
