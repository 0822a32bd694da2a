# SPDX-License-Identifier: GPL-2.0-only
"""Run programs that read untrusted data: with limits, and in a sandbox where one can be made.

They get none of our environment, and see nothing but what they are to read or write.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iommuq.system import progress
from iommuq.system.errors import InfraError, IommuqError
from iommuq.system.groups import BOX, UNTRUSTED, Bounds
from iommuq.system.run import Completed, describe_status, exceeded, failure, run, tail
from iommuq.system.sandbox.bubblewrap import View, give
from iommuq.system.temporary import temporary_folder

_PROBE_LIMIT = 30.0
# Seconds, where the caller says none.
_LIMIT = 600.0
# As in `iommuq.system.sandbox.box`, but not the same user as a review.
_FIRST_ID = 0x71000000
# What says that the command did not begin.
_OUR_OWN = re.compile(r"(?:bwrap|prlimit|setpriv|env): ")

_works: list[bool] = []
_told: set[str] = set()


@dataclass(frozen=True)
class Boxed:
    """A command in a sandbox.

    :ivar cwd: the directory to run it in.
    :ivar env: variables on top of ours; none in a sandbox.
    """

    argv: list[str]
    cwd: Path
    env: Mapping[str, str]


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
) -> Iterator[Boxed]:
    """Yield the command that runs a program in a sandbox, as a user of its own if we are root.

    :param cwd: a directory that it can write to, and is given to it; by default a temporary one.
    :param writable: further ones.
    :param readable: the files and directories that it can read, besides the host's programs.
    :param network: it may use the network.
    :param kvm: it may use KVM.
    :param env: all its variables, besides PATH, HOME and the locale; without a sandbox it has
        ours, too.
    """
    argv = [*bounds.words(), *map(str, words)]
    with temporary_folder("read") as folder:
        (folder / "work").mkdir()
        view = View(
            (cwd or folder / "work", *writable),
            tuple(readable),
            network=network,
            kvm=kvm,
            owner=_FIRST_ID + os.getpid() if os.geteuid() == 0 else None,
        )
        if why := missing():
            if why not in _told:
                _told.add(why)
                progress.note(f"no sandbox for what others wrote, limits alone: {why}")
            yield Boxed(argv, view.writable[0], env or {})
            return
        for place in view.writable if view.owner is not None else ():
            give(place, view.owner or 0)
        folder.chmod(0o711)
        # The limits inside: bubblewrap might start it before we had set them.
        yield Boxed(view.argv(argv, env or {}, folder / "calls"), view.writable[0], {})


def read(
    words: Sequence[str | Path],
    *,
    stdin: str | bytes | None = None,
    timeout: float = _LIMIT,
    check: bool = True,
    most: int | None = None,
    **options: Any,
) -> Completed:
    """Run a program that reads untrusted data to its end.

    :param options: of `boxed`; `run` describes the others.
    :raises InfraError: it could not be started, or was killed, but not by its limits.
    """
    with boxed(words, **options) as inside:
        given: dict[str, Any] = {"stdin": stdin, "timeout": timeout, "most": most}
        argv, place = inside.argv, inside.cwd
        done = run(argv, cwd=place, env=inside.env, check=False, watched=True, **given)
    # A shell calls itself by the name of the file with the filter.
    ours = BOX in argv and done.stderr.startswith(f"{argv[argv.index(BOX) + 1]}: ")
    if done.returncode != 0 and (ours or _OUR_OWN.match(done.stderr)):
        raise InfraError(f"{words[0]} cannot be started: {tail(done.stderr, 1)}")
    if done.returncode < 0 and not exceeded(done):
        raise InfraError(f"{words[0]} was {describe_status(done.returncode)}")
    if check and done.returncode != 0:
        raise failure(done)
    return done


def missing() -> str:
    """Return why this machine has no sandbox for readers; empty if it has one."""
    if not _works:
        with temporary_folder("read") as folder:
            try:
                argv = View((folder,)).argv(["true"], {}, folder / "calls")
                done = run(argv, cwd=folder, timeout=_PROBE_LIMIT, check=False, watched=True)
            except IommuqError as error:
                return error.what
        if done.returncode != 0:
            return tail(done.stderr, 1) or f"exit {done.returncode}"
        _works.append(True)
    return ""
