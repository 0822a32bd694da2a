# SPDX-License-Identifier: GPL-2.0-only
"""Record what a command does; the record of a killed process is kept as incomplete."""

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
from typing import Any

from iommuq import __version__
from iommuq.queue.model import Patch
from iommuq.results import store
from iommuq.results.known import Failure, Verdict
from iommuq.results.runs.archive import Archive, Filled
from iommuq.results.runs.model import CommandRun, Head, Known, State, StepRecord, Timing
from iommuq.results.store import SuiteRun, new_id
from iommuq.system import progress, toolchain
from iommuq.system.errors import EXIT_INFRA, EXIT_INTERRUPTED, InfraError, IommuqError

#: Largest number of timings in a record.
_MOST_TIMINGS = 2000


class Recorder:
    """One record while it is written; `recording` opens and closes it.  Thread-safe.

    :ivar exit_code: exit code of the command.
    """

    def __init__(self, record: CommandRun, archive: Archive) -> None:
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
        """Set fields of the record's `Head`."""
        with self._lock:
            self._head = replace(self._head, **fields)
            self._archive.describe(self.id, self._head)

    def cell(
        self,
        step: str,
        lane: str,
        run: SuiteRun | None = None,
        *,
        failure: str = "",
        verdicts: Mapping[str, Verdict] | None = None,
        known: Mapping[str, Failure] | None = None,
        warnings: Sequence[str] | None = None,
        added: Sequence[str] = (),
    ) -> None:
        """Add a cell, or replace the one of the same step, lane and run key.

        :param run: the results; None if there is no kernel to run.
        :param failure: why there is no kernel.
        :param verdicts: by test.
        :param known: the entries of known failures, by test.
        :param warnings: all compiler warnings of the kernel; None: unknown.
        :param added: warnings that the step before does not have.
        """
        entries = {
            test: Known(" ".join(entry.reason.split()), entry.link, entry.expires.isoformat())
            for test, entry in (known or {}).items()
        }
        filled = Filled(step, lane, run, failure, verdicts or {}, entries, warnings, added)
        with self._lock:
            # Firmware has one run for each case of a step.
            key = (step, lane, run.key if run is not None else "")
            position = self._places.setdefault(key, len(self._places))
            self._archive.put(self.id, position, filled, self._started)

    def on_step(self, step: progress.Task, outcome: str) -> None:
        """Add a step of the progress display that has ended."""
        with self._lock:
            if len(self._timings) < _MOST_TIMINGS:
                began = max(0.0, step.begin - self._clock)
                log = str(step.log or "")
                timing = Timing(step.title, step.depth, began, step.elapsed, outcome, log)
                self._timings.append(timing)

    def close(self, exit_code: int, error: str = "") -> None:
        """Record the end of the command."""
        with self._lock:
            head = replace(self._head, error=error)
            timings = sorted(self._timings, key=lambda one: (one.started, one.depth))
            self._archive.finish(self.id, head, timings, time.time(), exit_code)


@contextlib.contextmanager
def recording(
    base: str, command: str | None = None, archive: Archive | None = None
) -> Iterator[Recorder]:
    """Record the block as one run.

    :param base: the base, or the name of another kernel.
    :param command: by default the arguments of the process.
    :raises InfraError: the store cannot be written.
    """
    archive = archive or Archive()
    started = time.time()
    head = Head(tool=__version__, versions=_versions())
    typed = shlex.join(sys.argv[1:]) if command is None else command
    record = CommandRun(new_id(started), typed, base, State.RUNNING, started, head=head)
    archive.begin(record)
    recorder = Recorder(record, archive)
    progress.listeners.append(recorder.on_step)
    store.belong_to(record.id)
    try:
        yield recorder
    except BaseException as error:
        # The original error is raised, even if the store cannot be written.
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


def steps_of(patches: Sequence[tuple[str, Patch | None]]) -> tuple[StepRecord, ...]:
    """Return the steps of a record for the label and patch of each."""
    return tuple(
        StepRecord(label)
        if patch is None
        else StepRecord(label, patch.subject, patch.name, patch.sha256)
        for label, patch in patches
    )
