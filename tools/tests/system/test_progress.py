# SPDX-License-Identifier: GPL-2.0-only
"""What a step shows, in plain lines and live."""

from __future__ import annotations

import io
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from iommuq.system import progress

# How long a test step runs when it must outlive the shortened times below.
LONG = 0.15


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shorten all times, and leave the module as it was."""
    monkeypatch.setattr(progress, "MOMENT", 0.05)
    monkeypatch.setattr(progress, "PLAIN_START", 0.05)
    monkeypatch.setattr(progress, "PLAIN_EVERY", 60.0)
    monkeypatch.setattr(progress, "TICK", 0.01)
    progress.configure(plain=True)
    yield
    progress.configure()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (12.34, "12.3 s"), (59.97, "1 min 00 s"), (125.4, "2 min 05 s")],
)
def test_duration(seconds: float, words: str) -> None:
    assert progress.duration(seconds) == words


def test_quick_step_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.task("Reading"):
        pass
    assert capsys.readouterr() == ("", "")


def test_quick_step_with_a_log_names_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with progress.task("Building", log=tmp_path / "build.log"):
        pass
    err = capsys.readouterr().err
    assert re.fullmatch(rf"Building: \d\.\d s, log {tmp_path}/build\.log\n", err)


def test_long_step_has_a_first_and_a_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.task("Building"):
        time.sleep(LONG)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"Building …\nBuilding: 0\.[1-9] s\n", err)


def test_log_may_be_set_late(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with progress.task("Building") as step:
        step.log = tmp_path / "late.log"
    assert "late.log" in capsys.readouterr().err


def test_still_running_line_has_the_state(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY", 0.05)
    with progress.task("Building") as step:
        step.update(total=558)
        step.update(done=12, note="CC drivers/iommu/iommu.o")
        time.sleep(LONG)
    assert re.search(
        r"^… still Building: 0\.\d s, 12/558, CC drivers/iommu/iommu\.o$",
        capsys.readouterr().err,
        re.MULTILINE,
    )


def test_done_never_looks_more_than_total() -> None:
    step = progress.Task("Building", None, 0)
    step.update(done=560, total=558)
    assert step.state == "560/560"


@pytest.mark.parametrize(
    ("error", "word"), [(ValueError, "failed"), (KeyboardInterrupt, "interrupted")]
)
def test_outcome_is_in_the_last_line(
    error: type[BaseException], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(error), progress.task("Building"):
        raise error
    assert capsys.readouterr().err == f"Building: {word} after 0.0 s\n"


def test_nested_steps_are_indented(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    with progress.task("Outer", log=log), progress.task("Inner", log=log):
        pass
    with progress.task("After", log=log):
        pass
    starts = [line.split(":")[0] for line in capsys.readouterr().err.splitlines()]
    assert starts == ["  Inner", "Outer", "After"]


def test_steps_in_threads(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def work(number: int) -> None:
        with progress.task(f"Step {number}", log=tmp_path / "log") as step:
            for done in range(200):
                step.update(done=done, total=200)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    with progress.task("All"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = capsys.readouterr().err.splitlines()
    ended = {match[1] for line in lines if (match := re.match(r"(Step \d+): ", line))}
    assert len(ended) == 20


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress.note("a\x1b[2Jb\nc\0d")
    assert capsys.readouterr().err == "a\\x1b[2Jb c\\x00d\n"


def test_brackets_are_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    progress.note("not ok 1 [/bold] [red]")
    assert capsys.readouterr().err == "not ok 1 [/bold] [red]\n"


def test_quiet(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    progress.configure(quiet=True)
    progress.note("nothing")
    with progress.task("Building", log=tmp_path / "log"):
        time.sleep(LONG)
    assert capsys.readouterr().err == ""


class _Full(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(28, "No space left on device")


def test_broken_stderr_breaks_no_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", _Full())
    progress.note("lost")
    with progress.task("Building"):
        time.sleep(LONG)
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    with progress.task("Building", log=Path("log")):
        print("goes on")
    assert capsys.readouterr().out == "goes on\n"


class _Terminal(io.StringIO):
    """Standard error as a terminal that keeps what it was told."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def _on_terminal(monkeypatch: pytest.MonkeyPatch) -> _Terminal:
    """Put a terminal of 30 columns on standard error.

    Not a fixture: pytest's own capture is put back between a fixture and the test.
    """
    stream = _Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    progress.configure()
    return stream


def _texts(stream: io.StringIO) -> list[str]:
    """Return what was written, cut where the cursor went to another line or its start."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    return [text for text in re.split(r"[\r\n]+", plain) if text]


def test_live_lines_fit_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = _on_terminal(monkeypatch)
    with progress.task("Building 6.12 [x]") as outer:
        outer.update(note="CC drivers/iommu/" + "x" * 200)
        with progress.task("Inner"):
            time.sleep(LONG)
        print("result")
    texts = _texts(terminal)
    assert any("Building 6.12 [x]" in text for text in texts)
    assert any(re.search(r"^  \S Inner", text) for text in texts)
    assert max(len(text) for text in texts) <= 30
    # The cursor is shown again, and what was no progress stayed out of it.
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")
    assert "result" not in terminal.getvalue()
    assert capsys.readouterr().out == "result\n"


def test_note_and_last_line_stay_above_the_live_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _on_terminal(monkeypatch)
    with progress.task("Building"):
        time.sleep(LONG)
        progress.note("6.12.118 is here, 6.12.117 was seen last")
    assert "6.12.118 is here, 6.12.117 was seen last" in _texts(terminal)
    assert re.search(r"Building: 0\.\d s", terminal.getvalue())


def test_quick_step_does_not_touch_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _on_terminal(monkeypatch)
    with progress.task("Reading"):
        pass
    assert terminal.getvalue() == ""


def test_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _on_terminal(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    with progress.task("Building"):
        time.sleep(LONG)
    assert "\x1b" not in terminal.getvalue()
    assert terminal.getvalue().startswith("Building …\n")


@pytest.mark.parametrize(
    ("value", "live"), [("true", False), ("1", False), ("0", True), ("", True)]
)
def test_terminal_that_nobody_watches_gets_plain_lines(
    monkeypatch: pytest.MonkeyPatch, value: str, *, live: bool
) -> None:
    terminal = _on_terminal(monkeypatch)
    monkeypatch.setenv("CI", value)
    with progress.task("Building"):
        time.sleep(LONG)
    assert ("\x1b" in terminal.getvalue()) == live
    assert terminal.getvalue().startswith("Building …\n") != live


def test_ascii_terminal_gets_no_braille(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _on_terminal(monkeypatch)
    monkeypatch.setattr(terminal, "encoding", "ascii", raising=False)
    with progress.task("Building"):
        time.sleep(LONG)
    assert terminal.getvalue().isascii()


def test_rich_is_not_loaded_for_nothing() -> None:
    """Importing rich costs more than most commands."""
    code = "import sys, iommuq.system.progress; sys.exit('rich' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0
