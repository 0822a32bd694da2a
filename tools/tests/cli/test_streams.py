# SPDX-License-Identifier: GPL-2.0-only
"""How the command line ends: whatever happens, its exit code is no verdict without one."""

from __future__ import annotations

import errno
import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import click
import pytest

import faultmatrix
import toykernel
from iommuq.cli import main
from iommuq.cli.commands import COMMANDS
from iommuq.system.errors import UserError, VerdictError
from toykernel import PATIENCE, Project

OUTPUT = "x" * 100


@click.command()
@click.argument("fault")
@click.option("--debug", is_flag=True)
def toy(fault: str, debug: bool) -> None:
    """Print something, then meet a fault."""
    print(OUTPUT, debug)
    faults: dict[str, BaseException] = {
        "recursion": RecursionError("too deep"),
        "key": KeyError("x"),
        "unicode": UnicodeError("not UTF-8"),
        "sqlite": sqlite3.OperationalError("disk I/O error"),
        "assert": AssertionError(),
        "long": ValueError("a\nb" * 100_000),
        "exit": SystemExit(1),
        "memory": MemoryError(),
        "thread": RuntimeError("can't start new thread"),
        "pipe": BrokenPipeError(errno.EPIPE, "Broken pipe"),
        "verdict": VerdictError("does not build"),
        "user": UserError("wrong\nbase", hint="try\nanother"),
        **{name: OSError(number, os.strerror(number)) for number, name in errno.errorcode.items()},
    }
    raise faults[fault]


def ended(*words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run `toy` in this process, and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["toy", *words])
    with pytest.raises(SystemExit) as caught:
        main.run(toy, "toy", "_TOY_COMPLETE")
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize(
    ("fault", "what", "hint"),
    [
        ("recursion", "internal error: RecursionError: too deep", "send /"),
        ("key", "internal error: KeyError: 'x'", "send /"),
        ("unicode", "internal error: UnicodeError: not UTF-8", "send /"),
        ("sqlite", "internal error: OperationalError: disk I/O error", "send /"),
        ("assert", "internal error: AssertionError:", "send /"),
        ("long", "internal error: ValueError: a b", "send /"),
        ("exit", "internal error: SystemExit: 1", "send /"),
        ("memory", "MemoryError:", "`iommuq doctor`"),
        ("thread", "RuntimeError: can't start new thread", "`iommuq doctor`"),
        ("pipe", "Broken pipe", "`iommuq doctor`"),
    ],
)
def test_unexpected_exception(
    fault: str,
    what: str,
    hint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert ended(fault, monkeypatch=monkeypatch) == 3
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"toy: {what}")
    assert len(first) < 6000
    assert second.startswith(f"  ({hint}")
    log = re.search(r"/\S+-traceback-\S+\.log", second)
    assert log
    assert "Traceback (most recent call last)" in Path(log[0]).read_text()


def test_every_errno(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where the log of the traceback cannot be written."""
    monkeypatch.setenv("IOMMUQ_STATE_DIR", "/dev/null/none")
    for number, name in errno.errorcode.items():
        # EINTR and the like are classes of their own, and click takes none of them away.
        assert ended(name, monkeypatch=monkeypatch) == 3, name
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == f"toy: {os.strerror(number)}"
        assert len(lines) == 2
    assert not list(tmp_path.iterdir())


def test_debug_does_not_change_the_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for fault, code in {"user": 2, "verdict": 1, "key": 3}.items():
        assert ended("--debug", fault, monkeypatch=monkeypatch) == code
        assert "Traceback" in capsys.readouterr().err


def test_a_message_has_two_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ended("user", monkeypatch=monkeypatch) == 2
    assert capsys.readouterr().err == "toy: wrong base\n  (try another)\n"


# Streams.

SHELL = """\
import os, click
from iommuq.cli.main import run
@click.command()
def toy():
    print("x" * 100)
    print("y", file=__import__("sys").stderr)
    input_ = __import__("sys").stdin.read()
    with open({out!r}, "w") as file:
        file.write(f"{{file.fileno() > 2}} {{input_!r}}")
run(toy, "toy", "_TOY")
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_stream(tmp_path: Path, closed: str) -> None:
    """A file that is opened then does not get the number of a standard stream."""
    out = tmp_path / "out"
    script = SHELL.format(out=str(out))
    words = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", script]
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert out.read_text() == "True ''"


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project that has run its queue; the tests may not change what it has."""
    template = toykernel.template(tmp_path_factory.getbasetemp())
    return toykernel.copy_project(template, tmp_path_factory.mktemp("warm") / "p", warm=True)


def shell(project: Project, script: str, **environment: str) -> tuple[int, str, str]:
    """Run a line of shell, in which "$@" is iommuq, and return exit code and both outputs."""
    words = ["bash", "-o", "pipefail", "-c", script, "sh", sys.executable, "-m", "iommuq"]
    done = subprocess.run(
        words,
        cwd=project.root,
        env={**project.environment, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("words", ["kunit toy", "kunit toy --json", "queue --help", "help"])
@pytest.mark.parametrize("buffered", ["", "1"])
def test_output_without_a_reader(warm: Project, words: str, buffered: str) -> None:
    """As cat and grep end there, also if it is at exit that the output is written."""
    code, _, said = shell(warm, f'"$@" {words} | true', PYTHONUNBUFFERED=buffered)
    # A reader that ends late may have had it all.
    assert code in (141, 0)
    assert "iommuq: " not in said
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "iommuq", *words.split()],
        env={**warm.environment, "PYTHONUNBUFFERED": buffered},
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 141
    assert b"iommuq: " not in done.stderr
    assert b"Error" not in done.stderr


def test_error_without_a_reader(warm: Project) -> None:
    for place in ("/dev/full", "&-"):
        assert shell(warm, f'"$@" queue show 9.9 2>{place}')[0] == 2


@pytest.mark.hostile
@pytest.mark.hostile
def test_every_command_under_cheap_faults(warm: Project, tmp_path: Path) -> None:
    """No traceback, no verdict that the same command does not give without the fault."""
    matrix = Path(toykernel.__file__).parents[1] / "faultmatrix.py"
    done = subprocess.run(
        [sys.executable, str(matrix), str(tmp_path)],
        cwd=warm.root,
        env=warm.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, tuple[int, str]]] = {}
    for line in done.stdout.splitlines():
        words, fault, code, said = json.loads(line)
        found.setdefault(words, {})[fault] = code, said
    assert {words.split()[0] for words in found} >= {
        entry.name for entry in COMMANDS if entry.name not in faultmatrix.LEFT_OUT
    }
    wrong = []
    for words, runs in found.items():
        plain = runs["none"][0]
        for fault, (code, said) in runs.items():
            good = {0, 2, 3}
            if fault in ("closed", "umask", "none"):
                good = {plain}
            elif fault in ("unread", "full") and plain in (0, 1):
                # What was printed is lost, whatever the verdict was.
                good = {141 if fault == "unread" else 3}
            if words == "drivers" or fault == "no state":
                # It prints nothing, or its verdict needs no state.
                good |= {plain}
            if code not in good or "Traceback" in said or "internal error" in said:
                wrong.append(f"{words}, {fault}: {code}, not in {good}: {said[-500:]}")
    assert not wrong, "\n".join(wrong)
    assert {code for runs in found.values() for code, _ in runs.values()} >= {0, 2, 3, 141}
