# SPDX-License-Identifier: GPL-2.0-only
"""Tests of `iommuq.system.run`: whatever was started is ended, however it comes to that."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iommuq.system import groups
from iommuq.system import run as runner
from iommuq.system.errors import (
    CommandFailed,
    CommandTimeout,
    DiskFull,
    InfraError,
    ToolMissing,
    TooMuchOutput,
)

# A leader with a child, which both hold the output open.
STAY = "trap '{trap}' TERM; sleep 600 & echo $$ > pid; wait; while :; do sleep 1; done"

CHILD = """
import sys
from pathlib import Path
from typing import Any
from iommuq.system.run import run
run(["sh", "-c", sys.argv[1]], cwd=Path.cwd(), watched=False)
"""


def is_gone(group: int) -> bool:
    """Tell whether no process of a group is left, but for those nobody has waited for yet."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # After the name, which may hold anything: state, parent, group.
            state, _, pgrp, *_ = path.read_text().rpartition(")")[2].split()
            if int(pgrp) == group and state not in "ZX":
                return False
    return True


def wait_gone(group: int) -> None:
    deadline = time.monotonic() + 10
    while not is_gone(group):
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.01)


@pytest.mark.parametrize("trap", ["exit", ""])
def test_interrupted(tmp_path: Path, trap: str) -> None:
    words = [sys.executable, "-c", CHILD, STAY.format(trap=trap)]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE) as child:
        pid = tmp_path / "pid"
        while not (pid.exists() and pid.read_text().endswith("\n")):
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        if not trap:
            # It does not listen, and whoever asks twice does not want to wait.  (Python
            # itself waits for 0.25 s after the first time.)
            time.sleep(0.6)
            child.send_signal(signal.SIGINT)
        child.communicate()
    wait_gone(int(pid.read_text()))


def test_the_watchdog_ends_what_an_error_left() -> None:
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)

    def fail() -> None:
        with groups.watchdog() as guard:
            guard.tell(process.pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert process.wait(10) == -signal.SIGKILL


#: Is killed after the start of a process that it has not reported yet, and that starts others.
KILLED_EARLY = """
import os, signal, time
from pathlib import Path
from iommuq.system import groups, run

def killed(_):
    while not Path("pid").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

guard = groups.Guard
groups.Guard = lambda tell, mark: guard(killed, mark)
script = "echo $$ > new; mv new pid; while :; do setsid sleep 600 & sleep 0.002; done"
run.run(["sh", "-c", script], cwd=Path(), watched=True)
"""

#: Starts processes until it is killed.
KILLED = """
from pathlib import Path
from iommuq.system import groups
with groups.watchdog() as guard:
    print(flush=True)
    while True:
        words = ["sh", "-c", "sleep 600 & sleep 600 & wait"]
        groups.start(words, guard, cwd=Path(), env=None, stdin=-3, stdout=-3, stderr=-3)
"""
NAME = "IOMMUQ_TEST_OF_SIGKILL"


def wait_none_marked(mark: str) -> None:
    """Wait until the watchdogs have left no process with a mark in its environment."""
    deadline = time.monotonic() + 15
    while marked := [
        path
        for path in Path("/proc").glob("[0-9]*/environ")
        if f"{NAME}={mark}".encode() in read_or_nothing(path).split(b"\0")
    ]:
        if time.monotonic() > deadline:
            for path in marked:
                os.kill(int(path.parent.name), signal.SIGKILL)
            pytest.fail(f"{len(marked)} processes live on")
        time.sleep(0.05)


def read_or_nothing(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def test_processes_started_in_the_instant_of_sigkill_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        monkeypatch.setenv(NAME, f"{tmp_path}-{number}")
        (tmp_path / "pid").unlink(missing_ok=True)
        killed = subprocess.run([sys.executable, "-c", KILLED_EARLY], cwd=tmp_path, check=False)
        assert killed.returncode == -signal.SIGKILL
        wait_none_marked(f"{tmp_path}-{number}")


@pytest.mark.hostile
def test_sigkill_at_any_moment_of_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, str(tmp_path))
    for _ in range(50):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED], cwd=tmp_path, stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(random.uniform(0, 0.02))
            child.kill()
    wait_none_marked(str(tmp_path))


def test_signals_wait_for_the_end_of_the_block() -> None:
    steps = []

    def work() -> None:
        with groups.signals_held():
            signal.raise_signal(signal.SIGINT)
            steps.append("after")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["after"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_timeout(tmp_path: Path) -> None:
    with pytest.raises(CommandTimeout, match=r"did not end within 0\.3 s") as caught:
        runner.run(["sh", "-c", f"echo up; {STAY.format(trap='exit')}"], cwd=tmp_path, timeout=0.3)
    assert caught.value.hint == "last line: 'up'"
    wait_gone(int((tmp_path / "pid").read_text()))


def test_what_the_leader_leaves_behind_goes(tmp_path: Path) -> None:
    script = "echo $$ > pid; sleep 600 & echo done"
    done = runner.run(["sh", "-c", script], cwd=tmp_path, watched=True)
    assert done.output == "done\n"
    wait_gone(int((tmp_path / "pid").read_text()))


def test_log(tmp_path: Path) -> None:
    log = tmp_path / "logs/log"
    seen: list[str] = []
    script = "echo out; echo 'it is' >&2; exit 4"
    with pytest.raises(CommandFailed, match="exit status 4") as caught:
        runner.run(["sh", "-c", script], cwd=tmp_path, log_path=log, on_line=seen.append)
    assert caught.value.returncode == 4
    assert caught.value.hint == f"full log: {log}"
    line, *rest = log.read_text().splitlines()
    assert rest == seen == ["out", "it is"]
    # The first line can be pasted.
    assert line.startswith("$ ")
    again = subprocess.run(["sh", "-c", line[2:]], capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout, again.stderr) == (4, "out\n", "it is\n")


def test_log_without_room(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="/dev/full: No space left on device"):
        runner.run(["true"], cwd=tmp_path, log_path=Path("/dev/full"))


def test_environment_and_input(tmp_path: Path) -> None:
    done = runner.run(["sh", "-c", 'cat; echo "$TOY"'], cwd=tmp_path, env={"TOY": "é"}, stdin="ü ")
    assert done.output == "ü é\n"
    assert done.returncode == 0


def test_bad_calls(tmp_path: Path) -> None:
    with pytest.raises(ToolMissing, match="no-such-tool is not installed"):
        runner.run(["no-such-tool"], cwd=tmp_path)
    with pytest.raises(InfraError, match="gone: no such directory"):
        runner.run(["true"], cwd=tmp_path / "gone")
    with pytest.raises(CommandFailed, match="killed by SIGSEGV"):
        runner.run(["sh", "-c", "kill -SEGV $$"], cwd=tmp_path)
    assert runner.describe_status(-34).startswith("killed by ")


def test_interrupted_as_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def popen(*words: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(real(*words, **options))
        # Ctrl-C, before anybody has the process.
        signal.raise_signal(signal.SIGINT)
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(KeyboardInterrupt):
        runner.run(["sleep", "600"], cwd=tmp_path)
    assert started[0].poll() is not None


@pytest.mark.parametrize(
    "words", [["yes"], ["sh", "-c", "yes >&2"], ["head", "-c", "99M", "/dev/zero"]]
)
def test_output_without_end(tmp_path: Path, words: list[str]) -> None:
    """It is ended, and neither memory nor a log is filled, by lines or by one without an end."""
    log = tmp_path / "log"
    with pytest.raises(TooMuchOutput, match="wrote more than 300000 bytes"):
        runner.run(words, cwd=tmp_path, most=300_000, timeout=60, log_path=log)
    assert log.stat().st_size < 400_000
    with pytest.raises(TooMuchOutput):
        runner.run(words, cwd=tmp_path, most=300_000, timeout=60)


def test_output_up_to_the_limit(tmp_path: Path) -> None:
    assert runner.run(["printf", "12345"], cwd=tmp_path, most=5).output == "12345"


def test_start_is_told(tmp_path: Path) -> None:
    pids: list[int] = []
    done = runner.run(["sh", "-c", "echo $$"], cwd=tmp_path, on_start=pids.append)
    assert pids == [int(done.output)]


_HOARD = """
import re, sys
from pathlib import Path
from iommuq.system.run import run
lines = (lambda line: None) if sys.argv[1] == "lines" else None
done = run(["sh", "-c", "yes '' | head -c 4000000"], cwd=Path("/"), on_line=lines)
assert len(done.output) == 4_000_000
# Not ru_maxrss, which begins with that of the process that forked this one.
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.parametrize("how", ["lines", "blocks"])
def test_short_lines_cost_what_they_have(tmp_path: Path, how: str) -> None:
    """Kept as a list, a line without content would cost 40 times its length, in MiB."""
    done = runner.run([sys.executable, "-c", _HOARD, how], cwd=tmp_path)
    assert int(done.output) < 80


def test_bounds(tmp_path: Path) -> None:
    few = groups.Bounds(memory=300 << 20, seconds=1, file=1 << 20)
    for code, why in (
        ("x = bytearray(1 << 30)", "more memory"),
        ("while True: pass", "more time"),
        ("open('f', 'wb').write(bytes(4 << 20))", "more data"),
    ):
        words = [sys.executable, "-c", code]
        done = runner.run(words, cwd=tmp_path, bounds=few, check=False, timeout=60)
        assert done.returncode != 0
        assert why in runner.exceeded(done)
    done = runner.run([sys.executable, "-c", "1 / 0"], cwd=tmp_path, bounds=few, check=False)
    assert runner.exceeded(done) == ""
    said = "CRITICAL: [PATCH] iommu: Handle being out of memory, Cannot allocate memory: not found"
    assert runner.exceeded(replace(done, stderr=said)) == ""
