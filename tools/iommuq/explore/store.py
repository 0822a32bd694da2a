# SPDX-License-Identifier: GPL-2.0-only
"""Finds are kept, and tried first by the next exploration of the same base.

Those that did not repeat are kept apart, and not tried.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from iommuq.explore.drivers import finds as driver_finds
from iommuq.explore.finds import load
from iommuq.explore.play import AnyFind, Seen
from iommuq.system.errors import InfraError, UserError, os_errors_as
from iommuq.system.files import hash_of, state_dir, write_json

#: Most files of finds that are tried first, and the largest size of one in bytes.
MOST, SIZE = 500, 1 << 20


def folder(place: str) -> Path:
    """Return the folder of a base, or of a machine of it: its finds, and Hypothesis' examples."""
    return state_dir() / "explore" / place


def keep(place: str, find: AnyFind, seen: Seen = Seen.ALWAYS) -> Path:
    """Store a find under its signature and step, and return the file.

    :raises InfraError: it cannot be written.
    """
    name = f"{hash_of(find.signature, find.step)[:16]}.json"
    path = folder(place) / seen / name
    with os_errors_as(InfraError, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, find.to_json())
    if seen is not Seen.ONCE:
        # How it repeats is known now.
        old = folder(place) / Seen.ONCE / name
        with os_errors_as(InfraError, old):
            old.unlink(missing_ok=True)
    return path


def kept(place: str) -> Iterable[AnyFind]:
    """Yield the finds of a place to try first; a file that cannot be used is left out."""
    paths = (
        path for seen in (Seen.ALWAYS, Seen.ONCE)
        for path in sorted((folder(place) / seen).glob("*.json"))
    )  # fmt: skip
    for path in islice(paths, MOST):
        try:
            yield read(path)
        except UserError:
            continue


def read(path: Path) -> AnyFind:
    """Read a find from a file.

    :raises UserError: it cannot be read, or is malformed.
    """
    # A FIFO would have us wait.
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path}: not a regular file")
    with os_errors_as(UserError, path), path.open("rb") as file:
        data = file.read(SIZE + 1)
    if len(data) > SIZE:
        raise UserError(f"{path}: larger than {SIZE} bytes")
    try:
        return load_any(json.loads(data), str(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from error


def load_any(data: object, where: str) -> AnyFind:
    """Check a find, of the core or of a driver.

    :raises UserError: it is malformed.
    """
    if isinstance(data, dict) and "machine" in data:
        return driver_finds.load(data, where)
    return load(data, where)
