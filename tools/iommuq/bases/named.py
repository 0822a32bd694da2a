# SPDX-License-Identifier: GPL-2.0-only
"""A kernel on the command line: ``6.12``, ``~/linux@v6.19``, a package, a directory, a file."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from iommuq.bases import basefile, sources
from iommuq.bases.basefile import BaseSpec
from iommuq.bases.sources import Base
from iommuq.system.errors import UserError
from iommuq.system.files import project_root


class Kind(Enum):
    """What a name stands for."""

    BASE = "a base"
    COMMIT = "REPOSITORY@REF"
    FOLDER = "a directory"
    FILE = "a file"
    PACKAGE = "a Debian package"


@dataclass(frozen=True)
class Named:
    """A parsed name.

    :ivar name: of the base or the package; the ref of a commit.
    :ivar where: the directory or the file; the repository of a commit, which may be a URL.
    """

    kind: Kind
    name: str
    where: str = ""

    @property
    def path(self) -> Path:
        """*where* as a path."""
        return Path(self.where).expanduser()


def parse(words: str) -> Named:
    """Parse the name of a kernel.

    A base comes before a directory of the same name, which is then called ``./NAME``.
    """
    path = Path(words).expanduser()
    repository, at, ref = words.rpartition("@")
    known = project_root() / "patches" / words / basefile.FILE
    if not words or ("/" not in words and _is(known.exists)):
        return Named(Kind.BASE, words)
    if _is(path.is_file) or words.endswith(".deb"):
        return Named(Kind.FILE, path.name, words)
    if _is(path.is_dir):
        return Named(Kind.FOLDER, path.name, words)
    if at:
        return Named(Kind.COMMIT, ref, repository)
    if "/" in words:
        return Named(Kind.FOLDER, path.name, words)
    return Named(Kind.PACKAGE if words.startswith("linux-image-") else Kind.BASE, words)


def _is(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError:  # such as a name that is too long
        return False


def find_spec(words: str) -> BaseSpec:
    """Return the base of a kernel, without fetching anything.

    :param words: a base, or ``REPOSITORY@REF``; the latter is named after the ref, without
        the ``v`` of a release.
    :raises UserError: no such base, no valid ref, or a base of that name has another source.
    """
    named = parse(words)
    if named.kind is not Kind.COMMIT:
        return basefile.load_spec(words)
    name = re.sub(r"^v(?=\d)", "", named.name.removeprefix("refs/tags/")).replace("/", "-")
    url = str(named.path.absolute()) if named.path.is_dir() else named.where
    source = {"provider": "git", "url": url, "ref": named.name}
    folder = project_root() / "patches" / name
    if not (folder / basefile.FILE).exists():
        return basefile.parse(basefile.render(name, source), folder)
    spec = basefile.load_spec(name)
    if not vars(spec.source).items() >= source.items():
        raise UserError(
            f"base {name} exists already, but is not {named.name} of {url}",
            hint="`iommuq base add NAME git …` adds it with another name",
        )
    return spec


def open_base(spec: BaseSpec) -> Base:
    """Return the sources of what `find_spec` returned; a new base is added.

    :raises UserError: the repository has no such ref, or it is no kernel; nothing was added.
    """
    base = sources.open_base(spec)
    if not spec.path.exists():
        basefile.add(spec.name, {"provider": "git", **vars(spec.source)}, title=spec.title)
    return base
