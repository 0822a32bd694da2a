# SPDX-License-Identifier: GPL-2.0-only
"""Run programs that read untrusted data: with limits, and in a sandbox where one can be made.

They get none of our environment, and see nothing but what they are to read or write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from iommuq.system.errors import IommuqError
from iommuq.system.groups import UNTRUSTED, Bounds
from iommuq.system.run import Completed, failure, run, tail
from iommuq.system.sandbox import calls
from iommuq.system.sandbox.bubblewrap import View
from iommuq.system.temporary import temporary_folder

_PROBE_LIMIT = 30.0
_LAST_OF_GIT = 129  # for a wrong option


def read(
    words: Sequence[str | Path],
    *,
    cwd: Path,
    writable: Sequence[Path] = (),
    readable: Sequence[Path] = (),
    network: bool = False,
    env: Mapping[str, str] | None = None,
    stdin: str | bytes | None = None,
    timeout: float | None = None,
    check: bool = True,
    most: int | None = None,
    bounds: Bounds = UNTRUSTED,
) -> Completed:
    """Run a program; `run` describes what is not named here.

    :param cwd: a directory that it can write to.
    :param writable: further ones.
    :param readable: the files and directories that it can read, besides the host's programs.
    :param network: it may use the network.
    :param env: all its variables, besides PATH, HOME and the locale.
    """
    argv, given = [*bounds.words(), *map(str, words)], dict(env or {})
    with temporary_folder("read") as folder:
        if not missing():
            place = folder / "calls"
            place.write_bytes(calls.program(guests=False))
            view = View((cwd, *writable), tuple(readable), network=network)
            argv, given = view.argv(argv, given, place), {}
        done = run(
            argv,
            cwd=cwd,
            env=given,
            stdin=stdin,
            timeout=timeout,
            check=False,
            watched=True,
            most=most,
        )
    if done.returncode > _LAST_OF_GIT:  # bubblewrap's word for a signal
        done = replace(done, returncode=128 - done.returncode)
    if check and done.returncode != 0:
        raise failure(done)
    return done


@cache
def missing() -> str:
    """Return why this machine has no sandbox for readers; empty if it has one."""
    with temporary_folder("read") as folder:
        place = folder / "calls"
        try:
            place.write_bytes(calls.program(guests=False))
            argv = View((folder,)).argv(["true"], {}, place)
            done = run(argv, cwd=folder, timeout=_PROBE_LIMIT, check=False, watched=True)
        except IommuqError as error:
            return error.what
    return "" if done.returncode == 0 else tail(done.stderr, 1) or f"exit {done.returncode}"
