# SPDX-License-Identifier: GPL-2.0-only
"""The input and output of all providers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from iommuq.system.errors import UserError
from iommuq.system.git.objects import open_repository
from iommuq.system.tables import require

#: The one reference of a base's repository.
BASE_REF = "refs/heads/base"

_VERSION_LINE = re.compile(
    r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION)[ \t]*=[ \t]*([\w.+~-]*)", re.M
)


@dataclass(frozen=True)
class Job:
    """One request to a provider.

    :ivar name: the name of the base, for messages.
    :ivar folder: the folder of its ``base.toml``; relative paths start there.
    :ivar repo: an empty bare repository, which gets `BASE_REF`.
    :ivar work: an empty directory for downloads, removed afterwards.
    :ivar log: file for the output of all processes.
    :ivar update: look for a newer version.
    :ivar verify: called with version and sha256 (empty if there is no single file) before
        the content is used; raises `InfraError` if they differ from ``[seen]``.
    :ivar notice: called with each note for the user.
    """

    name: str
    folder: Path
    repo: Path
    work: Path
    log: Path
    update: bool
    verify: Callable[[str, str], None]
    notice: Callable[[str], None]

    def place(self, path: str) -> Path:
        """Resolve a path of ``base.toml``."""
        return (self.folder / Path(path).expanduser()).resolve()


@dataclass(frozen=True)
class Provided:
    """The result of a provider; for the fields see `iommuq.bases.sources.Base`."""

    version: str
    sha256: str
    commit: str
    kernel: str


def require_secure(
    url: str, secure: Sequence[str], open_: Sequence[str], *, insecure: bool
) -> None:
    """Check the scheme of a URL; a path has none.

    :param secure: schemes that are always good.
    :param open_: schemes that anyone on the way could use to change the content.
    :param insecure: the user wants those, too.
    :raises ValueError: it is none of them.
    """
    scheme = url.partition("://")[0] if re.match(r"[A-Za-z0-9][A-Za-z0-9+.-]*://", url) else ""
    refused = scheme in open_ and not insecure
    require(not refused, f"url: {scheme}:// is not encrypted: use https, or insecure = true")
    require(scheme in ("", *secure, *open_), f"url: {scheme} is not supported")


def kernel_version(makefile: str, where: str) -> str:
    """Return the version of a kernel, like ``make kernelversion``.

    :param makefile: the text of its top Makefile; empty if there is none.
    :param where: the name of the tree, for the message.
    :raises UserError: it is not the Makefile of a kernel.
    """
    fields: dict[str, str] = {}
    for key, value in _VERSION_LINE.findall(makefile):
        fields.setdefault(key, value)
    if not fields.get("VERSION") or not fields.get("PATCHLEVEL"):
        raise UserError(
            f"{where}: not a Linux source tree",
            hint="its top Makefile must set VERSION and PATCHLEVEL",
        )
    numbers = [fields.get(key, "") for key in ("VERSION", "PATCHLEVEL", "SUBLEVEL")]
    return ".".join(filter(None, numbers)) + fields.get("EXTRAVERSION", "")


def base_commit(repo: Path) -> str:
    """Return the id of the commit in *repo*."""
    return open_repository(repo).find(BASE_REF)
