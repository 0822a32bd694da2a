# SPDX-License-Identifier: GPL-2.0-only
"""Cache the results, with the hash of the sources and of the analysis as key."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path

from iommudrivers.model import Driver
from iommuq.queue import csource
from iommuq.system import files as dirs


def judged(files: Mapping[str, bytes]) -> tuple[Driver, ...]:
    """Judge the drivers of a tree, or return the cached results.

    :param files: its sources by path.
    """
    from pydantic import TypeAdapter, ValidationError

    form = TypeAdapter(tuple[Driver, ...])
    memo = dirs.cache_dir() / "drivers" / f"judged-{_key(files)}.json"
    with contextlib.suppress(OSError, ValidationError):
        return form.validate_json(memo.read_bytes())
    from iommudrivers.judge import judge_all

    found = tuple(judge_all(files))
    # A full disk is no error: the analysis can be repeated.
    with contextlib.suppress(OSError):
        memo.parent.mkdir(parents=True, exist_ok=True)
        temporary = memo.with_name(f".{memo.name}.{os.getpid()}")
        temporary.write_bytes(form.dump_json(found))
        temporary.replace(memo)
    return found


def _key(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256(_code().encode())
    for path, text in sorted(files.items()):
        digest.update(f"\n{path} {len(text)}\n".encode())
        digest.update(text)
    return digest.hexdigest()


@cache
def _code() -> str:
    """Return the hash of the code of the analysis."""
    digest = hashlib.sha256()
    paths = [*Path(__file__).parent.glob("*.py"), Path(csource.__file__)]
    for path in sorted(paths):
        digest.update(path.read_bytes())
    with resources.as_file(resources.files(__package__).joinpath("drivers.toml")) as data:
        digest.update(data.read_bytes())
    return digest.hexdigest()
