# SPDX-License-Identifier: GPL-2.0-only
"""Report progress to listeners, by cell: a step and a suite, or a scenario and a machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from iommuq.results.known import Verdict
from iommuq.results.store import SuiteRun

Judge = Callable[[SuiteRun], Mapping[str, Verdict]]


class Listener(Protocol):
    """A receiver of reports; see the functions of the same names."""

    def busy(self, row: str, column: str, doing: str) -> None:
        """See `busy`."""

    def done(self, row: str, column: str, run: SuiteRun, judge: Judge | None) -> None:
        """See `done`."""

    def failed(self, row: str, column: str, why: str, short: str) -> None:
        """See `failed`."""


_listeners: list[Listener] = []


def listen(listener: Listener) -> None:
    """Add a listener; adding it again does nothing."""
    if listener not in _listeners:
        _listeners.append(listener)


def busy(row: str, column: str, doing: str) -> None:
    """Report that a cell is ``building`` or ``running``."""
    for listener in _listeners:
        listener.busy(row, column, doing)


def done(row: str, column: str, run: SuiteRun, judge: Judge | None = None) -> None:
    """Report the run of a cell.

    :param judge: returns the verdicts of the run; None: the listener decides.
    """
    for listener in _listeners:
        listener.done(row, column, run, judge)


def failed(row: str, column: str, why: str, short: str) -> None:
    """Report that a cell has no results, with the reason, in full and in a few words."""
    for listener in _listeners:
        listener.failed(row, column, why, short)
