# SPDX-License-Identifier: GPL-2.0-only
"""What counts as a find, and what the fuzzer says of it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import child
import fuzz
from fuzz import Tally
from fuzzed import MIB, PARSERS, Parser
from guarded import attempt, smaller
from iommuq.system.errors import CommandTimeout, InfraError, UserError


def parser(call: Callable[[bytes], object], **more: Any) -> Parser:
    return Parser("toy", "nothing", call, **more)


def refuse(_data: bytes) -> None:
    raise UserError("malformed")


def picky(data: bytes) -> None:
    if b"x" in data and b"yy" in data:
        raise KeyError(len(data))


def endless(_data: bytes) -> None:
    while True:
        try:
            sum(range(1000))
        except Exception:
            continue


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (len, None),
        (refuse, None),
        (picky, "KeyError"),
        (endless, "TooSlow"),
        (lambda data: data * 1000, "MemoryError"),
    ],
)
def test_what_is_a_find(call: Callable[[bytes], object], kind: str | None) -> None:
    find = attempt(parser(call, memory=64 * MIB, seconds=1.0), b"xyy" + b"." * MIB)
    assert (find and find.kind) == kind


def test_limits_are_gone_after_a_call() -> None:
    attempt(parser(len, seconds=0.01), b"")
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    assert len(bytearray(256 * MIB)) == 256 * MIB


def test_a_find_is_made_smaller() -> None:
    toy = parser(picky)
    data = b"a" * 300 + b"x" + b"b" * 200 + b"yy" + b"c" * 100
    find = attempt(toy, data)
    assert find is not None
    assert smaller(toy, data, find, 30.0) == b"xyy"


def test_lines_are_counted() -> None:
    dmar = next(each for each in PARSERS if each.name == "dmar")
    some = child.covered(dmar, [b""])
    assert 0 < some < child.covered(dmar, [path.read_bytes() for path in child.kept("dmar")])


class Children:
    """Stands for the processes: what each says, and how it ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self.ends: BaseException | None = None
        self.input = b""
        self.calls: list[Sequence[str]] = []
        monkeypatch.setattr(fuzz, "_child", self.run)
        monkeypatch.setattr(fuzz, "CORPUS", tmp_path / "corpus")
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: True)

    def run(self, words: Sequence[str], tally: Tally, _timeout: float) -> None:
        self.calls.append(words)
        if words[0] == "shapes":
            return
        for event in self.events:
            tally.take(event)
        data = len(self.input).to_bytes(8, "little") + self.input
        (Path(words[2]) / "input").write_bytes(data)
        if self.ends is not None:
            raise self.ends


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Children:
    return Children(monkeypatch, tmp_path)


def test_nothing_found(children: Children, capsys: pytest.CaptureFixture[str]) -> None:
    children.events = [{"inputs": 7}, {"parser": "dmar", "inputs": 900, "lines": 42}]
    assert fuzz.main(["--only", "dmar", "--seconds", "10"]) == 0
    line, verdict = capsys.readouterr().out.splitlines()
    assert line.split() == ["dmar", "900", "inputs", "90/s", "42", "lines", "0", "finds"]
    assert verdict == "PASS: 1 parsers, 0 finds"
    assert [words[:2] for words in children.calls] == [["shapes", "2.5"], ["mutate", "7.5"]]


def test_a_find_is_told_with_its_command(
    children: Children, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fuzz.ROOT / "tools/tests/data/fuzz/dmar/finds/a b"
    find = {"parser": "dmar", "kind": "KeyError", "place": "iommuq/a.py:1", "text": "'b'"}
    children.events = [{"find": find, "path": str(path)}]
    assert fuzz.main(["--only", "dmar"]) == 1
    what, how, _, verdict = capsys.readouterr().out.splitlines()
    assert what == "dmar: KeyError at iommuq/a.py:1: 'b'"
    command = "tools/bootstrap fuzz --only dmar --repeat 'tools/tests/data/fuzz/dmar/finds/a b'"
    assert how.strip() == command
    assert verdict == "FAIL: 1 parsers, 1 finds"


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        (CommandTimeout("took too long"), 1),
        (InfraError("mutate: killed by SIGSEGV"), 1),
        (InfraError("mutate: killed"), 3),
    ],
)
def test_a_process_that_ends_early(
    children: Children,
    ends: InfraError,
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The input at which it hung or crashed is kept; SIGKILL is the machine's."""
    children.ends, children.input = ends, b"bad"
    assert fuzz.main(["--only", "dmar"]) == code
    kept = list((tmp_path / "corpus/dmar/finds").glob("*"))
    assert [path.read_bytes() for path in kept] == [b"bad"] * (code == 1)
    assert capsys.readouterr().err.count("\n") == (code == 3)


def test_ctrl_c(children: Children, capsys: pytest.CaptureFixture[str]) -> None:
    children.ends = KeyboardInterrupt()
    assert fuzz.main(["--only", "dmar"]) == 130
    assert "finds are in" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--only", "nosuch"],
        ["--seconds", "0"],
        ["--repeat", "x"],
        ["--only", "dmar", "--repeat", "nosuch"],
    ],
)
def test_bad_arguments(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_without_atheris(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert fuzz.main(["--only", "dmar"]) == 3
    assert "tools/bootstrap fuzz" in capsys.readouterr().err


def test_repeat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"DMAR")
    assert fuzz.main(["--only", "acpi", "--repeat", str(path)]) == 0
    assert capsys.readouterr().out == "acpi: nothing wrong\n"


def test_tables_of_real_machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dynamic").mkdir()
    for name in ("DMAR", "IVRS", "APIC"):
        (tmp_path / name).write_bytes(name.encode() + bytes(40))
    monkeypatch.setenv(fuzz.TABLES, str(tmp_path))
    real = {
        each.name: [path.name for path in fuzz._seeds(each) if path.parent == tmp_path]
        for each in PARSERS
    }
    assert (real["dmar"], real["ktap"], real["acpi"]) == (["DMAR"], [], ["APIC", "DMAR", "IVRS"])
