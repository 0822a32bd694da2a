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
    """

    driver: str
    bases: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class _Document(Table):
    note: tuple[Note, ...]


def of(base: str) -> tuple[Note, ...]:
    """Return the notes on the drivers of a base."""
    with resources.as_file(resources.files(__package__).joinpath("drivers-read.toml")) as path:
        return tuple(note for note in tables.load_toml(_Document, path).note if base in note.bases)
