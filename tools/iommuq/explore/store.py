# SPDX-License-Identifier: GPL-2.0-only
"""Finds are kept, and tried first by the next exploration of the same base."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from iommuq.explore.finds import Find, load
from iommuq.explore.play import AnyFind
from iommuq.system.errors import InfraError, UserError, os_errors_as
from iommuq.system.files import hash_of, state_dir, write_json

#: Most files of finds that are tried first, and the largest size of one in bytes.
MOST, SIZE = 500, 1 << 20


def folder(base: str) -> Path:
    """Return the folder of a base: its finds, and the examples of Hypothesis."""
    return state_dir() / "explore" / base


def keep(base: str, find: AnyFind) -> Path:
    """Store a find under its signature, and return the file.

    :raises InfraError: it cannot be written.
    """
    path = folder(base) / "finds" / f"{hash_of(find.signature)[:16]}.json"
    with os_errors_as(InfraError, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, find.to_json())
    return path


def kept(base: str) -> Iterable[Find]:
    """Yield the finds of a base; a file that cannot be used is left out."""
    for path in sorted((folder(base) / "finds").glob("*.json"))[:MOST]:
        try:
            yield read(path)
        except UserError:
            continue


def read(path: Path) -> Find:
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
        return load(json.loads(data), str(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from error
