# SPDX-License-Identifier: GPL-2.0-only
"""Run programs that read untrusted data: with limits, and in a sandbox where one can be made.

They get none of our environment, and see nothing but what they are to read or write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from iommuq.system.errors import IommuqError
from iommuq.system.groups import UNTRUSTED, Bounds
from iommuq.system.run import Completed, failure, run, tail
from iommuq.system.sandbox import calls
from iommuq.system.sandbox.bubblewrap import View
from iommuq.system.temporary import temporary_folder

_PROBE_LIMIT = 30.0
_LAST_OF_GIT = 129  # for a wrong option


@contextmanager
def boxed(
    words: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    writable: Sequence[Path] = (),
    readable: Sequence[Path] = (),
    network: bool = False,
    kvm: bool = False,
    env: Mapping[str, str] | None = None,
    bounds: Bounds = UNTRUSTED,
) -> Iterator[tuple[list[str], Path]]:
    """Yield the command that runs a program in a sandbox, and a directory to run it in.

    :param cwd: a directory that it can write to; by default a temporary one.
    :param writable: further ones.
    :param readable: the files and directories that it can read, besides the host's programs.
    :param network: it may use the network.
    :param kvm: it may use KVM.
    :param env: all its variables, besides PATH, HOME and the locale; without a sandbox it has
        ours, too.
    """
    given = [*bounds.words(), *map(str, words)]
    with temporary_folder("read") as folder:
        (folder / "work").mkdir()
        place = cwd or folder / "work"
        if missing():
            set_ = [f"{key}={value}" for key, value in (env or {}).items()]
            yield ["env", *set_, *given], place
        else:
            (folder / "calls").write_bytes(calls.program(guests=False))
            view = View((place, *writable), tuple(readable), network=network, kvm=kvm)
            # The limits inside: bubblewrap might start it before we had set them.
            yield view.argv(given, env or {}, folder / "calls"), place


def read(
    words: Sequence[str | Path],
    *,
    stdin: str | bytes | None = None,
    timeout: float | None = None,
    check: bool = True,
    most: int | None = None,
    **options: Any,
) -> Completed:
    """Run a program that reads untrusted data to its end.

    :param options: of `boxed`; `run` describes the others.
    """
    with boxed(words, **options) as (argv, place):
        given: dict[str, Any] = {"stdin": stdin, "timeout": timeout, "most": most}
        done = run(argv, cwd=place, check=False, watched=True, **given)
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
