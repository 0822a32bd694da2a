# SPDX-License-Identifier: GPL-2.0-only
"""Turn (tree, architecture, configuration) into an image that can be booted.

Images are kept under a key that is the hash of all that went into them, so
nothing is built twice.  What must be built is built incrementally: one work
tree a base, whose files change only where two steps differ, and one build
directory for each architecture.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from iommuq.build import directory
from iommuq.build import warnings as buildlog
from iommuq.build.directory import BuildDirectory, configure, explain, interruptible, make_image
from iommuq.build.kconfig import Fragments
from iommuq.build.workspace import Workspace
from iommuq.queue.steps import Step, forget_steps, make_step
from iommuq.system import cache, files, toolchain
from iommuq.system.arches import Arch
from iommuq.system.errors import DiskFull, InfraError, ObjectsLost, VerdictError
from iommuq.system.files import cache_dir

#: Part of every key; to be raised when the same input would give another image.
_GENERATION = "2"


@dataclass(frozen=True)
class Image:
    """A kernel that was built, and all that is needed to run it with kunit.py.

    :ivar key: content key.
    :ivar folder: directory with the image where a build directory has it, the
        ``.config`` and the tree's own ``tools/testing/kunit``.
    :ivar warnings: all compiler warnings of this kernel, normalised.
    :ivar log: the log of the build; it may be gone by now.
    :ivar built: whether this call built it.
    """

    key: str
    folder: Path
    arch: Arch
    warnings: frozenset[str]
    log: Path
    built: bool


@dataclass(frozen=True)
class Addition:
    """Something else that is made from a tree and kept with its image.

    :ivar key: a hash of all that goes into it besides the tree.
    :ivar make: called with the source tree, the build directory, an empty directory
        to fill and the log, while nobody else builds this base.
    """

    key: str
    make: Callable[[Path, Path, Path, Path], None]

    #: Where it is, in the image's folder.
    FOLDER: ClassVar[str] = "addition"


def image_key(
    step: Step, arch: Arch, fragments: Fragments, addition: Addition | None = None
) -> str:
    """Return the content key of an image: tree, configuration, compiler and addition."""
    words = [_GENERATION, step.tree, arch.name, fragments.key, toolchain.identity()]
    if addition is not None:
        words.append(addition.key)
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def find_image(key: str, arch: Arch) -> Image | None:
    """Return an image that was built before, and mark it as used."""
    folder = _images() / key
    record = folder / "image.json"
    try:
        data = json.loads(record.read_text())
        os.utime(record)
        warnings, log = frozenset(data["warnings"]), Path(data["log"])
        # A power cut may leave files of the right names with nothing in them.
        whole = (folder / arch.image).stat().st_size == data["size"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return Image(key, folder, arch, warnings, log, built=False) if whole else None


def build_image(
    workspace: Workspace,
    step: Step,
    arch: Arch,
    fragments: Fragments,
    addition: Addition | None = None,
) -> Image:
    """Return the image for a step, building it if it was not built before.

    If the repository lost the step's tree, say because another process fetched the base
    again, the step is made again: the same patches give the same ids.

    :param addition: what else to make from the tree.
    :raises VerdictError: the step does not compile, or is not configured as asked.
    :raises InfraError: a tool is missing, the disk is full.
    :raises ObjectsLost: the sources of the base are gone, too.
    """
    base = workspace.base
    key = image_key(step, arch, fragments, addition)
    found = find_image(key, arch)
    if found is not None:
        return found
    with directory.hold(base):
        found = find_image(key, arch)
        if found is not None:
            return found
        try:
            kdir = directory.enter(base, step, arch, fragments.variant)
        except ObjectsLost:
            forget_steps(base)
            make_step(base, workspace.queue, workspace.overlay, to=step.label)
            kdir = directory.enter(base, step, arch, fragments.variant)
        log = files.new_log(f"build-{base.spec.name}-{arch.name}-{step.label}")
        with interruptible(kdir.objects, kdir.notes / "building"):
            configure(kdir, fragments, log)
            ledger = buildlog.load(kdir.notes / "warnings.json")
            done = make_image(kdir, fragments.make_args, log)
            failure = explain(kdir, done, log) if done.returncode != 0 else None
            if failure is not None and not isinstance(failure, VerdictError):
                raise failure
            # If the patch does not compile, what make got done is whole, and good.
            ledger = buildlog.update(ledger, done.output.splitlines(), kdir.source, kdir.objects)
            buildlog.save(ledger, kdir.notes / "warnings.json")
        if failure is not None:
            raise failure
        image = _publish(kdir, key, buildlog.union(ledger), log, addition)
        cache.shrink()
        return image


def _publish(
    kdir: BuildDirectory,
    key: str,
    found: frozenset[str],
    log: Path,
    addition: Addition | None = None,
) -> Image:
    """Copy what is needed to run the image to its place, whole or not at all."""
    images = _images()
    # Nobody else builds this base now: whoever began these is dead.
    prefix = f".{kdir.base.spec.name}.tmp-"
    for left in images.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    images.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=images))
    try:
        target = temporary / kdir.arch.image
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(kdir.objects / kdir.arch.image, target)
        shutil.copy2(kdir.objects / ".config", temporary / ".config")
        shutil.copytree(
            kdir.source / "tools/testing/kunit",
            temporary / "tools/testing/kunit",
            # Compiled modules come along: they hold as long as the sources' times do.
            ignore=shutil.ignore_patterns("test_data"),
        )
        if addition is not None:
            (temporary / Addition.FOLDER).mkdir()
            addition.make(kdir.source, kdir.objects, temporary / Addition.FOLDER, log)
        # kunit.py wants one, to compare; what it compares was checked above.
        (temporary / ".kunitconfig").write_text("CONFIG_KUNIT=y\n")
        record = {
            "warnings": sorted(found),
            "log": str(log),
            "title": kdir.title,
            "size": target.stat().st_size,
        }
        (temporary / "image.json").write_text(json.dumps(record, indent=1))
        temporary.chmod(0o755)
        final = images / key
        # A folder without its record is what a killed clean-up left.
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
    except OSError as error:
        hint = "`iommuq doctor` shows the room"
        full = os.strerror(errno.ENOSPC)
        # copytree() gathers what went wrong, as text.
        if full in str(error):
            raise DiskFull(f"{images}: {full}", hint=hint) from error
        raise InfraError(f"{images}: {error.strerror or error}", hint=hint) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Image(key, final, kdir.arch, found, log, built=True)


def _images() -> Path:
    return cache_dir() / "images"
