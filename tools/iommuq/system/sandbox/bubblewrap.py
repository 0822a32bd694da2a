# SPDX-License-Identifier: GPL-2.0-only
"""The command line of bubblewrap: what the processes in a sandbox see and may do."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import iommuq
from iommuq.system.groups import MARK
from iommuq.system.sandbox.model import MIB, document

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# bubblewrap reads the filter from a descriptor, and run() passes none on.  Its own environment
# can be read in the sandbox: it has nothing but what finds it again.  The OOM killer chooses
# these processes first; root's score cannot be lowered again by a process without rights, and
# others cannot write to /proc.
_START = (
    f'echo 1000 >/proc/self/oom_score_adj 2>/dev/null; exec env -i {MARK}="${MARK}" "$@" 3<"$0"'
)


@dataclass(frozen=True)
class View:
    """What a sandbox shows and allows.

    :ivar writable: directories that can be written, with the same paths inside.
    :ivar readable: what can be read besides the host's programs, with the same paths inside.
    :ivar tmp: MiB of ``/tmp``.
    :ivar shm: MiB of ``/dev/shm``.
    :ivar network: the host's network, and what is needed to use it.
    :ivar kvm: the device of KVM.
    :ivar owner: the user of the processes, if we are root; None for our own.
    """

    writable: tuple[Path, ...]
    readable: tuple[Path, ...] = ()
    tmp: int = 64
    shm: int = 64
    network: bool = False
    kvm: bool = False
    owner: int | None = None

    def argv(self, words: Sequence[str], environment: Mapping[str, str], calls: Path) -> list[str]:
        """Return the command that runs *words*, in the first of the writable directories.

        :param environment: all variables, besides PATH, HOME and the locale.
        :param calls: the file with the filter of system calls.
        """
        program = shutil.which("bwrap") or "bwrap"
        argv = ["/bin/sh", "-c", _START, str(calls), program, "--seccomp", "3"]
        argv += ["--unshare-ipc", "--unshare-pid", "--unshare-uts"]
        argv += [] if self.network else ["--unshare-net"]
        argv += ["--unshare-cgroup-try", "--die-with-parent", "--new-session"]
        argv += ["--hostname", "sandbox", "--clearenv", "--cap-drop", "ALL"]
        if self.owner is None:
            argv += ["--unshare-user"]
        else:
            # For setpriv below.
            for name in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
                argv += ["--cap-add", name]
        argv += self._mounts()
        path = f"{Path(sys.prefix) / 'bin'}:{_PATH}"
        known = {"PATH": path, "HOME": "/tmp", "LC_ALL": "C.UTF-8"}
        for key, value in {**known, **environment}.items():
            argv += ["--setenv", key, value]
        argv += ["--"]
        if self.owner is not None:
            argv += ["setpriv", f"--reuid={self.owner}", f"--regid={self.owner}"]
            argv += ["--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
            argv += ["--"]
        # bubblewrap's --chdir would run as the wrong user.
        return [*argv, "env", f"--chdir={self.writable[0]}", *words]

    def _mounts(self) -> list[str]:
        shared = document()
        argv: list[str] = []
        for name in (*shared.readable, *(shared.network if self.network else ())):
            argv += [*_parents(Path(name)), "--ro-bind-try", name, name]
        for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
            if Path(name).is_symlink():
                argv += ["--symlink", str(Path(name).readlink()), name]
            else:
                argv += ["--ro-bind-try", name, name]
        argv += ["--proc", "/proc", "--dev", "/dev"]
        for place in ("/proc/keys", "/proc/key-users"):
            argv += ["--ro-bind-try", "/dev/null", place] if Path(place).exists() else []
        argv += ["--dev-bind-try", "/dev/kvm", "/dev/kvm"] if self.kvm else []
        for place, size in (("/dev/shm", self.shm), ("/tmp", self.tmp)):
            argv += ["--size", str(size * MIB), "--perms", "1777", "--tmpfs", place]
        # After /tmp, since it may be below it.
        for shown in self.readable:
            argv += [*_parents(shown), "--ro-bind", str(shown), str(shown)]
        for place in map(str, self.writable):
            argv += [*_parents(Path(place)), "--bind", place, place]
        # Two are a tmpfs without a limit; by the third a process could spare itself.
        for place in ("/dev", "/", "/proc"):
            argv += ["--remount-ro", place]
        return [*argv, "--chdir", "/"]


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
