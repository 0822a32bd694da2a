# SPDX-License-Identifier: GPL-2.0-only
"""What ``sandbox.toml`` has in it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from iommuq.system import tables

DATA = Path(__file__).with_name("sandbox.toml")
MIB = 1 << 20


@dataclass(frozen=True)
class Limits(tables.Table):
    """The limits of a sandbox; ``sandbox.toml`` explains each."""

    processes: int
    memory: int
    address_space: int
    file_size: int
    disk: int
    files: int
    tmp: int
    shm: int
    output: int
    lines: int
    seconds: float


@dataclass(frozen=True)
class Calls(tables.Table):
    """The system calls that a sandbox allows.

    :ivar always: names, in groups.
    :ivar families: of sockets.
    :ivar trace: requests of ptrace(), where guests run.
    """

    always: dict[str, str]
    families: tuple[int, ...]
    trace: tuple[int, ...]


@dataclass(frozen=True)
class Document(tables.Table):
    """The whole of ``sandbox.toml``."""

    readable: tuple[str, ...]
    network: tuple[str, ...]
    limits: Limits
    calls: Calls


@cache
def document() -> Document:
    """Return what ``sandbox.toml`` has in it."""
    return tables.load_toml(Document, DATA)


def default_limits() -> Limits:
    """Return the limits of ``sandbox.toml``."""
    return document().limits
