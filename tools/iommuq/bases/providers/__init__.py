# SPDX-License-Identifier: GPL-2.0-only
"""The providers of sources, one module each.

A provider puts one commit, ``refs/heads/base``, into a bare repository.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from iommuq.bases.providers.debian import DebianSource
from iommuq.bases.providers.directory import DirectorySource
from iommuq.bases.providers.gitref import GitSource
from iommuq.bases.providers.tarball import TarballSource

Source = DebianSource | GitSource | TarballSource | DirectorySource

#: The ``provider`` key of a ``[source]`` table -> the dataclass of the table, whose first
#: field is where the sources are.  A new provider needs a file here and its name above.
KINDS: Mapping[str, type[Source]] = {kind.provider: kind for kind in get_args(Source)}
