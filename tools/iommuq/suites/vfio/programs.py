# SPDX-License-Identifier: GPL-2.0-only
"""Build the programs of a tree's ``selftests/vfio``, static, and keep them in the cache.

Most patches change none of their sources, so most steps have the same programs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from iommuq.build import directory
from iommuq.build.workspace import Workspace
from iommuq.queue.steps import Step
from iommuq.suites.selftest import REASON, export_headers, keep, reason, run_make
from iommuq.system import arches, files, progress, toolchain
from iommuq.system.files import cache_dir, hash_of
from iommuq.system.git.objects import Objects
from iommuq.system.tables import own_table
from iommuq.system.temporary import temporary_folder

#: The programs of the tree.
FOLDER = "tools/testing/selftests/vfio"
#: Part of the key; raise it when the same sources give other programs.
_GENERATION = "1"
_INPUTS: list[str] = own_table(__package__, "programs.toml")["inputs"]
_ARCH = "x86_64"


def key(workspace: Workspace, step: Step) -> str:
    """Return a hash of all inputs of the programs of a step; empty: its tree has none."""
    with temporary_folder("vfio") as folder:
        found = Objects(workspace.base.git_dir, folder).entries(step.tree, _INPUTS)
    if FOLDER not in found:
        return ""
    return hash_of(_GENERATION, toolchain.identity(), *(f"{p} {found[p]}" for p in sorted(found)))


def find(name: str) -> Path | None:
    """Return the folder of programs in the cache, by their key."""
    kept = cache_dir() / "programs" / name
    if not name or not kept.is_dir():
        return None
    os.utime(kept)
    return kept


def build(workspace: Workspace, step: Step) -> Path | None:
    """Return the folder of the programs of a step; None: its tree has none.

    A program that does not compile leaves a file with the reason.

    :raises ToolMissing: a tool or a header of the system is missing.
    """
    name = key(workspace, step)
    found = find(name)
    if found is not None or not name:
        return found
    base = workspace.base
    with directory.hold(base):
        kdir = directory.enter(base, step, arches.get(_ARCH), "vfio")
        log = files.new_log(f"build-{base.spec.name}-vfio-{step.label}")
        with (
            progress.task(f"Building selftests/vfio of {base.spec.name} {step.label}", log=log),
            temporary_folder("vfio") as into,
        ):
            _make(kdir.source, kdir.objects, into, log)
            keep(into, cache_dir() / "programs" / name)
    return find(name)


def _make(source: Path, objects: Path, into: Path, log: Path) -> None:
    exported = export_headers(source, objects, log)
    output = objects / "programs"
    # Remove programs of other steps.
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    argv = ["make", "-k", "-C", f"{source}/{FOLDER}", f"ARCH={_ARCH}", f"OUTPUT={output}"]
    argv += [f"KHDR_INCLUDES=-isystem {exported}", "LDFLAGS=-static"]
    # Assertions print the path of their file.
    argv += [f"EXTRA_CFLAGS=-ffile-prefix-map={source}/="]
    # check=False: a program that is missing afterwards did not compile.
    said = run_make(argv, source, log, check=False)
    for path in sorted((source / FOLDER).glob("*.c")):
        if (output / path.stem).exists():
            shutil.copy2(output / path.stem, into / path.stem)
        else:
            (into / f"{path.stem}{REASON}").write_text(reason(said, path.name, source))
