# SPDX-License-Identifier: GPL-2.0-only
"""Read the files of a tree with IOMMU drivers, and those that they call.

`git grep` finds the files with ``iommu_ops`` in each folder; its result is cached by the id
of the folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tarfile
from pathlib import Path

from iommuq.system import files as dirs
from iommuq.system.errors import InfraError, VerdictError
from iommuq.system.git.objects import Objects

#: Always read: the drivers, the core, and other files that make reserved regions.
_WANTED = (
    "drivers/iommu",
    "drivers/acpi/arm64/iort.c",
    "drivers/acpi/viot.c",
    "include/linux/iommu.h",
    "include/linux/io-pgtable.h",
    "include/linux/acpi_iort.h",
)
#: Large folders: each subfolder is searched and cached separately.
_LARGE = ("arch", "drivers")
#: Folders without kernel code.
_SKIPPED = ("Documentation", "tools", "samples", "LICENSES")
_GENERATION = "1"


def read_tree(store: Objects, tree: str) -> dict[str, bytes]:
    """Return the C files of a tree that the analysis needs, by path.

    :param tree: the id of a tree or a commit.
    :raises VerdictError: there are no IOMMU drivers in it.
    """
    paths = [*_WANTED, *(path for path in holders(store, tree) if not _is_wanted(path))]
    present = store.entries(tree, paths)
    if "drivers/iommu" not in present:
        raise VerdictError(f"{tree}: no drivers/iommu in it", hint="is it a kernel?")
    archive = store.folder / "drivers.tar"
    words = ("archive", "--format=tar", "-o", archive, tree, "--")
    store.git(*words, *sorted(present))
    files = {}
    try:
        with tarfile.open(archive) as members:
            for member in members:
                if member.isfile() and member.name.endswith((".c", ".h")):
                    stream = members.extractfile(member)
                    files[member.name] = stream.read() if stream else b""
    except tarfile.TarError as error:
        raise InfraError(f"git archive: {error}") from error
    finally:
        archive.unlink(missing_ok=True)
    return dict(sorted(files.items()))


def holders(store: Objects, tree: str) -> list[str]:
    """Return the C files of a tree that contain ``struct iommu_ops``."""
    tops = store.entries(tree, [""])
    tops = {path: entry for path, entry in tops.items() if path not in _SKIPPED}
    large = [f"{path}/" for path in _LARGE if path in tops]
    below = store.entries(tree, large) if large else {}
    parts = {path: entry for path, entry in tops.items() if f"{path}/" not in large} | below
    found = []
    for path, entry in sorted(parts.items()):
        _, kind, name = entry.split()
        if kind == "tree":
            found += [f"{path}/{each}" for each in _search(store, name)]
    return found


def _search(store: Objects, tree: str) -> list[str]:
    """Return the files below a folder; from the cache if it was searched before."""
    key = hashlib.sha256(f"{_GENERATION} {tree}".encode()).hexdigest()
    memo = dirs.cache_dir() / "drivers" / f"{key}.json"
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(memo.read_text(encoding="utf-8"))
        if isinstance(known, list) and all(isinstance(each, str) for each in known):
            return known
    words = ("grep", "-l", "-F", "-w", "-e", "struct iommu_ops", tree)
    done = store.git(*words, check=False)
    if done.returncode not in (0, 1):
        raise InfraError(f"git grep: {done.stderr.strip()[:200]}", hint="fetch the base again")
    lines = [line.removeprefix(f"{tree}:") for line in done.output.splitlines()]
    found = sorted(line for line in lines if line.endswith((".c", ".h")))
    _keep(memo, found)
    return found


def _keep(memo: Path, found: list[str]) -> None:
    # A full disk is no error: the search can be repeated.
    with contextlib.suppress(OSError):
        memo.parent.mkdir(parents=True, exist_ok=True)
        temporary = memo.with_name(f".{memo.name}.{os.getpid()}")
        temporary.write_text(json.dumps(found), encoding="utf-8")
        temporary.replace(memo)


def _is_wanted(path: str) -> bool:
    return any(path == each or path.startswith(f"{each}/") for each in _WANTED)
