# SPDX-License-Identifier: GPL-2.0-only
"""Remarks from reading the source of drivers: ``drivers-read.toml``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from iommuq.system import tables
from iommuq.system.tables import Table


@dataclass(frozen=True)
class Note(Table):
    """A remark on a driver.

    :ivar bases: the kernels that it is about.
    :ivar queue: it is about a kernel with the whole queue, and not without.
    :ivar opens: the goal that it stands against, of those of ``goals.md``; 0: none.
    """

    driver: str
    bases: tuple[str, ...]
    text: str
    queue: bool = False
    opens: int = 0


@dataclass(frozen=True)
class _Document(Table):
    note: tuple[Note, ...]


def of(base: str, *, queue: bool = False) -> tuple[Note, ...]:
    """Return the notes on the drivers of a base, or on those of its whole queue."""
    with resources.as_file(resources.files(__package__).joinpath("drivers-read.toml")) as path:
        found = tables.load_toml(_Document, path).note
    return tuple(note for note in found if base in note.bases and note.queue == queue)
