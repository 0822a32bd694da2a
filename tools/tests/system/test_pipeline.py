# SPDX-License-Identifier: GPL-2.0-only
"""Tests of `iommuq.system.run.pipeline`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from iommuq.system.errors import CommandFailed, DiskFull, ToolMissing, UserError
from iommuq.system.run import pipeline


def test_reads_what_the_last_one_writes(tmp_path: Path) -> None:
    with pipeline(["printf", "b\\na\\n"], ["sort"], cwd=tmp_path) as pipe:
        assert pipe.read() == b"a\nb\n"


def test_feeds_the_first(tmp_path: Path) -> None:
    with pipeline(["tee", "a"], ["tee", "b"], cwd=tmp_path, feed=True) as pipe:
        pipe.write(b"words" * 100_000)
    assert (tmp_path / "b").read_bytes() == b"words" * 100_000


def test_failure_is_raised_even_if_the_block_is_content(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "echo data; echo went wrong >&2; exit 7"
    with (
        pytest.raises(CommandFailed, match="exit status 7") as caught,
        pipeline(["sh", "-c", script], ["cat"], cwd=tmp_path, log_path=log) as pipe,
    ):
        pipe.readline()
    assert "went wrong" in caught.value.output
    assert "went wrong" in log.read_text(encoding="utf-8")
    assert "| cat" in log.read_text(encoding="utf-8")


def test_what_the_block_leaves_is_read_to_its_end(tmp_path: Path) -> None:
    # Far more than the pipe holds: a writer that is cut off ends content, one that is not fails.
    script = "echo data; head -c 9000000 /dev/zero || exit 0; exit 7"
    with (
        pytest.raises(CommandFailed, match="exit status 7"),
        pipeline(["sh", "-c", script], cwd=tmp_path) as pipe,
    ):
        pipe.readline()


def feed_much(script: str, cwd: Path) -> None:
    with pipeline(["sh", "-c", script], cwd=cwd, feed=True) as pipe:
        for _ in range(1000):
            pipe.write(b"x" * (1 << 16))


def test_a_broken_pipe_is_explained_by_who_broke_it(tmp_path: Path) -> None:
    with pytest.raises(DiskFull):
        feed_much("echo No space left on device >&2; exit 1", tmp_path)


def read_one_line_and_raise(script: str, cwd: Path, error: BaseException) -> None:
    with pipeline(["sh", "-c", script], ["cat"], cwd=cwd) as pipe:
        assert pipe.readline() == b"x\n"
        raise error


@pytest.mark.parametrize("error", [UserError("mine"), KeyboardInterrupt("mine")])
def test_an_error_of_the_block_ends_all(tmp_path: Path, error: BaseException) -> None:
    begin = time.monotonic()
    with pytest.raises(type(error), match="mine"):
        read_one_line_and_raise("echo x; sleep 60", tmp_path, error)
    assert time.monotonic() - begin < 10


def test_the_victim_of_an_early_end_is_no_failure(tmp_path: Path) -> None:
    # yes dies of SIGPIPE, as head has had enough.
    with pipeline(["yes"], ["head", "-n", "3"], cwd=tmp_path) as pipe:
        assert pipe.read() == b"y\n" * 3


def test_missing_tool(tmp_path: Path) -> None:
    with (
        pytest.raises(ToolMissing, match="no-such-tool"),
        pipeline(["yes"], ["no-such-tool"], cwd=tmp_path),
    ):
        pass


def test_all_is_ended_if_we_are_killed(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from iommuq.system import run\n"
        "with run.pipeline(['true'], ['sh', '-c', 'sleep 60 & echo up; wait'],"
        " cwd=Path(sys.argv[1])) as pipe:\n"
        "    print(pipe.readline().decode(), flush=True); pipe.read()\n"
    )
    words = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        grandchildren = {path.parent.name for path in Path("/proc").glob("[0-9]*/cwd")}
        mine = [pid for pid in grandchildren if works_in(pid) == tmp_path]
        child.kill()
    assert len(mine) == 2
    deadline = time.monotonic() + 10
    while any(works_in(pid) for pid in mine):
        assert time.monotonic() < deadline, "they live on"
        time.sleep(0.01)


def works_in(pid: str) -> Path | None:
    """Return the working directory of a process; None if it has ended."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None
