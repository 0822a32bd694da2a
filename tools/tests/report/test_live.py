# SPDX-License-Identifier: GPL-2.0-only
"""The table that fills in, the time that is left, and the lines for programs."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import toykernel
from iommuq.report import live
from iommuq.report.live import Board
from iommuq.results import events as told
from iommuq.results.known import Verdict
from iommuq.results.runs.archive import plain_verdict
from iommuq.results.store import Result, Status, SuiteRun
from iommuq.system import files, progress
from iommuq.system.errors import UserError
from toykernel import BASE, PATIENCE, SUITE_C, Project

STEPS = ["baseline", "mock/0001", "0001", "0002"]


@pytest.fixture
def warm(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project that has run its queue."""
    template = toykernel.template(tmp_path_factory.getbasetemp())
    return toykernel.copy_project(template, tmp_path / "project", warm=True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Return the time, to be set."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    yield now
    monkeypatch.undo()


def board(rows: list[str] = STEPS, kind: str = "6.12/kunit") -> Board:
    return Board("Linux 6.12.117", kind, rows, ["kunit", "selftest"], lambda _run: {})


def drawn(what: Board, width: int, height: int = 40, *, utf8: bool = True) -> list[str]:
    """Draw a board, and return the lines."""
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(what.render(width, height, utf8=utf8))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def run_of(*statuses: Status) -> SuiteRun:
    results = tuple(
        Result("toy", "0001", "kunit", f"s.{number}", status, message="\x1b[2J é")
        for number, status in enumerate(statuses)
    )
    return SuiteRun("id", "toy", "0001", "kunit", "k", "6", "um", "native", 0.0, 1.0, results)


def test_each_state_of_a_cell() -> None:
    what = board()
    what.done("baseline", "kunit", {Verdict.OK: 30, Verdict.FAILED: 17})
    what.done("baseline", "selftest", {}, "does not build")
    what.busy("mock/0001", "kunit", "building")
    lines = drawn(what, 100)
    assert lines[0].strip() == "Linux 6.12.117: 2 of 8"
    assert lines[1].split() == ["kunit", "selftest"]
    assert re.fullmatch(r"baseline +30 pass 17 FAIL +does not build *", lines[2])
    assert re.fullmatch(r"mock/0001 +building 0\.\d s +· *", lines[3])
    assert re.fullmatch(r"0002 +· +· *", lines[5])


@pytest.mark.parametrize("width", [20, 30, 60])
def test_a_narrow_terminal(width: int) -> None:
    what = board()
    for row in STEPS:
        what.done(row, "kunit", dict.fromkeys(Verdict, 100))
    lines = drawn(what, width)
    assert max(map(len, lines)) <= width
    assert len(lines) == 2 + len(STEPS)


def test_signs_where_words_have_no_room() -> None:
    what = board()
    what.done("baseline", "kunit", {Verdict.OK: 30, Verdict.FAILED: 1, Verdict.KNOWN: 2})
    assert "✓30 ✗1 K2" in drawn(what, 60)[2]
    plain = drawn(what, 60, utf8=False)
    assert "ok 30 FAIL 1 known 2" in plain[2]
    assert "\n".join(plain).isascii()


def test_a_low_terminal_shows_what_is_worked_on() -> None:
    rows = [f"{number:04}" for number in range(50)]
    what = board(rows)
    for row in rows[:20]:
        for column in what.columns:
            what.done(row, column, {Verdict.OK: 1})
    what.busy("0020", "kunit", "running")
    lines = drawn(what, 80, height=16)
    assert len(lines) <= 16 - 3
    assert any(line.startswith("0020") and "running" in line for line in lines)
    assert lines[2].split() == ["19", "above", "are", "done"]
    assert re.fullmatch(r"\d+ more *", lines[-1])


def test_names_from_outside_are_no_markup_and_no_control_characters() -> None:
    lines = drawn(board(["[red]x\x1b[2J"]), 80)
    assert lines[2].startswith(r"[red]x\x1b[2J")


def test_time_left_comes_from_past_runs(clock: list[float]) -> None:
    what = board(["0001", "0002"])
    assert what.left() is None
    live.save({"6.12/kunit/kunit/0001": 10.0, "6.12/kunit/kunit/0002": 30.0})
    live.save({"6.12/kunit/selftest/0001": 5.0})
    what = board(["0001", "0002"])
    # Nothing says yet that anything needs to be done at all.
    what.done("0001", "selftest", {})
    assert what.left() is None
    what.busy("0001", "kunit", "building")
    clock[0] += 4
    # 6 of this one, 30 of the next; of the last only its kind is known.
    assert what.left() == 6 + 30 + 5
    what.done("0001", "kunit", {})
    what.remember()
    assert live.load_durations()["6.12/kunit/kunit/0001"] == 4.0
    # What was answered from the store is no measure.
    assert live.load_durations()["6.12/kunit/selftest/0001"] == 5.0


@pytest.mark.parametrize(
    "text", ["", "[1]", "{", '{"a/b": "x", "c/d": -1, "e/f": NaN}', "[" * 9999]
)
def test_durations_that_cannot_be_read_are_unknown(text: str) -> None:
    files.state_dir().mkdir(parents=True)
    (files.state_dir() / live.FILE).write_text(text)
    assert live.load_durations() == {}
    live.save({"a/b": 1.0})
    assert live.load_durations() == {"a/b": 1.0}


def test_durations_that_cannot_be_written_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOMMUQ_STATE_DIR", "/proc/nothing")
    live.save({"a/b": 1.0})
    assert live.load_durations() == {}


def test_only_so_many_durations_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST", 2)
    live.save({"a/1": 1.0, "a/2": 2.0})
    live.save({"a/1": 3.0})
    live.save({"a/3": 4.0})
    assert live.load_durations() == {"a/1": 3.0, "a/3": 4.0}


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_lines_of_a_run(warm: Project) -> None:
    done = warm.run("run", BASE, "--json")
    assert done.code == 0
    found = events(done.out)
    kinds = [event["event"] for event in found]
    assert kinds[0] == "begin"
    assert found[0] == {
        "event": "begin",
        "format": live.FORMAT,
        "title": "Linux 6.12.117 (6.12.117)",
        "rows": ["baseline", "0001", "0002"],
        "columns": ["kunit"],
    }
    assert kinds[-1] == "end"
    assert found[-1] == {"event": "end", "exit_code": 0, "findings": [], "errors": []}
    by_step = [e for e in found if e["event"] == "result" and e["row"] == "baseline"]
    (refused,) = (e for e in by_step if e["test"] == "toy_domain.block_refused")
    assert (refused["status"], refused["verdict"]) == ("fail", "failed")
    assert "toy_block() == 0" in refused["message"]
    assert Path(refused["log"]).name.endswith(".log")
    (late,) = (e for e in by_step if e["test"] == "toy_owner.late_device")
    assert (late["status"], late["verdict"]) == ("fail", "known")
    closed = {event["row"]: event["counts"] for event in found if event["event"] == "done"}
    assert closed["0002"] == {"ok": 4, "skipped": 1, "known": 1}
    assert {"building", "running"} <= set(kinds)
    # Every kind of event is in the page that explains them.
    page = (Path(__file__).parents[3] / "docs/live.md").read_text()
    assert all(f"`{kind}`" in page for kind in kinds)


def test_json_lines_of_other_commands(warm: Project) -> None:
    for words in (("kunit", BASE, "--at", "baseline"), ("prove", BASE, "--suite", "kunit")):
        done = warm.run(*words, "--json")
        found = events(done.out)
        assert found[-1]["event"] == "end"
        assert found[-1]["exit_code"] == done.code == 1
    assert found[-1]["findings"]


def test_json_lines_of_a_bisection(warm: Project) -> None:
    """What it found out is all that it is asked for."""
    for test, code in (("toy_domain.plain_kept", 0), ("toy_domain.block_refused", 1)):
        if code:
            warm.edit(SUITE_C, "toy_block(), -22);", "toy_block(), -21);")
        done = warm.run("prove", BASE, "--suite", "kunit", "--bisect", f"kunit.{test}", "--json")
        found = events(done.out)
        assert [found[0]["event"], found[-1]["event"]] == ["begin", "end"]
        assert found[-1]["exit_code"] == done.code == code
        assert "result" in {event["event"] for event in found}
    assert found[-1]["findings"] == [
        "FAIL: kunit.toy_domain.block_refused: at baseline already, no patch after it breaks it"
    ]


def test_json_lines_of_coverage(warm: Project) -> None:
    found = events(warm.run("kunit", BASE, "--coverage", "--json").out)
    kinds = [event["event"] for event in found]
    assert kinds[:3] == ["begin", "building", "running"]
    assert kinds[-2:] == ["done", "end"]


def test_json_lines_tell_a_failure_too(warm: Project) -> None:
    done = warm.run("run", "9.9", "--json")
    assert done.code == 2
    (event,) = events(done.out)
    assert (event["event"], event["exit_code"]) == ("error", 2)
    assert "no base '9.9'" in event["what"]
    # And people are told as always.
    assert "iommuq: no base '9.9'" in done.err


def test_a_step_that_does_not_build(warm: Project) -> None:
    maker = warm.maker
    bad = maker.mail("toy: bad", {toykernel.IOMMU_C: ("return 5;", "return oops;")})
    maker.add("resv/0003-bad.patch", bad)
    found = events(warm.run("run", BASE, "--json").out)
    (failed,) = (event for event in found if event["event"] == "failed")
    assert failed["row"] == "0003"
    assert "oops" in failed["why"]
    assert found[-1]["exit_code"] == 1


def test_what_is_told_before_and_after_is_nobody_s_business(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told.busy("a", "b", "running")
    told.done("a", "b", run_of(Status.PASS))
    assert capsys.readouterr().out == ""
    with live.json_lines(True):
        print("not for programs")
        told.done("a", "b", run_of(Status.PASS, Status.ERROR))
    print("for people")
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == "for people"
    assert [event["event"] for event in events("\n".join(lines))] == ["result", "result", "done"]
    assert "\x1b" not in "".join(lines)


def test_what_is_part_of_a_larger_cell_is_not_told_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with live.json_lines(True), live.shown("t", "k", ["0001", "0002"], ["firmware"]) as what:
        told.busy("a-scenario", "a-machine", "running")
        told.done("a-scenario", "a-machine", run_of(Status.PASS))
        told.done("0001", "firmware", run_of(Status.PASS))
    assert what.progress == "1 of 2"
    kinds = [event["event"] for event in events(capsys.readouterr().out)]
    assert kinds == ["begin", "result", "done"]


def test_a_list_that_is_malformed_breaks_no_table() -> None:
    def judge(_run: SuiteRun) -> dict[str, Verdict]:
        raise UserError("the list")

    with live.shown("t", "k", ["a", "c"], ["b"], judge) as what:
        told.done("a", "b", run_of(Status.PASS, Status.FAIL))
        assert what.cells["a", "b"].words == "1 pass, 1 FAIL"


def test_plain_lines_for_cells_that_took_their_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PLAIN_START", 0.0)
    with live.shown("t", "k", ["mock/0001", "0002"], ["kunit"]):
        told.busy("mock/0001", "kunit", "running")
        told.done("mock/0001", "kunit", run_of(Status.PASS, Status.SKIP))
    assert capsys.readouterr().err == "mock/0001 kunit: 1 pass, 1 skipped (1 of 2)\n"


class _Screen:
    """A terminal, and iommuq on it."""

    def __init__(self, project: Project, *words: str, **environment: str) -> None:
        self.leader, self._follower = pty.openpty()
        self.before = termios.tcgetattr(self._follower)
        self.text = ""
        unset = {"NO_COLOR", "CI"}
        usual = {key: value for key, value in project.environment.items() if key not in unset}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "iommuq", *words],
            env={**usual, "TERM": "xterm", "COLUMNS": "80", **environment},
            stdin=self._follower,
            stdout=self._follower,
            stderr=self._follower,
            start_new_session=True,
        )

    def read(self, until: str = "") -> None:
        """Read until a text comes, or all."""
        deadline = time.monotonic() + PATIENCE
        while not until or until not in self.text:
            assert time.monotonic() < deadline, self.text
            if select.select([self.leader], [], [], 0.05)[0]:
                self.text += os.read(self.leader, 65536).decode("utf-8", "replace")
            elif self.process.poll() is not None:
                break

    def close(self) -> None:
        self.read()
        assert self.process.wait(PATIENCE) is not None
        self.after = termios.tcgetattr(self._follower)
        os.close(self._follower)
        os.close(self.leader)

    @property
    def cursor_is_shown(self) -> bool:
        return self.text.rfind("\x1b[?25h") > self.text.rfind("\x1b[?25l")


def _stalled(warm: Project) -> dict[str, str]:
    warm.edit(toykernel.SUITE_C, "(void)test;", "(void)!test;")
    mark = str(warm.root / "stalled")
    return {"TOY_STALL": "build", "TOY_STALLED": mark}


@pytest.mark.parametrize("no_color", [False, True])
def test_the_table_on_a_terminal_and_ctrl_c(warm: Project, no_color: bool) -> None:
    environment = _stalled(warm) | ({"NO_COLOR": "1"} if no_color else {})
    screen = _Screen(warm, "run", BASE, **environment)
    # A build that does not end: the table has all the time to be drawn.
    screen.read("0 of 3")
    screen.read("building")
    screen.process.send_signal(signal.SIGINT)
    screen.close()
    assert screen.process.returncode == 130
    assert "Traceback" not in screen.text
    assert "\x1b[?25l" in screen.text
    assert screen.cursor_is_shown
    assert screen.after == screen.before
    colours = re.findall(r"\x1b\[(?:\d+;)*3[0-7]m", screen.text)
    assert bool(colours) is not no_color


@pytest.mark.parametrize("quiet", [True, False])
def test_no_table_where_nobody_looks(warm: Project, quiet: bool) -> None:
    words = ["--quiet"] if quiet else []
    environment = {} if quiet else {"CI": "true"}
    screen = _Screen(warm, *words, "run", BASE, **environment)
    screen.close()
    assert screen.process.returncode == 0
    assert "\x1b[?25l" not in screen.text
    assert "0 of 3" not in screen.text


def test_ctrl_c_while_python_imports(tmp_path: Path) -> None:
    """An import that does not end stands for one that takes a moment."""
    (tmp_path / "click.py").write_text(
        "import pathlib, time\n"
        "try:\n"
        f"    pathlib.Path({str(tmp_path / 'there')!r}).touch()\n    time.sleep(60)\n"
        "except BaseException:\n    pass\n"
    )
    tools = Path(__file__).parents[2]
    for number in (signal.SIGINT, signal.SIGTERM):
        with subprocess.Popen(
            [sys.executable, "-m", "iommuq", "run"],
            env={**os.environ, "PYTHONPATH": f"{tmp_path}:{tools}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            toykernel.wait_for((tmp_path / "there").exists)
            process.send_signal(number)
            out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out, err) == (130, "", "iommuq: interrupted\n")
        (tmp_path / "there").unlink()


def reported(*results: Result) -> int:
    verdicts = {one.test: plain_verdict(one.status) for one in results}
    lane: Any = SimpleNamespace(judge=lambda _: verdicts, title="suites")
    done: Any = SimpleNamespace(results=results, accelerator="tcg", base="6.12", patch="0001")
    return live.report_run("6.12", lane, done)


def test_a_suite_that_is_not_here_says_how_to_get_it(capsys: pytest.CaptureFixture[str]) -> None:
    lacking = Result("6.12", "0001", "foreign", "a.builds", Status.SKIP, 0.0, "get it with: git")
    nothing = Result("6.12", "0001", "foreign", "a.prog", Status.SKIP, 0.0, "no engine")
    built = Result("6.12", "0001", "foreign", "b.builds", Status.PASS)
    assert reported(lacking, nothing, built) == 0
    out = capsys.readouterr().out
    assert "a.builds\n    get it with: git\n" in out
    assert "no engine" not in out
    assert out.endswith("PASS: 6.12 0001: 1 pass, 2 skipped\n")


def test_nothing_but_skips_is_no_pass(capsys: pytest.CaptureFixture[str]) -> None:
    lacking = Result("6.12", "0001", "selftest", "a.builds", Status.SKIP, 0.0, "the mock has no x")
    with pytest.raises(UserError, match="nothing can be tested: the mock has no x"):
        reported(lacking)
    assert "PASS" not in capsys.readouterr().out
