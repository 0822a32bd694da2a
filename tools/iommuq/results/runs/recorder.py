# SPDX-License-Identifier: GPL-2.0-only
"""Keep what a command does while it does it.

A command opens a recording and hands in its cells as they come.  If the process is killed
the record has what was handed in, and says that it is not all.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from iommuq import __version__
from iommuq.results import store
from iommuq.results.known import Failure, Verdict
from iommuq.results.runs.archive import Archive, Filled
from iommuq.results.runs.model import Head, Known, Record, State, Step, Timing
from iommuq.results.store import Run, new_id
from iommuq.system import progress, toolchain
from iommuq.system.errors import EXIT_INFRA, EXIT_INTERRUPTED, InfraError, IommuqError

if TYPE_CHECKING:
    from iommuq.queue.model import Patch

#: Times that one record keeps; a run of thousands of mutants has more.
_MOST_TIMINGS = 2000


class Recorder:
    """One record, while it is made; `recording` opens and closes it.

    Its methods may be called from any thread.

    :ivar exit_code: what the command is going to end with.
    """

    def __init__(self, record: Record, archive: Archive) -> None:
        self.id = record.id
        self.exit_code = 0
        self._started = record.started
        self._clock = time.monotonic()
        self._archive = archive
        self._lock = threading.Lock()
        self._head = record.head
        self._timings: list[Timing] = []
        self._places: dict[tuple[str, str, str], int] = {}

    def describe(self, **fields: Any) -> None:
        """Say more of the run as a whole; see `Head` for the fields."""
        with self._lock:
            self._head = replace(self._head, **fields)
            self._archive.describe(self.id, self._head)

    def cell(
        self,
        step: str,
        lane: str,
        run: Run | None = None,
        *,
        failure: str = "",
        verdicts: Mapping[str, Verdict] | None = None,
        known: Mapping[str, Failure] | None = None,
        warnings: Sequence[str] | None = None,
        added: Sequence[str] = (),
    ) -> None:
        """Hand in a cell; one of the same step, lane and place takes the place of another.

        :param run: the results; None if there is no kernel to run.
        :param failure: why there is none.
        :param verdicts: by test.
        :param known: the entries of those that are known to fail.
        :param warnings: all compiler warnings of the kernel; None if unknown.
        :param added: those that the step before did not have.
        """
        entries = {
            test: Known(" ".join(entry.reason.split()), entry.link, entry.expires.isoformat())
            for test, entry in (known or {}).items()
        }
        filled = Filled(step, lane, run, failure, verdicts or {}, entries, warnings, added)
        with self._lock:
            # Firmware has a run for each case of one step.
            key = (step, lane, run.key if run is not None else "")
            position = self._places.setdefault(key, len(self._places))
            self._archive.put(self.id, position, filled, self._started)

    def on_step(self, step: progress.Step, outcome: str) -> None:
        """Take in a step of the progress display that has ended."""
        with self._lock:
            if len(self._timings) < _MOST_TIMINGS:
                began = max(0.0, step.begin - self._clock)
                log = "" if step.log is None else str(step.log)
                self._timings.append(
                    Timing(step.title, step.depth, began, step.elapsed, outcome, log)
                )

    def close(self, exit_code: int, error: str = "") -> None:
        """Keep that the command has come to its end."""
        with self._lock:
            head = replace(self._head, error=error)
            timings = sorted(self._timings, key=lambda one: (one.started, one.depth))
            self._archive.finish(self.id, head, timings, time.time(), exit_code)


def command_line() -> str:
    """Return the words of this process's command, to be pasted after ``iommuq``."""
    return shlex.join(sys.argv[1:])


@contextlib.contextmanager
def recording(
    base: str, command: str | None = None, archive: Archive | None = None
) -> Iterator[Recorder]:
    """Keep what is done in the block as one run.

    :param base: what is tested: a base, or another kernel's name.
    :param command: by default that of the process.
    :raises InfraError: the store cannot be written.
    """
    archive = archive or Archive()
    started = time.time()
    head = Head(tool=__version__, versions=_versions())
    typed = command_line() if command is None else command
    record = Record(new_id(started), typed, base, State.RUNNING, started, head=head)
    archive.begin(record)
    recorder = Recorder(record, archive)
    progress.listeners.append(recorder.on_step)
    store.belong_to(record.id)
    try:
        yield recorder
    except BaseException as error:
        # What happened is to be told, even if it is that the store cannot be written.
        with contextlib.suppress(InfraError):
            recorder.close(*_ending(error))
        raise
    else:
        recorder.close(recorder.exit_code)
    finally:
        store.belong_to("")
        progress.listeners.remove(recorder.on_step)


def _ending(error: BaseException) -> tuple[int, str]:
    if isinstance(error, IommuqError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED, "interrupted"
    return EXIT_INFRA, f"{type(error).__name__}: {error}"


def _versions() -> tuple[tuple[str, str], ...]:
    found = [("python", platform.python_version()), ("host", platform.release())]
    with contextlib.suppress(IommuqError):
        found[:0] = toolchain.versions()
    found.append(("processors", str(len(os.sched_getaffinity(0)))))
    return tuple(found)


def steps_of(patches: Sequence[tuple[str, Patch | None]]) -> tuple[Step, ...]:
    """Return the steps of a queue as a record keeps them.

    :param patches: label and patch of each.
    """
    return tuple(
        Step(label) if patch is None else Step(label, patch.subject, patch.name, patch.sha256)
        for label, patch in patches
    )
