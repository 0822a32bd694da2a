# SPDX-License-Identifier: GPL-2.0-only
"""Show progress on standard error: live lines on a terminal, else plain lines now and then.

A short step shows nothing; a longer one ends with a line that has its time and its log.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from iommuq.system.logtext import escape

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.text import Text

#: Seconds before a step is shown on a terminal.
MOMENT = 0.5
#: Seconds before the first plain line of a step, and between two of them.
PLAIN_START = 2.0
PLAIN_EVERY = 15.0
#: Seconds between two updates of the display.
TICK = 0.1

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ASCII_FRAMES = "|/-\\"


def duration(seconds: float) -> str:
    """Return a time in seconds as text: ``0.4 s``, ``12.3 s`` or ``2 min 05 s``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def count(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: ``1 test``, ``2 tests``."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def ranges(numbers: Sequence[int], dash: str = "-") -> list[str]:
    """Return ascending numbers as ranges: ``3``, ``7-9``."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return [str(first) if first == last else f"{first}{dash}{last}" for first, last in found]


def one_line(text: str) -> str:
    """Return *text* as one line with its control characters escaped, safe for any terminal."""
    return escape(re.sub(r"[\t\r\n]", " ", text)).strip()


class Renderer(Protocol):
    """Draws a table above the live lines."""

    def render(self, width: int, height: int, *, utf8: bool) -> RenderableType:
        """Return the table for a terminal of this size in columns and lines."""


class Task:
    """A running step; made by `task`.

    :ivar title: what is done, without a full stop.
    :ivar log: file with the full output; may be set later.
    """

    def __init__(self, title: str, log: Path | None, depth: int) -> None:
        self.title = one_line(title)
        self.log = log
        self.depth = depth
        self.begin = time.monotonic()
        self._done: int | None = None
        self._total: int | None = None
        self._note = ""
        self.announced = False  # by a plain line
        self.due = PLAIN_START  # the next plain line

    def update(
        self, *, done: int | None = None, total: int | None = None, note: str | None = None
    ) -> None:
        """Update the progress; None keeps a value.  Cheap, and allowed from any thread.

        :param done: number of items done, say objects built.
        :param total: number of items to do.
        :param note: the current item, say ``drivers/iommu/iommu.o``.
        """
        if done is not None:
            self._done = done
        if total is not None:
            self._total = total
        if note is not None:
            self._note = note

    @property
    def elapsed(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self.begin

    @property
    def state(self) -> str:
        """The last `update` as text; may be empty."""
        count = "" if self._done is None else str(self._done)
        if count and self._total:
            # A total may be an estimate: do not show 560/558.
            count += f"/{max(self._total, self._done or 0)}"
        return ", ".join(part for part in (count, one_line(self._note)) if part)


class _Display:
    """All steps of this process, and the thread that shows them."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._steps: list[Task] = []
        self._ticker: threading.Thread | None = None
        self._live: Live | None = None
        self._table: Renderer | None = None
        self._since = 0.0
        self.quiet = False
        self.plain: bool | None = None

    def begin(self, new: Task) -> None:
        """Show *new* after `MOMENT`."""
        with self._lock:
            self._steps.append(new)
            self._start()

    def _start(self) -> None:
        if self._ticker is None and not self.quiet:
            # One for each thread: the thread before may not have seen its own yet.
            self._wake = threading.Event()
            self._ticker = threading.Thread(target=self._tick, args=(self._wake,), daemon=True)
            self._ticker.start()

    def show_table(self, new: Renderer | None) -> None:
        """Show a table above the live lines; None removes it."""
        with self._lock:
            self._table, self._since = new, time.monotonic()
            if new is not None:
                self._start()
        self._stop_if_idle()

    def _stop_if_idle(self) -> None:
        with self._lock:
            if self._steps or self._table is not None:
                return
            ticker, self._ticker = self._ticker, None
            self._wake.set()
            self._stop_live()
        # Outside the lock: the ticker may be waiting for it.
        if ticker is not None:
            ticker.join()

    def end(self, old: Task, outcome: str) -> None:
        """Remove *old* from the display, and write its last line."""
        with self._lock:
            self._steps.remove(old)
            elapsed = old.elapsed
            if outcome or old.log is not None or elapsed >= MOMENT:
                log = "" if old.log is None else f", log {old.log}"
                self._line(f"{'  ' * old.depth}{old.title}: {outcome}{duration(elapsed)}{log}")
        self._stop_if_idle()

    def note(self, text: str) -> None:
        """Write a note of one line to standard error."""
        with self._lock:
            self._line(one_line(text))

    def plain_note(self, text: str) -> None:
        """Write a note of one line to standard error, unless there are live lines."""
        with self._lock:
            if self._is_plain():
                self._line(one_line(text))

    def _line(self, text: str) -> None:
        if self.quiet:
            return
        # A closed or full stderr must not break a build.
        with contextlib.suppress(OSError, ValueError):
            if self._live is not None:
                self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                print(text, file=sys.stderr, flush=True)

    def _is_plain(self) -> bool:
        if self.plain is not None:
            return self.plain
        # A CI log is not a terminal, even if it looks like one.
        in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
        return in_ci or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb"

    def _tick(self, wake: threading.Event) -> None:
        while not wake.wait(TICK):
            with self._lock:
                if wake.is_set():
                    return
                with contextlib.suppress(OSError, ValueError):
                    if self._is_plain():
                        self._show_plain()
                    else:
                        self._show_live()

    def _show_plain(self) -> None:
        for running in self._steps:
            elapsed = running.elapsed
            if elapsed < running.due:
                continue
            indent = "  " * running.depth
            if not running.announced:
                running.announced = True
                log = "" if running.log is None else f", log {running.log}"
                self._line(f"{indent}{running.title} …{log}")
            else:
                state = running.state
                self._line(
                    f"{indent}… still {running.title}: {duration(elapsed)}"
                    + (f", {state}" if state else "")
                )
            running.due = elapsed + PLAIN_EVERY

    def _show_live(self) -> None:
        shown = [running for running in self._steps if running.elapsed >= MOMENT]
        table = self._table
        if table is not None and time.monotonic() - self._since < MOMENT:
            table = None
        if not shown and table is None:
            return
        # Not at the top: most commands end before they need rich.
        from rich.console import Console, Group
        from rich.live import Live

        if self._live is None:
            self._live = Live(
                console=Console(file=sys.stderr, force_terminal=True),
                auto_refresh=False,
                transient=True,
                # Only if both are terminals; results must not go to stderr.
                redirect_stdout=sys.stdout.isatty(),
            )
            self._live.start()
        lines: list[RenderableType] = [self._render(running) for running in shown]
        if table is not None:
            size = self._live.console.size
            lines.insert(0, table.render(size.width, size.height, utf8=_utf8()))
        self._live.update(Group(*lines), refresh=True)

    @staticmethod
    def _render(running: Task) -> Text:
        from rich.text import Text

        utf8 = _utf8()
        frames = _FRAMES if utf8 else _ASCII_FRAMES
        frame = frames[int(running.elapsed / TICK) % len(frames)]
        text = Text(no_wrap=True, overflow="ellipsis" if utf8 else "crop")
        text.append("  " * running.depth + frame + " ", style="cyan")
        text.append(running.title, style="bold")
        text.append(f"  {duration(running.elapsed)}")
        if running.state:
            text.append(f"  {running.state}", style="dim")
        return text

    def _stop_live(self) -> None:
        if self._live is not None:
            with contextlib.suppress(OSError, ValueError):
                self._live.stop()
            self._live = None

    def close(self) -> None:
        """Restore the terminal."""
        self._wake.set()
        self._stop_live()


def _utf8() -> bool:
    return (getattr(sys.stderr, "encoding", "") or "").lower().startswith("utf")


#: Called with each step that ended, and ``interrupted``, ``failed`` or an empty string.
listeners: list[Callable[[Task, str], None]] = []

_display = _Display()
# Also after a second Ctrl-C.
atexit.register(_display.close)
# Each thread has its own context, and starts at depth 0.
_depth: contextvars.ContextVar[int] = contextvars.ContextVar("depth", default=0)


def configure(*, quiet: bool = False, plain: bool | None = None) -> None:
    """Choose how progress is shown, before the first step.

    :param quiet: show no steps and no notes.
    :param plain: True: plain lines, False: live lines, None: live lines on a terminal only.
    """
    _display.quiet = quiet
    _display.plain = plain


def no_live_lines() -> None:
    """Show plain lines from now on: something else uses the terminal."""
    _display.plain = True


note = _display.note
plain_note = _display.plain_note


@contextlib.contextmanager
def table(drawn: Renderer) -> Iterator[None]:
    """Show a table above the live lines during the block; one at a time."""
    _display.show_table(drawn)
    try:
        yield
    finally:
        _display.show_table(None)


@contextlib.contextmanager
def task(title: str, *, log: Path | None = None) -> Iterator[Task]:
    """Show a step during the block.  Steps may be nested, and used from any thread.

    :param title: what is done, such as ``Building 6.12 baseline for um``.
    :param log: file with the full output, named in the last line.
    :return: the step, to be updated with its progress.
    """
    depth = _depth.get()
    token = _depth.set(depth + 1)
    running = Task(title, log, depth)
    _display.begin(running)
    outcome = ""
    try:
        yield running
    except (KeyboardInterrupt, GeneratorExit):
        outcome = "interrupted after "
        raise
    except BaseException:
        outcome = "failed after "
        raise
    finally:
        _depth.reset(token)
        _display.end(running, outcome)
        for listener in tuple(listeners):
            listener(running, outcome.partition(" ")[0])
