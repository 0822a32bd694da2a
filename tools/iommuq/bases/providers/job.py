# SPDX-License-Identifier: GPL-2.0-only
"""What a provider is given and what it gives back, the same for all of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from iommuq.system.errors import UserError
from iommuq.system.git.objects import open_repository

#: The one reference of a base's repository.
BASE_REF = "refs/heads/base"

_VERSION_LINE = re.compile(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION)[ \t]*=[ \t]*(\S*)", re.M)


class Table:
    """Base of the dataclasses that are read from a TOML table: no key but their own."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


@dataclass(frozen=True)
class Job:
    """One request to a provider.

    :ivar name: the base's name, for messages.
    :ivar folder: the folder of its ``base.toml``, which relative paths start from.
    :ivar repo: an empty bare repository, to be given `BASE_REF`.
    :ivar work: an empty directory for downloads, removed afterwards.
    :ivar log: file for the output of all processes.
    :ivar update: look for something newer, not only for what is known already.
    :ivar verify: to be called with the version and the sha256 (empty if there is no
        single file) before the content is used; raises if they are not as expected.
    :ivar notice: called with each line that the user should read.
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
        """Return the file or directory that *path*, as ``base.toml`` has it, means."""
        return (self.folder / Path(path).expanduser()).resolve()


@dataclass(frozen=True)
class Provided:
    """What a provider found.

    :ivar version: the distribution's version, a commit id or a file's name.
    :ivar sha256: of the single file it came in; empty if there is none.
    :ivar commit: the id of the commit that was made.
    :ivar kernel: the kernel's own version, like ``6.12.117``.
    """

    version: str
    sha256: str
    commit: str
    kernel: str


def require(condition: object, message: str) -> None:
    """Refuse a value of a ``[source]`` table.

    :raises ValueError: *condition* is false; pydantic makes its own error of it.
    """
    if not condition:
        raise ValueError(message)


def kernel_version(makefile: str, where: str) -> str:
    """Read a kernel's version out of its top Makefile.

    :param makefile: the text of the Makefile; empty if there is none.
    :param where: what it is the Makefile of, for the message.
    :return: the same as ``make kernelversion`` prints.
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
    """Return the id of the commit that *repo* holds."""
    return open_repository(repo).find(BASE_REF)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
