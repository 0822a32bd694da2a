# SPDX-License-Identifier: GPL-2.0-only
"""A kernel that is named on the command line: a base, or ``REPOSITORY@REF`` of git.

The latter becomes a base, as by `iommuq base add`, once its sources are fetched.
"""

from __future__ import annotations

import re
from pathlib import Path

from iommuq.bases import basefile, sources
from iommuq.bases.basefile import BaseSpec
from iommuq.bases.providers.gitref import GitSource
from iommuq.bases.sources import Base
from iommuq.system.errors import UserError
from iommuq.system.files import project_root


def read(words: str) -> BaseSpec:
    """Return the base of a kernel, without fetching anything.

    :param words: a base, or ``REPOSITORY@REF``; the latter is named after the ref, without
        the ``v`` of a release.
    :raises UserError: no such base, no valid ref, or a base of that name has another source.
    """
    repository, at, ref = words.rpartition("@")
    if not at:
        return basefile.load_spec(words)
    name = re.sub(r"^v(?=\d)", "", ref.removeprefix("refs/tags/")).replace("/", "-")
    path = Path(repository).expanduser()
    source = {"provider": "git", "url": str(path.absolute()) if path.is_dir() else repository}
    source["ref"] = ref
    folder = project_root() / "patches" / name
    if not (folder / basefile.FILE).exists():
        return basefile.parse(basefile.render(name, source), folder)
    spec = basefile.load_spec(name)
    if spec.source != GitSource(source["url"], ref):
        raise UserError(
            f"base {name} exists already, but is not {ref} of {source['url']}",
            hint="`iommuq base add NAME git …` adds it with another name",
        )
    return spec


def open_base(spec: BaseSpec) -> Base:
    """Return the sources of what `read` returned; a new base is added.

    :raises UserError: the repository has no such ref, or it is no kernel; nothing was added.
    """
    base = sources.open_base(spec)
    if not spec.path.exists():
        basefile.add(spec.name, {"provider": "git", **vars(spec.source)}, title=spec.title)
    return base
