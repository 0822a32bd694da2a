# SPDX-License-Identifier: GPL-2.0-only
"""Tell the user, on standard error, what is being done and how far it is.

A step that is over in a moment says nothing at all.  On a terminal a longer one
has a live line; elsewhere it has a plain line now and then.  Either way it ends
with one line that gives its time and its log.  Results are not progress: they go
to standard output, and never through here.

A table of what there is to do may stand above the live lines; see `table`.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.text import Text

#: Seconds that a step may take before anything is shown of it on a terminal.
MOMENT = 0.5
#: Seconds after which a plain line says that a step is under way.
PLAIN_START = 2.0
#: Seconds between two plain lines of one step.
PLAIN_EVERY = 15.0
#: Seconds between two looks at the steps.
TICK = 0.1

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ASCII_FRAMES = "|/-\\"


def duration(seconds: float) -> str:
    """Say a time for people.

    :param seconds: the time, in seconds.
    :return: ``0.4 s``, ``12.3 s`` or ``2 min 05 s``.
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def count(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: ``1 test``, ``2 tests``."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def one_line(text: str) -> str:
    """Return *text* as one line without control characters, safe for any terminal."""
    return "".join(char if char.isprintable() else " " for char in text).strip()


class Renderer(Protocol):
    """Draws what stands above the live lines."""

    def render(self, width: int, height: int, *, utf8: bool) -> RenderableType:
        """Return what to draw on a terminal of this size, in columns and lines."""


class Step:
    """One thing being done; `step` makes it and ends it.

    :ivar title: what is done, without a full stop.
    :ivar log: file with the full output; may be set once it is known.
    """

    def __init__(self, title: str, log: Path | None, depth: int) -> None:
        self.title = one_line(title)
        self.log = log
        self.depth = depth
        self.begin = time.monotonic()
        self._done: int | None = None
        self._total: int | None = None
        self._note = ""
        # For plain lines: whether there was one, and when the next is due.
        self.announced = False
        self.due = PLAIN_START

    def update(
        self, *, done: int | None = None, total: int | None = None, note: str | None = None
    ) -> None:
        """Say how far the step is; what is left out stays as it was.

        Cheap enough to be called for every line that a build prints, from any thread.

        :param done: things done, say objects built.
        :param total: things to do.
        :param note: the one at hand, say ``CC drivers/iommu/iommu.o``.
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
        """What `update` was told last, in words; may be empty."""
        count = "" if self._done is None else str(self._done)
        if count and self._total:
            # A total is often an estimate: 560 of 558 would only look wrong.
            count += f"/{max(self._total, self._done or 0)}"
        return ", ".join(part for part in (count, one_line(self._note)) if part)


class _Display:
    """All steps of this process, and the thread that shows them."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._steps: list[Step] = []
        self._ticker: threading.Thread | None = None
        self._live: Live | None = None
        self._table: Renderer | None = None
        self._since = 0.0
        self.quiet = False
        self.plain: bool | None = None

    def begin(self, new: Step) -> None:
        """Show *new* as soon as it has taken a moment."""
        with self._lock:
            self._steps.append(new)
            self._start()

    def _start(self) -> None:
        if self._ticker is None and not self.quiet:
            # One for each thread: it may be set while the one before is still to see it.
            self._wake = threading.Event()
            self._ticker = threading.Thread(target=self._tick, args=(self._wake,), daemon=True)
            self._ticker.start()

    def show_table(self, new: Renderer | None) -> None:
        """Show a table above the live lines, or none any more."""
        ticker = None
        with self._lock:
            self._table, self._since = new, time.monotonic()
            if new is not None:
                self._start()
            else:
                ticker = self._stop()
        if ticker is not None:
            ticker.join()

    def _stop(self) -> threading.Thread | None:
        """Show nothing more if there is nothing; return the thread that is to be waited for."""
        if self._steps or self._table is not None:
            return None
        ticker, self._ticker = self._ticker, None
        self._wake.set()
        self._stop_live()
        return ticker

    def end(self, old: Step, outcome: str) -> None:
        """Show *old* no more, and write its last line."""
        with self._lock:
            self._steps.remove(old)
            elapsed = old.elapsed
            if outcome or old.log is not None or elapsed >= MOMENT:
                log = "" if old.log is None else f", log {old.log}"
                self._line(f"{'  ' * old.depth}{old.title}: {outcome}{duration(elapsed)}{log}")
            ticker = self._stop()
        # Outside the lock: the ticker may be waiting for it.
        if ticker is not None:
            ticker.join()

    def note(self, text: str) -> None:
        """Write one line, above the live lines if there are any."""
        with self._lock:
            self._line(one_line(text))

    def plain_note(self, text: str) -> None:
        """Write one line, unless there are live ones that show the same."""
        with self._lock:
            if self._is_plain():
                self._line(one_line(text))

    def _line(self, text: str) -> None:
        if self.quiet:
            return
        # Progress must not be what breaks a build: a closed or full stderr is ignored.
        with contextlib.suppress(OSError, ValueError):
            if self._live is not None:
                self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                print(text, file=sys.stderr, flush=True)

    def _is_plain(self) -> bool:
        if self.plain is not None:
            return self.plain
        # In CI even a terminal is read by nobody while it moves.
        in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
        return in_ci or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb"

    def _tick(self, wake: threading.Event) -> None:
        # TICK is read anew: it is what tests shorten.
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
        # Here and not above: most commands are over before rich is needed.
        from rich.console import Console, Group
        from rich.live import Live

        if self._live is None:
            self._live = Live(
                console=Console(file=sys.stderr, force_terminal=True),
                auto_refresh=False,
                transient=True,
                # Only if both are one terminal; results must not end up on stderr.
                redirect_stdout=sys.stdout.isatty(),
            )
            self._live.start()
        lines: list[RenderableType] = [self._render(running) for running in shown]
        if table is not None:
            size = self._live.console.size
            lines.insert(0, table.render(size.width, size.height, utf8=_utf8()))
        self._live.update(Group(*lines), refresh=True)

    @staticmethod
    def _render(running: Step) -> Text:
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
        """Leave the terminal as it was, whatever is still under way."""
        self._wake.set()
        self._stop_live()


def _utf8() -> bool:
    return (getattr(sys.stderr, "encoding", "") or "").lower().startswith("utf")


#: Called with each step that has ended, and how: empty if it came to its end.
listeners: list[Callable[[Step, str], None]] = []

_display = _Display()
# A second Ctrl-C may come while the first is dealt with.
atexit.register(_display.close)
# Each thread starts at the outermost level: it has a context of its own.
_depth: contextvars.ContextVar[int] = contextvars.ContextVar("depth", default=0)


def configure(*, quiet: bool = False, plain: bool | None = None) -> None:
    """Choose how progress is shown, before the first step.

    :param quiet: show no steps and no notes.
    :param plain: plain lines (True), live lines (False), or, with None, live
        lines only if standard error is a terminal.
    """
    _display.quiet = quiet
    _display.plain = plain


def no_live_lines() -> None:
    """Show plain lines from now on: the terminal is wanted for something else."""
    _display.plain = True


def note(text: str) -> None:
    """Write a note of one line to standard error."""
    _display.note(text)


def plain_note(text: str) -> None:
    """Write a note of one line to standard error, unless there are live lines."""
    _display.plain_note(text)


@contextlib.contextmanager
def table(drawn: Renderer) -> Iterator[None]:
    """Show a table above the live lines for as long as the block runs; one at a time."""
    _display.show_table(drawn)
    try:
        yield
    finally:
        _display.show_table(None)


@contextlib.contextmanager
def step(title: str, *, log: Path | None = None) -> Iterator[Step]:
    """Show that something is being done for as long as the block runs.

    Steps may be nested, and may be begun and ended from any thread.

    :param title: what is done, such as ``Building 6.12 baseline for um``.
    :param log: file with the full output, named in the last line.
    :return: the step, to be told of its progress.
    """
    depth = _depth.get()
    token = _depth.set(depth + 1)
    running = Step(title, log, depth)
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
