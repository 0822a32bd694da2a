# SPDX-License-Identifier: GPL-2.0-only
"""What is done for each step and suite, told to the one that listens; nothing is shown here.

A cell is a row and a column of a table: a step and a suite, or a scenario and a machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from iommuq.results.known import Verdict
from iommuq.results.store import Run

Judge = Callable[[Run], Mapping[str, Verdict]]


class Listener(Protocol):
    """What wants to know; see the functions of the same names."""

    def busy(self, row: str, column: str, doing: str) -> None:
        """See `busy`."""

    def done(self, row: str, column: str, run: Run, judge: Judge | None) -> None:
        """See `done`."""

    def failed(self, row: str, column: str, why: str, short: str) -> None:
        """See `failed`."""


_listeners: list[Listener] = []


def listen(listener: Listener) -> None:
    """Tell *listener* what happens from now on; a second call with the same one does nothing."""
    if listener not in _listeners:
        _listeners.append(listener)


def busy(row: str, column: str, doing: str) -> None:
    """Say what is done for a cell.

    :param doing: ``building`` or ``running``.
    """
    for listener in _listeners:
        listener.busy(row, column, doing)


def done(row: str, column: str, run: Run, judge: Judge | None = None) -> None:
    """Say what came of a cell.

    :param judge: gives the verdicts of the run; None for the listener's own.
    """
    for listener in _listeners:
        listener.done(row, column, run, judge)


def failed(row: str, column: str, why: str, short: str) -> None:
    """Say that a cell has no results.

    :param why: the reason.
    :param short: the same in a few words.
    """
    for listener in _listeners:
        listener.failed(row, column, why, short)
