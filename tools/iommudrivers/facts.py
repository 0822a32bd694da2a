# SPDX-License-Identifier: GPL-2.0-only
"""Assumed results of functions whose source is not read: ``drivers.toml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

from iommudrivers import values as v
from iommudrivers.values import Kind, Place, Value, Values
from iommuq.system import tables
from iommuq.system.tables import Table, require

Gives = Literal["memory", "error", "number", "pointer", "count", "truth", "callback", "anything"]


@dataclass(frozen=True)
class Call(Table):
    """Functions with the same kind of result.

    :ivar gives: the kind of result.
    """

    gives: Gives
    names: tuple[str, ...]


@dataclass(frozen=True)
class _Document(Table):
    call: tuple[Call, ...]

    def __post_init__(self) -> None:
        names = [name for call in self.call for name in call.names]
        twice = {name for name in names if names.count(name) > 1}
        require(not twice, f"{', '.join(sorted(twice))} is there twice")


@cache
def load() -> Mapping[str, Gives]:
    """Return the kind of result of each function."""
    with resources.as_file(resources.files(__package__).joinpath("drivers.toml")) as path:
        return _read(path)


def _read(path: Path) -> Mapping[str, Gives]:
    calls = tables.load_toml(_Document, path).call
    return {name: call.gives for call in calls for name in call.names}


def result(name: str, place: Place, when: str) -> Values | None:
    """Return the possible values of a call; None if the function is unknown.

    :param when: the condition of the call.
    """
    gives = load().get(name)
    if gives == "memory":
        return frozenset({v.POINTER, Value(Kind.NULL, name=name, place=place)})
    if gives in ("error", "number"):
        error = Value(Kind.ERRNO, name=f"{name}()", place=place, when=when)
        return frozenset({error, *(v.COUNT if gives == "number" else v.number(0))})
    if gives == "pointer":
        return frozenset({v.POINTER})
    if gives == "anything":
        return v.anything(f"{name}()", place)
    fixed: Mapping[str, Values] = {"count": v.COUNT, "truth": v.BOOL}
    return fixed.get(gives) if gives else None
