# SPDX-License-Identifier: GPL-2.0-only
"""The providers of sources, one module each.

A provider puts one commit, ``refs/heads/base``, into a bare repository.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from iommuq.bases.providers.debian import DebianSource, provide_debian
from iommuq.bases.providers.directory import DirectorySource, provide_directory
from iommuq.bases.providers.gitref import GitSource, provide_git
from iommuq.bases.providers.job import Job, Provided
from iommuq.bases.providers.tarball import TarballSource, provide_tarball

__all__ = [
    "KINDS",
    "DebianSource",
    "DirectorySource",
    "GitSource",
    "Job",
    "Provided",
    "Source",
    "TarballSource",
    "provide",
]

Source = DebianSource | GitSource | TarballSource | DirectorySource

#: The ``provider`` key of a ``[source]`` table -> the dataclass of the table.
KINDS: Mapping[str, type[Source]] = {
    "debian": DebianSource,
    "git": GitSource,
    "tarball": TarballSource,
    "directory": DirectorySource,
}

_PROVIDERS: Mapping[type[Source], Callable[[Any, Job], Provided]] = {
    DebianSource: provide_debian,
    GitSource: provide_git,
    TarballSource: provide_tarball,
    DirectorySource: provide_directory,
}


def provide(source: Source, job: Job) -> Provided:
    """Fetch the sources and make a commit of them.

    :raises UserError: *source* does not exist or is no kernel.
    :raises InfraError: it could not be reached, was cut short, or no space is left.
    """
    return _PROVIDERS[type(source)](source, job)
