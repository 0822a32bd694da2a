# SPDX-License-Identifier: GPL-2.0-only
"""Limits of a sandbox that the kernel enforces: calls, space, memory."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyseccomp
import pytest

from boxed import reason_not_to_mount
from iommuq.system.errors import InfraError, ToolMissing
from iommuq.system.run import Completed
from iommuq.system.sandbox import area, calls, reader, scope, watch
from iommuq.system.sandbox.box import Sandbox
from iommuq.system.sandbox.model import default_limits
from iommuq.system.temporary import remove
from toykernel import PATIENCE

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
SMALL = replace(default_limits(), disk=24, files=2000, memory=192, seconds=PATIENCE)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    made = Sandbox(tmp_path / "work", SMALL)
    with made.opened():
        yield made
    remove(made.writable)


def python(sandbox: Sandbox, program: str) -> Completed:
    sandbox.hand_over()
    return sandbox.run(["/usr/bin/python3", "-c", program], environment={})


# A program that makes system calls by number, and prints the name of each error.
_CALL = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *args):
    ctypes.set_errno(0)
    done = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, args))
    print(errno.errorcode[ctypes.get_errno()] if done == -1 else "done", flush=True)
"""


@pytest.mark.parametrize(
    "name",
    [
        "unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount",
        "fsopen", "fsmount", "mount_setattr", "open_by_handle_at", "name_to_handle_at", "keyctl",
        "add_key", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "kexec_load",
        "init_module", "finit_module", "personality", "modify_ldt", "memfd_create", "memfd_secret",
        "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "fanotify_init", "shmget",
        "msgget", "semget", "mq_open", "clone3", "swapon", "reboot", "settimeofday",
        "quotactl", "acct", "syslog", "process_madvise", "lookup_dcookie", "vhangup", "iopl",
    ],
)  # fmt: skip
def test_a_call_that_no_build_needs(name: str) -> None:
    assert name not in set(calls.names())


def test_calls_are_missing(sandbox: Sandbox) -> None:
    """Asked of the kernel, not of the list."""

    def number(name: str) -> int:
        return int(pyseccomp.resolve_syscall(pyseccomp.system_arch(), name))

    refused = ["personality", "memfd_create", "process_vm_readv", "fanotify_init", "shmget"]
    lines = [f"call({number(name)}, 0, 0, 0, 0)" for name in refused]
    # PTRACE_ATTACH and PTRACE_SEIZE to its parent; AF_VSOCK, AF_PACKET, AF_KEY.
    lines += [f"call({number('ptrace')}, {request}, 1, 0, 0)" for request in (16, 0x4206)]
    lines += [f"call({number('socket')}, {family}, 2, 0)" for family in (40, 17, 15)]
    lines += [f"call({number('clone')}, {flags}, 0, 0, 0, 0)" for flags in (0x10000011, 0x20011)]
    allowed = [f"call({number('socket')}, {family}, 2, 0)" for family in (1, 2, 10, 16)]
    done = python(sandbox, "\n".join([_CALL, *lines, *allowed]))
    assert done.output.split() == ["ENOSYS"] * len(lines) + ["done"] * len(allowed), done


def test_names_of_calls_are_no_slips() -> None:
    """libseccomp knows each, or is older than the call."""
    newer = {"cachestat", "fchmodat2", "futex_requeue", "futex_wait", "futex_wake"}
    for name in calls.names():
        with contextlib.suppress(ValueError):
            pyseccomp.resolve_syscall(pyseccomp.Arch.X86_64, name)
            continue
        assert name in newer, name
    names = list(calls.names())
    assert len(names) == len(set(names))


def test_without_libseccomp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    calls.program.cache_clear()
    with pytest.raises(ToolMissing, match="no filter of system calls"):
        calls.program(guests=True)
    calls.program.cache_clear()


def test_it_cannot_spare_itself(sandbox: Sandbox) -> None:
    """The OOM killer takes it first, also when it would rather not be."""
    program = """
for place in ("/proc/self/oom_score_adj", "/proc/1/oom_score_adj"):
    try:
        open(place, "w").write("-500")
    except OSError as error:
        print(error.strerror)
print(open("/proc/self/oom_score_adj").read())
"""
    assert python(sandbox, program).output.split("\n")[2] == "1000"


def test_space_has_a_fixed_size(sandbox: Sandbox) -> None:
    if reason := reason_not_to_mount():
        pytest.skip(reason)
    program = """
import os, shutil
print(shutil.disk_usage(".").total >> 20)
try:
    with open("f", "wb") as file:
        while True: file.write(bytes(1 << 20))
except OSError as error: print(error.strerror)
os.unlink("f")
try:
    for number in range(3000): open(f"e{number}", "w")
except OSError as error: print(number > 1500, error.strerror)
"""
    said = python(sandbox, program).output.splitlines()
    assert int(said[0]) <= 24
    assert said[1:] == ["No space left on device", "True No space left on device"]
    image = sandbox.writable.with_name("work.image")
    assert image.stat().st_blocks * 512 < 32 << 20


def test_a_file_system_of_a_killed_process(tmp_path: Path) -> None:
    """Its mount stays behind, and goes with the directory."""
    if reason := reason_not_to_mount():
        pytest.skip(reason)
    made = Sandbox(tmp_path / "work", SMALL)
    code = (
        "import os, sys; from pathlib import Path; from dataclasses import replace;"
        "from iommuq.system.sandbox.box import *; from iommuq.system.sandbox.model import *;"
        "box = Sandbox(Path(sys.argv[1]), replace(default_limits(), disk=24, files=2000))\n"
        "with box.opened(): os.kill(os.getpid(), 9)"
    )
    tools = str(Path(area.__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": tools}
    done = subprocess.run([sys.executable, "-c", code, made.writable], env=environment, check=False)
    assert done.returncode == -9
    assert made.writable.is_mount()
    remove(made.writable)
    assert not made.writable.exists()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["work.image", "work.seccomp", "work.seccomp.args"]


def test_where_nothing_can_be_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a user, and in most containers: the directory is watched instead."""
    monkeypatch.setattr(area, "_MOUNT", ("false",))
    made = Sandbox(tmp_path / "work", SMALL)
    with made.opened():
        assert not made.writable.is_mount()
        assert not made.writable.with_name("work.image").exists()
        with pytest.raises(InfraError, match="wrote more than 24 MiB"):
            python(made, "open('f', 'wb').write(bytes(99 << 20)); import time; time.sleep(600)")
    remove(made.writable)


def test_a_wide_directory_keeps_no_one_from_looking(tmp_path: Path) -> None:
    """Files are counted up to the limit, beside the memory."""
    for number in range(500):
        (tmp_path / str(number)).write_text("x")
    assert weighed(tmp_path, files=100) == 101
    assert weighed(tmp_path, most=40960) < 20
    over = threading.Event()
    over.set()
    assert watch.weigh(tmp_path, over=over)[1] == 1


def weighed(folder: Path, most: int = 1 << 40, files: int = 1 << 40) -> int:
    return watch.weigh(folder, most, files)[1]


def test_shared_memory_counts(sandbox: Sandbox) -> None:
    program = """
import mmap, time
shared = mmap.mmap(-1, 300 << 20)
for at in range(0, 300 << 20, 4096): shared[at] = 1
time.sleep(600)
"""
    with pytest.raises(InfraError, match=r"more than 192 MiB of memory|control group"):
        python(sandbox, program)


def tree(folder: Path, control: str) -> Path:
    (folder / "a" / "b").mkdir(parents=True)
    for place in (folder, folder / "a", folder / "a" / "b"):
        (place / "cgroup.subtree_control").write_text("")
        (place / "cgroup.procs").write_text("")
    (folder / "a" / "cgroup.subtree_control").write_text(control)
    return folder / "a" / "b"


def test_group_below_a_delegated_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On files that look like a hierarchy: which group is chosen, and what is written to it."""
    monkeypatch.setattr(scope, "_group", lambda _text: tree(tmp_path, "cpu io memory pids"))
    monkeypatch.setattr(scope, "_BY_SYSTEMD", ("false",))
    # Directories of the real thing can be removed while they have files.
    monkeypatch.setattr(scope, "_end", shutil.rmtree)
    scope.kind.cache_clear()
    assert scope.kind() == str(tmp_path / "a")
    with scope.entered(SMALL) as group:
        assert group.folder is not None
        assert (group.folder / "memory.max").read_text() == f"{192 + 512 + 4096}M"
        assert (group.folder / "pids.max").read_text() == "528"
        done = subprocess.run([*group.words, "true"], check=True, timeout=PATIENCE)
        assert (group.folder / "cgroup.procs").read_text().strip().isdigit()
        assert done.returncode == 0
        assert group.reason() == ""
        (group.folder / "memory.events").write_text("low 0\noom 1\noom_kill 3\n")
        assert "all the memory" in group.reason()
        kept = group.folder
    assert not kept.exists()
    scope.kind.cache_clear()


def test_no_group_without_its_controllers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scope, "_group", lambda _text: tree(tmp_path, "cpu pids"))
    monkeypatch.setattr(scope, "_BY_SYSTEMD", ("false",))
    scope.kind.cache_clear()
    assert scope.kind() == ""
    with scope.entered(SMALL) as group:
        assert group == scope.Scope()
    scope.kind.cache_clear()


@pytest.mark.skipif(not scope.kind(), reason="no control group of version 2 can be made here")
def test_group_that_the_kernel_limits(sandbox: Sandbox) -> None:
    """Buffers of sockets are memory of no process."""
    program = """
import os, socket
kept = []
while True:
    pair = socket.socketpair()
    pair[0].setblocking(False)
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    try:
        while True: pair[0].send(bytes(1 << 16))
    except BlockingIOError: kept.append(pair)
    if len(kept) == 400: kept.clear() if os.fork() else os.pause()
"""
    with pytest.raises(InfraError, match=r"control group|machine's memory"):
        python(sandbox, program)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "read"
    made.mkdir()
    return made


def test_a_reader_sees_what_it_reads(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, given = tmp_path / "secret", tmp_path / "given"
    secret.write_text("the key")
    given.write_text("the data")
    monkeypatch.setenv("TOKEN", "the token")
    script = f"cat {given} {secret}; echo x >out; echo x >{given}; env; cat /proc/[0-9]*/environ"
    done = reader.read(["sh", "-c", script], cwd=folder, readable=[given], check=False)
    assert reader.missing() == ""
    assert "the data" in done.output
    assert "the key" not in done.output
    assert "the token" not in done.output
    assert (folder / "out").read_text() == "x\n"
    assert given.read_text() == "the data"
    words = ["sh", "-c", "readlink /proc/self/ns/net"]
    net = reader.read(words, cwd=folder).output.strip()
    assert net != str(Path("/proc/self/ns/net").readlink())
    assert reader.read(words, cwd=folder, network=True).output.strip() == str(
        Path("/proc/self/ns/net").readlink()
    )


def test_a_reader_has_limits(folder: Path) -> None:
    done = reader.read(
        [sys.executable, "-c", "x = bytes(3 << 30)"],
        cwd=folder,
        readable=[Path(sys.prefix), Path(sys.base_prefix)],
        check=False,
    )
    assert re.search(r"^MemoryError$", done.stderr, re.M)


def test_a_reader_without_a_sandbox(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits stay."""
    monkeypatch.setattr(reader, "missing", lambda: "no bubblewrap")
    done = reader.read(["sh", "-c", "ulimit -v; cat /proc/1/cmdline >/dev/null"], cwd=folder)
    assert done.output.strip() == str(1 << 20)


def test_what_cannot_be_watched_is_ended(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when we have no descriptor left."""

    def usage(_pid: int) -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(watch, "usage", usage)
    with pytest.raises(InfraError, match=r"cannot be watched: .* Too many open files"):
        python(sandbox, "import time; time.sleep(600)")
