# SPDX-License-Identifier: GPL-2.0-only
"""Build a bootable image from a tree, an architecture and a configuration.

The key of an image is a hash of its inputs.  Builds are incremental: one work tree per base,
one build directory per architecture and variant.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from iommuq.build import directory
from iommuq.build import warnings as buildlog
from iommuq.build.directory import BuildDirectory, configure, explain, interruptible, make_image
from iommuq.build.kconfig import Fragments
from iommuq.build.workspace import Workspace
from iommuq.queue.steps import Step, forget_steps, make_step
from iommuq.system import cache, files, toolchain
from iommuq.system.arches import Arch
from iommuq.system.errors import CommandFailed, DiskFull, InfraError, ObjectsLost, VerdictError
from iommuq.system.files import cache_dir, file_sha256
from iommuq.system.temporary import temporary_folder

#: Part of every key; increase when the same input gives another image.
_GENERATION = "2"


class ImageDamaged(InfraError):
    """A file of an image is not the one that was built; the image was removed."""


# What is known of an image; the only file in it without a hash.
_RECORD = "image.json"


@dataclass(frozen=True)
class Image:
    """A kernel that was built, and the files to run it with kunit.py.

    :ivar key: content key.
    :ivar folder: laid out like a build directory: the image, the ``.config`` and the
        ``tools/testing/kunit`` of the tree.
    :ivar warnings: all compiler warnings of this kernel, normalised.
    :ivar log: the log of the build; may have been removed.
    :ivar built: whether this call built it.
    :ivar hashes: name -> sha256 of each of its files.
    """

    key: str
    folder: Path
    arch: Arch
    warnings: frozenset[str]
    log: Path
    built: bool
    hashes: Mapping[str, str] = field(default_factory=dict, hash=False)

    def check(self) -> str:
        """Compare all files with their hashes, as must be done before each boot.

        :return: the sha256 of the kernel.
        :raises ImageDamaged: one of them differs.
        """
        for name in sorted({*self.hashes, *_files(self.folder)} - {_RECORD}):
            wanted = self.hashes.get(name, "no such file")
            try:
                found = file_sha256(self.folder / name)
            except OSError as error:
                found = str(error.strerror)
            if found != wanted:
                shutil.rmtree(self.folder, ignore_errors=True)
                raise ImageDamaged(
                    f"{self.folder / name}: sha256 is {found}, but {wanted} was built",
                    hint="the image was removed; run the command again to build it",
                )
        return self.hashes.get(str(self.arch.image), "")


@dataclass(frozen=True)
class Addition:
    """Additional files that are made from a tree and kept with its image.

    :ivar key: a hash of its inputs besides the tree.
    :ivar make: called under the lock of the base, with the source tree, the build
        directory, an empty directory to fill and the log.
    """

    key: str
    make: Callable[[Path, Path, Path, Path], None]

    #: Its folder in the image's folder.
    FOLDER: ClassVar[str] = "addition"


def image_key(
    step: Step, arch: Arch, fragments: Fragments, addition: Addition | None = None
) -> str:
    """Return the content key of an image: tree, configuration, compiler and addition."""
    words = [_GENERATION, step.tree, arch.name, fragments.key, toolchain.identity()]
    if addition is not None:
        words.append(addition.key)
    return files.hash_of(*words)


def _files(folder: Path) -> list[str]:
    """Return the names of all files below a directory, links and what else is there included."""
    found = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    return [str(path.relative_to(folder)) for path in found]


def hashes_of(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file below a directory, by its name there."""
    return {name: file_sha256(folder / name) for name in _files(folder)}


def find_image(key: str, arch: Arch) -> Image | None:
    """Return an image from the cache, and mark it as used."""
    folder = _images() / key
    record = folder / _RECORD
    try:
        data = json.loads(record.read_text())
        os.utime(record)
        warnings, log = frozenset(data["warnings"]), Path(data["log"])
        hashes = {str(name): str(value) for name, value in data["sha256"].items()}
        # After a power cut the file may be empty.
        whole = (folder / arch.image).stat().st_size == data["size"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if not whole or str(arch.image) not in hashes:
        return None
    return Image(key, folder, arch, warnings, log, False, hashes)


def build_image(
    workspace: Workspace,
    step: Step,
    arch: Arch,
    fragments: Fragments,
    addition: Addition | None = None,
) -> Image:
    """Return the image of a step from the cache, or build it.

    :param addition: additional files to make from the tree.
    :raises VerdictError: the step does not compile, or a symbol is not set as asked.
    :raises InfraError: a tool is missing, the disk is full.
    :raises ObjectsLost: the sources of the base are missing in the repository.
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
            # Another process may have fetched the base: the same patches give the same ids.
            forget_steps(base)
            make_step(base, workspace.queue, workspace.overlay, to=step.label)
            kdir = directory.enter(base, step, arch, fragments.variant)
        log = files.new_log(f"build-{base.spec.name}-{arch.name}-{step.label}")
        with interruptible(kdir.objects, kdir.notes / "building"):
            configure(kdir, fragments, log)
            ledger = buildlog.load_ledger(kdir.notes / "warnings.json")
            done = make_image(kdir, fragments.make_args, log)
            failure = explain(kdir, done, log) if done.returncode != 0 else None
            if isinstance(failure, CommandFailed):  # It may be gone the next time.
                done = make_image(kdir, fragments.make_args, log)
                failure = explain(kdir, done, log) if done.returncode != 0 else None
            if failure is not None and not isinstance(failure, VerdictError):
                raise failure
            # After a compile error the finished objects are valid.
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
    """Copy the files to run the image to its folder; a rename makes them visible at once."""
    images = _images()
    images.mkdir(parents=True, exist_ok=True)
    try:
        with temporary_folder("image", images) as temporary:
            target = temporary / kdir.arch.image
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(kdir.objects / kdir.arch.image, target)
            shutil.copy2(kdir.objects / ".config", temporary / ".config")
            shutil.copytree(
                kdir.source / "tools/testing/kunit",
                temporary / "tools/testing/kunit",
                # Includes __pycache__: copytree() keeps the times of the sources.
                ignore=shutil.ignore_patterns("test_data"),
            )
            if addition is not None:
                (temporary / Addition.FOLDER).mkdir()
                addition.make(kdir.source, kdir.objects, temporary / Addition.FOLDER, log)
            # kunit.py needs one to compare; `configure` has checked it.
            (temporary / ".kunitconfig").write_text("CONFIG_KUNIT=y\n")
            record: dict[str, Any] = {
                "warnings": sorted(found),
                "log": str(log),
                "title": kdir.title,
                "size": target.stat().st_size,
                "sha256": hashes_of(temporary),
            }
            (temporary / _RECORD).write_text(json.dumps(record, indent=1))
            temporary.chmod(0o755)
            final = images / key
            # A killed clean-up may leave a folder without image.json.
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
    except OSError as error:
        hint = "`iommuq doctor` shows the room"
        full = os.strerror(errno.ENOSPC)
        # copytree() collects its errors as text.
        if full in str(error):
            raise DiskFull(f"{images}: {full}", hint=hint) from error
        raise InfraError(f"{images}: {error.strerror or error}", hint=hint) from error
    return Image(key, final, kdir.arch, found, log, True, record["sha256"])


def _images() -> Path:
    return cache_dir() / "images"
