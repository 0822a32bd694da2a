# SPDX-License-Identifier: GPL-2.0-only
"""What the attacks of tests/data/attacks aim at outside of the sandbox, and whether it is whole."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import attackrunner
from boxed import MARKER, become, give, place, run_boxed
from toy import snapshot

_DATA = Path(__file__).parents[1] / "data" / "attacks"
#: The namespaces that the sandbox shares with the host: an ordinary user's needs another one of
#: users, root's does not, and time is a matter of programs alone.
_SHARED = {"root": ["user", "time", "time_for_children"], "user": ["time", "time_for_children"]}
_NAMESPACES = ("net", "pid", "ipc", "uts", "mnt", "cgroup", "user", "time")
# Newer than the headers of Debian 12; the same number on each machine.
_NEWER = {"listmount": 458, "memfd_secret": 447}
_IPC_CREAT, _IPC_RMID = 0o1000, 0
# What the process outside is compared by.
_VICTIM = """
import fcntl, sys, time
file = open('lock', 'w')
fcntl.lockf(file, fcntl.LOCK_EX)
print('ready', flush=True)
time.sleep(600)
"""


@dataclass(frozen=True)
class Attack:
    """An attempt; tests/data/attacks/files.toml explains the fields."""

    id: str
    tries: str
    python: str
    ends: tuple[str, ...] = ("EACCES", "EPERM", "EROFS")
    control: str = ""
    machine: str = ""
    open: dict[str, str] = field(default_factory=dict)

    @property
    def here(self) -> bool:
        """Whether it can be tried on this machine."""
        return self.machine in ("", os.uname().machine)

    def controls(self, who: str) -> bool:
        """Tell whether it must succeed without a sandbox, as root or as a user."""
        return self.here and (self.control == "any" or self.control == who)


@dataclass(frozen=True)
class Outcome:
    """How an attack ended.

    :ivar escaped: what it reached; empty if nothing.
    :ivar crashed: a fault of its program.
    :ivar errnos: how the kernel refused.
    """

    id: str
    escaped: str
    crashed: str
    errnos: list[str]

    def unexpected(self, attack: Attack) -> list[str]:
        """Return the ends that the table does not have."""
        ends = self.errnos or ["nothing"]
        return [each for each in ends if each not in attack.ends]


@cache
def attacks() -> dict[str, Attack]:
    """Return the whole table."""
    found: dict[str, Attack] = {}
    for path in sorted(_DATA.glob("*.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["attack"]:
            made = Attack(**{**entry, "ends": tuple(entry.get("ends", Attack.ends))})
            assert made.id not in found, made.id
            found[made.id] = made
    return found


@cache
def _numbers() -> dict[str, int]:
    """Return the numbers of all system calls, from the machine's headers."""
    argv = ["gcc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null"]
    text = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    found = re.findall(r"^#define __NR_(\w+) (\d+)$", text, re.M)
    return {**_NEWER, **{name: int(number) for name, number in found}}


@dataclass
class Outside:
    """All that is outside.

    :ivar folder: has ``work``, the sandbox's own, and what it must not reach.
    :ivar targets: what the attacks know of it.
    :ivar arrived: what came to the servers.
    """

    who: str
    folder: Path
    targets: dict[str, Any]
    servers: list[socket.socket]
    victim: int
    before: dict[str, Any] = field(default_factory=dict)

    @property
    def work(self) -> Path:
        """The directory that the attacks may write."""
        return self.folder / "work"

    @property
    def checkout(self) -> Path:
        """A directory that they may read."""
        return self.folder / "checkout"

    def attempt(self, wanted: list[Attack], *, trusted: bool = False) -> dict[str, Outcome]:
        """Try attacks in one sandbox."""
        shutil.copyfile(attackrunner.__file__, self.work / "attackrunner.py")
        table = [{"id": each.id, "python": each.python} for each in wanted]
        request = {"numbers": _numbers(), "targets": self.targets, "attacks": table}
        (self.work / "attacks.json").write_text(json.dumps(request))
        give(self.who, self.work)
        done = run_boxed(
            self.who,
            self.work,
            ["/usr/bin/python3", "attackrunner.py"],
            limits={"seconds": 60.0},
            readable=[self.checkout],
            trusted=trusted,
            canary=self.targets["canary"],
        )
        assert not done.error, done.error
        found = [Outcome(**json.loads(line)) for line in done.output.splitlines()]
        assert len(found) == len(wanted), done.stderr
        return {each.id: each for each in found}

    def state(self) -> dict[str, Any]:
        """Return all that an attack may change outside."""
        there = Path(f"/proc/{self.victim}")
        mark = self.targets["mark"]
        folders = ("/", "/usr", "/usr/bin", "/usr/lib", "/etc", "/dev", "/tmp", "/dev/shm", "/run")
        settings = ("core_pattern", "modprobe", "hostname", "panic", "randomize_va_space")
        return {
            "files": {
                name: each
                for name, each in snapshot(self.folder).items()
                if not name.startswith("work")
            },
            "marks": [name for name in folders if (Path(name) / mark).exists()],
            "settings": [_text(f"/proc/sys/kernel/{name}") for name in settings],
            # Other tests, at the same time, mount file systems of their own.
            "mounts": [
                line
                for line in Path("/proc/self/mountinfo").read_text().splitlines()
                if "/dev/loop" not in line
            ],
            "alive": (there / "stat").read_text().rpartition(")")[2].split()[0] in "RSD",
            "nice": os.getpriority(os.PRIO_PROCESS, self.victim),
            "limits": (there / "limits").read_text(),
            "oom": (there / "oom_score_adj").read_text(),
        }

    def arrived(self) -> list[str]:
        """Return the servers that something came to."""
        found = []
        for server in self.servers:
            with contextlib.suppress(BlockingIOError):
                if server.type == socket.SOCK_DGRAM:
                    server.recv(100)
                else:
                    server.accept()[0].close()
                found.append(f"{server.family.name} {server.getsockname()}")
        return found


def _secrets(folder: Path, canary: str) -> None:
    """Write what the user has, and other reviews, and the cache."""
    names = ("home/.ssh/id_ed25519", "home/.netrc", "home/.config/b4/b4.conf", "home/.gitconfig")
    shown = ("other/secret", "cache/image", "state/results", "checkout/file", "checkout/other")
    for name in (*names, *shown, "work.seccomp"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text\n" if name.startswith("checkout") else canary)
        path.chmod(0o600 if name in names else 0o644)
    (folder / "home/.ssh").chmod(0o700)


def _servers(folder: Path, name: str) -> Iterator[socket.socket]:
    """Yield servers of every kind that the host may have; the first are TCP, UDP and TCP6."""
    yield socket.create_server(("127.0.0.1", 0))
    plug = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    plug.bind(("127.0.0.1", 0))
    yield plug
    with contextlib.suppress(OSError):
        yield socket.create_server(("::1", 0), family=socket.AF_INET6)
    for address in (f"\0{name}", str(folder / "service.sock"), f"/dev/shm/{name}.sock"):
        plug = socket.socket(socket.AF_UNIX)
        plug.bind(address)
        plug.listen()
        if not address.startswith("\0"):
            Path(address).chmod(0o777)
        yield plug


@contextlib.contextmanager
def _ipc(key: int, queue: str) -> Iterator[None]:
    """Make shared memory, a semaphore and queues, as those of the host."""
    libc = ctypes.CDLL(None, use_errno=True)
    memory = libc.shmget(key, 4096, _IPC_CREAT | 0o666)
    semaphore = libc.semget(key, 1, _IPC_CREAT | 0o666)
    messages = libc.msgget(key, _IPC_CREAT | 0o666)
    mq = libc.mq_open(queue.encode(), os.O_CREAT | os.O_RDWR, 0o666, None)
    assert min(memory, semaphore, messages) >= 0
    try:
        yield
    finally:
        libc.shmctl(memory, _IPC_RMID, None)
        libc.semctl(semaphore, 0, _IPC_RMID)
        libc.msgctl(messages, _IPC_RMID, None)
        if mq >= 0:
            os.close(mq)
            libc.mq_unlink(queue.encode())


@contextlib.contextmanager
def outside(who: str) -> Iterator[Outside]:
    """Yield the outside, with a sandbox's directory in it.

    :param who: ``root`` or ``user``, who starts the sandbox and owns all of it.
    """
    canary = f"secret-{secrets.token_hex(12)}"
    name = f"iommuq-test-{secrets.token_hex(8)}"
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(place(who))
        _secrets(folder, canary)
        servers = [stack.enter_context(each) for each in _servers(folder, name)]
        for server in servers:
            server.setblocking(False)
        sockets = [str(folder / "service.sock"), f"/dev/shm/{name}.sock"]
        shared = [Path("/dev/shm", name), Path("/tmp", name)]
        for path in shared:
            path.write_text(canary)
        for path in (*shared, Path(sockets[1])):
            stack.callback(path.unlink)
        give(who, folder, *shared)
        key = secrets.randbelow(1 << 30) + 1
        stack.enter_context(_ipc(key, f"/{name}"))
        victim = stack.enter_context(
            subprocess.Popen(
                [*become(who), sys.executable, "-P", "-c", _VICTIM, canary],
                cwd=folder / "home",
                env={**os.environ, "CANARY": canary},
                stdout=subprocess.PIPE,
            )
        )
        stack.callback(victim.kill)
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"ready\n"
        resolvers = re.findall(r"^nameserver ([\d.]+)$", _text("/etc/resolv.conf"), re.M)
        tcp, udp, *more = (server.getsockname() for server in servers)
        targets = {
            "canary": canary,
            "mark": f"{name}-escaped",
            "marker": MARKER,
            "host": socket.gethostname(),
            "work": str(folder / "work"),
            "secret": str(folder / "other/secret"),
            **{key: str(folder / key) for key in ("home", "cache", "state", "checkout", "other")},
            "realhome": os.path.expanduser("~" + os.environ.get("USER", "root")),  # noqa: PTH111
            "shared": name,
            "sockets": sockets,
            "abstract": name,
            "tcp": tcp[1],
            "udp": udp[1],
            "tcp6": more[0][1] if len(more) == 4 else tcp[1],
            "ipc": key,
            "queue": f"/{name}",
            "victim": victim.pid,
            "resolvers": resolvers,
            "namespaces": {each: os.readlink(f"/proc/self/ns/{each}") for each in _NAMESPACES},  # noqa: PTH115
            "shared_namespaces": _SHARED[who],
        }
        made = Outside(who, folder, targets, servers, victim.pid)
        made.before = made.state()
        yield made


def _text(name: str) -> str:
    with contextlib.suppress(OSError):
        return Path(name).read_text(encoding="utf-8")
    return ""
