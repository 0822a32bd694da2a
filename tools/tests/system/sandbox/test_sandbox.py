# SPDX-License-Identifier: GPL-2.0-only
"""Tests of iommuq.system.sandbox.box: what a hostile Makefile can do in it."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import iommuq
from iommuq.system.errors import InfraError, ToolMissing
from iommuq.system.run import Completed, run
from iommuq.system.sandbox import box as sandboxes
from iommuq.system.sandbox import bubblewrap
from iommuq.system.sandbox.box import Sandbox
from iommuq.system.sandbox.model import Limits, default_limits
from iommuq.system.sandbox.watch import usage, weigh
from iommuq.system.temporary import remove
from toykernel import PATIENCE, wait_for

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")

#: Small enough to be met in a moment, large enough for make and a shell.
SMALL = Limits(
    processes=48,
    memory=192,
    address_space=2048,
    file_size=64,
    disk=24,
    files=2000,
    tmp=8,
    shm=8,
    output=1,
    lines=100_000,
    seconds=PATIENCE,
)
#: What is in the environment of all that these tests start.
MARKER = "SANDBOX_TEST_MARKER"


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """Return a sandbox with a directory to write to, and small limits."""
    work = tmp_path / "work"
    work.mkdir()
    yield Sandbox(work, SMALL, noun="the toy", hint="do it otherwise")
    # Not all of it could pytest remove.
    remove(work)


def make(sandbox: Sandbox, recipe: str, **environment: str) -> Completed:
    """Run make on a Makefile with one recipe, a line of shell."""
    (sandbox.writable / "recipe").write_text(recipe)
    (sandbox.writable / "Makefile").write_text("all:\n\t@bash recipe\n")
    sandbox.hand_over()
    marked = {MARKER: str(sandbox.writable), **environment}
    return sandbox.run(["make"], environment=marked)


def leftovers(sandbox: Sandbox) -> list[str]:
    """Return the command lines of processes of a sandbox that are still there."""
    marker = f"{MARKER}={sandbox.writable}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if marker in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_bytes().decode(errors="replace"))
    return [each for each in found if each]


def test_it_works_here(sandbox: Sandbox) -> None:
    sandbox.hand_over()
    sandbox.probe()
    done = make(sandbox, "echo fine; gcc --version | head -1; perl -e 'use strict; use POSIX;'")
    assert done.returncode == 0, done
    assert done.output.startswith("fine\ngcc")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Return a socket on loopback that somebody may call."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def test_it_cannot_call_home(sandbox: Sandbox, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    call = f"echo secret > /dev/tcp/127.0.0.1/{port} && echo called || echo nobody answers"
    # Outside of it the same line reaches the listener.
    subprocess.run(["bash", "-c", call], check=True, timeout=PATIENCE)
    listener.accept()[0].close()
    done = make(sandbox, call)
    assert "nobody answers" in done.output
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_it_cannot_call_by_a_path(sandbox: Sandbox, tmp_path: Path) -> None:
    """A socket in the file system, as a container service or a desktop has one."""
    path = tmp_path / "service.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.setblocking(False)
        program = f"import socket; socket.socket(socket.AF_UNIX).connect({str(path)!r})"
        done = make(sandbox, f'python3 -c "{program}" || echo no such thing')
        assert "no such thing" in done.output
        with pytest.raises(BlockingIOError):
            server.accept()


def test_it_sees_no_home_and_no_secret(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "id_ed25519").write_text("the key")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("IOMMUQ_TEST_TOKEN", "the token")
    done = make(
        sandbox,
        f"cat {home}/id_ed25519 ~/id_ed25519 /etc/shadow /etc/passwd; env; ls {tmp_path} / /run",
    )
    said = done.output + done.stderr
    assert "the key" not in said
    assert "the token" not in said
    assert "root:" not in said
    assert "HOME=/tmp" in said


def test_it_writes_nowhere_else(sandbox: Sandbox, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("whole")
    package = Path(sandboxes.__file__).parent
    shown = replace(sandbox, readable=(package,))
    recipe = f"""
for place in {victim} {package}/evil.py /usr/bin/evil /etc/evil /evil /dev/evil \
        /proc/sys/kernel/core_pattern; do
    (echo evil > $place) 2>/dev/null && echo "wrote $place"
done
ln -s {victim} link && echo evil > link
echo mine > mine && cat mine
"""
    done = make(shown, recipe)
    assert "wrote" not in done.output.replace(f"wrote {victim}", "")
    assert "mine" in done.output
    assert victim.read_text() == "whole"
    assert not (package / "evil.py").exists()


def test_it_is_somebody_without_rights(sandbox: Sandbox) -> None:
    recipe = "grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status; ls /dev/kvm"
    done = make(sandbox, f"{recipe}; echo first to go: $(cat /proc/self/oom_score_adj)")
    assert "CapEff:\t0000000000000000" in done.output
    assert "first to go: 1000" in done.output
    assert "NoNewPrivs:\t1" in done.output
    assert "cannot access '/dev/kvm'" in done.output + done.stderr


def test_it_makes_no_namespaces(sandbox: Sandbox) -> None:
    """In one of its own it would be root, with all of the kernel's mounting to try."""
    recipe = """
unshare --user true && echo a user namespace
unshare --user --mount --map-root-user mount -t tmpfs x /tmp && echo mounted
python3 -c 'import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for flags in (0x10000000 | 17, 0x10020000 | 17):
    if libc.syscall(56, flags, 0, 0, 0, 0) == 0: os._exit(0)
    print(os.strerror(ctypes.get_errno()))
print(libc.syscall(435, 0, 0), os.strerror(ctypes.get_errno()))
import threading; threads = [threading.Thread(target=print) for _ in range(3)]
for each in threads: each.start()'
"""
    done = make(sandbox, recipe)
    assert "a user namespace" not in done.output
    assert "mounted" not in done.output
    if platform.machine() == "x86_64":
        assert done.output.count("Function not implemented") == 3


def test_forks_without_end(sandbox: Sandbox) -> None:
    """It meets the limit, and nothing of it is left."""
    # bash itself would wait and try again for 15 seconds.
    done = make(sandbox, "sh -c 'while :; do sleep 600 & done'")
    assert done.returncode != 0
    assert "fork" in done.stderr
    assert leftovers(sandbox) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's reviews have users of their own")
def test_reviews_at_the_same_time_share_no_user(sandbox: Sandbox) -> None:
    """The limit of processes is one of a user: of another's review it must not be used up."""
    code = (
        "import sys; from pathlib import Path; from iommuq.system.sandbox.box import *;"
        "from iommuq.system.sandbox.model import default_limits;"
        "print(Sandbox(Path(sys.argv[1]), default_limits()).owner)"
    )
    other = run([sys.executable, "-c", code, str(sandbox.writable)], cwd=Path("/"))
    assert int(other.output) != sandbox.owner


def test_root_of_a_name_space_without_other_users(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(Sandbox, "owner", 0x70000001)
    monkeypatch.setattr(os, "chown", refused)
    with pytest.raises(InfraError, match="no sandbox can be made here: no user") as caught:
        sandbox.probe()
    assert caught.value.hint == "do it otherwise"


def test_daemons_do_not_outlive_it(sandbox: Sandbox) -> None:
    done = make(sandbox, "setsid nohup sleep 600 >/dev/null 2>&1 & echo gone")
    assert done.output == "gone\n"
    assert leftovers(sandbox) == []


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ("i=0; while :; do head -c 4M /dev/zero > f$i; i=$((i+1)); done", "more than 24 MiB"),
        (
            "i=0; while [ $i -lt 9000 ]; do : > e$i; i=$((i+1)); done; sleep 600",
            "more than 2000 files",
        ),
        (
            # Where a path cannot say it any more.
            """python3 -c 'import os, time
for _ in range(1900): os.mkdir("deep"); os.chdir("deep")
open("f", "wb").write(bytes(16 << 20)); time.sleep(600)'""",
            "unreadable directory: File name too long",
        ),
        ("yes", "printed more than 1 MiB or"),
        ("head -c 99M /dev/zero", "printed more than 1 MiB or"),
        ("yes '' | head -150000", "or 100,000 lines"),
        (
            'for i in 1 2 3 4; do python3 -c \'x = b"1" * (90 << 20); import time;'
            " time.sleep(600)' & done; wait",
            "more than 192 MiB of memory",
        ),
    ],
)
def test_what_is_used_together_is_limited(sandbox: Sandbox, recipe: str, reason: str) -> None:
    with pytest.raises(InfraError, match=reason):
        make(sandbox, recipe)
    assert leftovers(sandbox) == []


def test_limits_of_one_file_and_of_memory_files(sandbox: Sandbox) -> None:
    recipe = "head -c 16M /dev/zero > /tmp/x; head -c 16M /dev/zero > /dev/shm/x; du -sm /tmp"
    done = make(sandbox, recipe)
    assert done.stderr.count("No space left on device") == 2
    one = replace(sandbox, limits=replace(SMALL, file_size=2, disk=999))
    done = make(one, "head -c 4M /dev/zero > x; echo $?; stat -c %s x")
    assert done.output.split()[-1] == str(2 << 20)


def test_time_is_limited(sandbox: Sandbox) -> None:
    short = replace(sandbox, limits=replace(SMALL, seconds=2.0))
    with pytest.raises(InfraError, match="the toy was stopped: not done after 2 s"):
        make(short, "sleep 600")
    assert leftovers(sandbox) == []


_TOOL = """
import sys
from dataclasses import replace
from pathlib import Path
from iommuq.system.sandbox.box import Sandbox
from iommuq.system.sandbox.model import default_limits
box = Sandbox(Path(sys.argv[1]), default_limits())
box.hand_over()
words = ["sh", "-c", "setsid sleep 600 & touch started; sleep 600"]
box.run(words, environment={sys.argv[2]: sys.argv[1]})
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_the_tool(sandbox: Sandbox, number: signal.Signals) -> None:
    """Ctrl-C, and SIGKILL, which nobody can do anything about."""
    argv = [sys.executable, "-c", _TOOL, str(sandbox.writable), MARKER]
    package = str(Path(iommuq.__file__).parents[1])
    with subprocess.Popen(
        argv, env={**os.environ, "PYTHONPATH": package}, stderr=subprocess.DEVNULL
    ) as tool:
        wait_for(lambda: (sandbox.writable / "started").exists() or tool.poll() is not None)
        assert leftovers(sandbox)
        tool.send_signal(number)
        tool.wait(PATIENCE)
    wait_for(lambda: not leftovers(sandbox))


def test_without_bubblewrap(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(ToolMissing, match="bwrap is not installed") as caught:
        sandbox.probe()
    assert caught.value.hint == "do it otherwise"
    replace(sandbox, trusted=True).probe()


def test_that_does_not_work(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where user namespaces are off: what bwrap says is told."""
    shim = tmp_path / "bin"
    shim.mkdir()
    (shim / "bwrap").write_text("#!/bin/sh\necho bwrap: No permissions to create it >&2; exit 1\n")
    (shim / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim}:{os.environ['PATH']}")
    with pytest.raises(InfraError, match="no sandbox can be made here: bwrap: No permissions"):
        sandbox.probe()


#: A user without rights, whom root can become to see what an ordinary user's sandbox does.
USER = "12345"


@pytest.fixture
def reachable() -> Iterator[Sandbox]:
    """Return a sandbox that an ordinary user can reach, as pytest's own directories are not."""
    with tempfile.TemporaryDirectory(prefix="iommuq-test-") as name:
        Path(name).chmod(0o755)
        (Path(name) / "work").mkdir()
        yield Sandbox(Path(name) / "work", SMALL)
        remove(Path(name) / "work")


def as_user(argv: list[str], sandbox: Sandbox, **environment: str) -> Completed:
    """Run the start of a sandbox as an ordinary user would."""
    for path in (sandbox.writable, *sandbox.writable.parent.glob("work.seccomp*")):
        os.chown(path, int(USER), int(USER))
    become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    words = [*become, *argv] if os.geteuid() == 0 else argv
    return run(words, cwd=Path("/"), env=environment, check=False, timeout=PATIENCE)


@pytest.mark.parametrize("who", ["root", "user"])
def test_nothing_of_the_environment_goes_in(
    reachable: Sandbox, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """Not into the process, and not into what can be read of bubblewrap's own."""
    sandbox = reachable
    if who == "user":
        monkeypatch.setattr(Sandbox, "owner", None)
    sandbox.hand_over()
    script = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; env; echo seen"
    argv = sandbox.argv(["sh", "-c", script], {"GIVEN": "yes"})
    secret = "token-of-the-reviewer"
    if who == "user":
        done = as_user(argv, sandbox, GITHUB_TOKEN=secret)
    else:
        done = run(argv, cwd=sandbox.writable, env={"GITHUB_TOKEN": secret}, check=False)
    assert done.output.endswith("seen\n"), done
    assert "GIVEN=yes" in done.output
    assert secret not in done.output


def test_a_sandbox_that_shows_the_environment_is_none(
    reachable: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_ordinary(argv: list[str], **options: Any) -> Completed:
        return as_user(argv, reachable, **options["env"])

    with monkeypatch.context() as patch:
        patch.setattr(bubblewrap, "BOX", 'exec "$@" 3<"$0" 4<"$0.args"')
        if os.geteuid() == 0:
            reachable.probe()  # Another user is inside, who may not read it.
            patch.setattr(Sandbox, "owner", None)
            patch.setattr(sandboxes, "run", as_ordinary)
        with pytest.raises(InfraError, match="the environment outside can be read"):
            reachable.probe()


@pytest.mark.parametrize("broken", ["network", "processes", "filter", "nothing"])
def test_that_does_not_contain(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """A sandbox that lets something through is none, whatever its exit status."""
    real = shutil.which("bwrap")
    shim = tmp_path / "bin"
    shim.mkdir()
    dropped = {"network": ["--unshare-net"], "processes": ["--nproc=24"], "nothing": []}
    drop = {**dropped, "filter": ["--seccomp", "3"]}[broken]
    text = f"""#!{sys.executable}
import os, sys
drop = {drop!r}
options = [each for each in open(4, closefd=False).read().split("\\0")[:-1] if each not in drop]
reader, writer = os.pipe()
os.write(writer, "".join(each + "\\0" for each in options).encode())
os.close(writer)
os.dup2(reader, 4)
words = [each for each in sys.argv[1:] if each not in drop]
os.execv({real!r}, [{real!r}, *words])
"""
    (shim / "bwrap").write_text(text)
    (shim / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim}:{os.environ['PATH']}")
    sandbox.hand_over()
    if broken == "nothing":
        sandbox.probe()
        return
    with pytest.raises(InfraError, match=r"network is reachable|not limited|namespaces"):
        sandbox.probe()


def test_trusted_runs_as_it_is(sandbox: Sandbox) -> None:
    """--trust: no sandbox, but no disk filled by accident either."""
    trusted = replace(sandbox, trusted=True)
    done = make(trusted, "id -u; pwd")
    assert done.output.split() == [str(os.geteuid()), str(sandbox.writable)]
    with pytest.raises(InfraError, match="printed more than"):
        make(trusted, "yes")


def test_what_it_wrote_can_be_removed(tmp_path: Path) -> None:
    """Directories deeper than a path can say, such as nobody may read, and no link's target."""
    kept = tmp_path / "kept"
    kept.mkdir()
    work = tmp_path / "work"
    work.mkdir()
    (work / "link").symlink_to(kept)
    deep = "import os\nfor _ in range(1900): os.mkdir('deep'); os.chdir('deep')"
    subprocess.run([sys.executable, "-c", deep], check=True, cwd=work)
    (work / "shut" / "in").mkdir(parents=True)
    (work / "shut" / "in").chmod(0o311)
    (work / "shut").chmod(0)
    remove(work)
    assert not work.exists()
    assert kept.exists()
    remove(work)


def test_default_limits_are_enough_for_a_kernel() -> None:
    limits = default_limits()
    assert limits.disk >= 6000
    assert limits.files >= 200_000
    assert limits.address_space >= 4096


def test_usage_and_weight(tmp_path: Path) -> None:
    memory, processes = usage(os.getpid())
    assert memory > 1 << 20
    assert processes >= 1
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(1 << 20))
    (tmp_path / "link").symlink_to("/usr")
    size, count = weigh(tmp_path)
    assert 1 << 20 <= size < 2 << 20
    assert count == 3
