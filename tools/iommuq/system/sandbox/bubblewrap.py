# SPDX-License-Identifier: GPL-2.0-only
"""The command line of bubblewrap: what the processes in a sandbox see and may do."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import iommuq
from iommuq.system.errors import InfraError
from iommuq.system.groups import BOX
from iommuq.system.sandbox import calls
from iommuq.system.sandbox.model import MIB, document

_KVM = Path("/dev/kvm")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


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

    def argv(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        place: Path,
        *,
        guests: bool = False,
    ) -> list[str]:
        """Return the command that runs *words*, in the first of the writable directories.

        :param environment: all variables, besides PATH, HOME and the locale.
        :param place: gets the filter of system calls; the options get into a file beside it.
        :param guests: processes may trace their children, as User-mode Linux does.
        """
        options = ["--seccomp", "3", "--unshare-ipc", "--unshare-pid", "--unshare-uts"]
        options += [] if self.network else ["--unshare-net"]
        options += ["--unshare-cgroup-try", "--die-with-parent", "--new-session"]
        options += ["--hostname", "sandbox", "--clearenv", "--cap-drop", "ALL"]
        if self.owner is None:
            options += ["--unshare-user"]
        else:
            # For setpriv below.
            for name in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
                options += ["--cap-add", name]
        options += self._mounts()
        path = f"{Path(sys.prefix) / 'bin'}:{_PATH}"
        known = {"PATH": path, "HOME": "/tmp", "LC_ALL": "C.UTF-8"}
        for key, value in {**known, **environment}.items():
            options += ["--setenv", key, value]
        place.write_bytes(calls.program(guests=guests))
        beside = place.with_name(f"{place.name}.args")
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(b"".join(os.fsencode(word) + b"\0" for word in options))
        argv = ["/bin/sh", "-c", BOX, str(place), shutil.which("bwrap") or "bwrap"]
        argv += ["--args", "4", "--"]
        if self.owner is not None:
            argv += ["setpriv", f"--reuid={self.owner}", f"--regid={self.owner}"]
            with_kvm = self.kvm and _KVM.exists()
            argv += [f"--groups={_KVM.stat().st_gid}" if with_kvm else "--clear-groups"]
            argv += ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--"]
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
        argv += ["--dev-bind-try", str(_KVM), str(_KVM)] if self.kvm else []
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


def give(folder: Path, owner: int, hint: str = "") -> None:
    """Give a directory and all in it to a user; links are not followed.

    :raises InfraError: there is no such user, as in a user namespace.
    """
    for where, folders, names in os.walk(folder):
        for path in (where, *(os.path.join(where, each) for each in (*folders, *names))):  # noqa: PTH118
            try:
                os.chown(path, owner, owner, follow_symlinks=False)
            except OSError as error:
                why = f"no user {owner}: {error.strerror}"
                raise InfraError(f"no sandbox can be made here: {why}", hint=hint) from error


def python_paths() -> tuple[Path, ...]:
    """Return the paths that our interpreter and package need."""
    package = Path(iommuq.__file__).resolve().parent
    wanted = [Path(sys.prefix), Path(sys.base_prefix), package]
    return tuple(dict.fromkeys(each for each in wanted if not each.is_relative_to("/usr")))
