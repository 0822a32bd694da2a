# SPDX-License-Identifier: GPL-2.0-only
"""Turn (tree, architecture, configuration) into an image that can be booted.

Images are kept under a key that is the hash of all that went into them, so
nothing is built twice.  What must be built is built incrementally: one work
tree a base, whose files change only where two steps differ, and one build
directory for each architecture.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from iommuq import buildlog, cleaning, kconfig, locks, logs, progress, toolchain
from iommuq.arches import Arch
from iommuq.bases import Base
from iommuq.dirs import cache_dir
from iommuq.errors import CommandFailed, DiskFull, InfraError, ToolMissing, VerdictError
from iommuq.fragments import Fragments
from iommuq.git import git
from iommuq.run import Completed, failure, run, tail
from iommuq.tree import Step
from iommuq.worktree import checkout

#: Part of every key; to be raised when the same input would give another image.
_GENERATION = "1"
#: Seconds that one build may take: a full one is two minutes, on two cores.
BUILD_LIMIT = 3600.0
_CONFIG_LIMIT = 600.0
#: Variables that keep out what would make an image depend on who built it, where and when.
ENVIRONMENT = {
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
    "KBUILD_BUILD_USER": "iommuq",
    "KBUILD_BUILD_HOST": "localhost",
    "KBUILD_BUILD_VERSION": "1",
    "LC_ALL": "C.UTF-8",
    # make's own variables, when iommuq is itself run by make.
    "MAKEFLAGS": "",
    "MAKELEVEL": "",
}
# As the shell says it, as make does where it needs no shell, as Python does, and as a
# script's first line does.
_NOT_INSTALLED = re.compile(
    r"(?:^|: )(?:\d+: )?([\w+.-]+): (?:[Cc]ommand )?not found$"
    r"|^make(?:\[\d+\])?: ([\w+.-]+): No such file or directory$"
    r"|\[Errno 2\] No such file or directory: '([\w+.-]+)'$"
    r"|\benv: .([\w+.-]+).: No such file or directory$",
    re.MULTILINE,
)
_FIRST_ERROR = re.compile(r"(?:: (?:fatal )?error: |\bundefined reference\b|^ld: |^make.*\*\*\* )")


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
    base: Base,
    step: Step,
    arch: Arch,
    fragments: Fragments,
    addition: Addition | None = None,
) -> Image:
    """Return the image for a step, building it if it was not built before.

    :param addition: what else to make from the tree.
    :raises VerdictError: the step does not compile, or is not configured as asked.
    :raises InfraError: a tool is missing, the disk is full.
    """
    key = image_key(step, arch, fragments, addition)
    found = find_image(key, arch)
    if found is not None:
        return found
    home = cache_dir() / "trees" / base.spec.name
    home.mkdir(parents=True, exist_ok=True)
    with locks.hold(home / "lock", f"another build of {base.spec.name}"):
        found = find_image(key, arch)
        if found is not None:
            return found
        with progress.step(f"Checking out {base.spec.name} {step.label}"):
            checkout(base, step.tree, home / "src")
        return _build(
            _Workshop(
                base,
                step,
                arch,
                home / "src",
                home / "-".join(filter(None, ("obj", arch.name, fragments.variant))),
            ),
            fragments,
            addition,
            key,
        )


@dataclass(frozen=True)
class _Workshop:
    """One build directory, with the tree that is checked out for it."""

    base: Base
    step: Step
    arch: Arch
    source: Path
    objects: Path

    @property
    def title(self) -> str:
        return f"{self.base.spec.name} {self.step.label} for {self.arch.name}"

    @property
    def notes(self) -> Path:
        """Our own files in the build directory."""
        return self.objects / ".iommuq"


def _build(shop: _Workshop, fragments: Fragments, addition: Addition | None, key: str) -> Image:
    log = logs.new_log(f"build-{shop.base.spec.name}-{shop.arch.name}-{shop.step.label}")
    shop.notes.mkdir(parents=True, exist_ok=True)
    with _interruptible(shop.objects, shop.notes / "building"):
        _configure(shop, fragments, log)
        ledger = buildlog.load(shop.notes / "warnings.json")
        done = _make(shop, fragments.make_args, log)
        if done.returncode != 0:
            raise _explain(shop, done, log)
        ledger = buildlog.update(ledger, done.output.splitlines(), shop.source, shop.objects)
        buildlog.save(ledger, shop.notes / "warnings.json")
    image = _publish(shop, key, buildlog.union(ledger), log, addition)
    cleaning.shrink()
    return image


@contextlib.contextmanager
def _interruptible(objects: Path, marker: Path) -> Iterator[None]:
    """Let no file survive that a build may have left half-written.

    make removes what it is making when it is asked to stop, but not when it is
    killed.  Such a file is newer than its sources and would never be made
    again, so whatever is as new as the last unfinished build goes.  Not so our own
    notes next to the marker, which are written whole: the warnings of objects that
    are as good as before must not be forgotten.
    """
    if marker.exists():
        begin = marker.stat().st_mtime
        for folder, folders, names in os.walk(objects):
            if marker.parent.name in folders:
                folders.remove(marker.parent.name)
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(OSError):
                    if path.lstat().st_mtime >= begin:
                        path.unlink()
    marker.touch()
    os.utime(marker)
    yield
    marker.unlink()


def _configure(shop: _Workshop, fragments: Fragments, log: Path) -> None:
    """Make the ``.config``, unless the one that is there is still right."""
    config = shop.objects / ".config"
    stamp = shop.notes / "configured.json"
    wanted = {"fragments": fragments.key, "toolchain": toolchain.identity()}
    with contextlib.suppress(OSError, ValueError):
        old = json.loads(stamp.read_text())
        tree = old.pop("tree")
        if config.exists() and old == wanted and not _kconfig_changed(shop, tree):
            return
    for path in (config, stamp):
        path.unlink(missing_ok=True)
    # In one file: of two that contradict each other kunit.py takes neither.
    merged = shop.notes / "merged.config"
    merged.write_text(kconfig.render(fragments.wanted))
    with progress.step(f"Configuring {shop.title}", log=log):
        for argv in _config_commands(shop, fragments.tiny, merged):
            done = run(
                argv,
                cwd=shop.source,
                env=ENVIRONMENT,
                log_path=log,
                timeout=_CONFIG_LIMIT,
                check=False,
                watched=True,
            )
            if done.returncode != 0:
                break
    if config.exists():
        kconfig.check(shop.source, fragments.wanted, config)
    if done.returncode != 0:
        raise _explain(shop, done, log)
    stamp.write_text(json.dumps({**wanted, "tree": shop.step.tree}))


def _config_commands(shop: _Workshop, tiny: bool, merged: Path) -> list[list[str]]:
    """Return the commands that make a ``.config``: kunit.py's own, or from tinyconfig."""
    objects = str(shop.objects)
    if not tiny:
        kunit = [sys.executable, "tools/testing/kunit/kunit.py", "config"]
        kunit += ["--arch", shop.arch.make_arch, "--build_dir", objects]
        return [[*kunit, "--kunitconfig", str(merged)]]
    make = ["make", f"ARCH={shop.arch.make_arch}", f"O={objects}"]
    merge = ["scripts/kconfig/merge_config.sh", "-m", "-O", objects, f"{objects}/.config"]
    return [[*make, "tinyconfig"], [*merge, str(merged)], [*make, "olddefconfig"]]


def _kconfig_changed(shop: _Workshop, tree: str) -> bool:
    """Say whether any file that decides the configuration differs from *tree*."""
    if tree == shop.step.tree:
        return False
    try:
        changed = git(
            *("diff-tree", "-r", "--name-only", tree, shop.step.tree),
            git_dir=shop.base.git_dir,
            cwd=shop.source,
        ).output
    except CommandFailed:
        return True
    return any(
        "Kconfig" in name or name.startswith(("scripts/", "tools/testing/kunit/"))
        for name in changed.splitlines()
    )


def _make(shop: _Workshop, make_args: tuple[str, ...], log: Path) -> Completed:
    count_file = shop.notes / "count"
    count = 0
    with progress.step(f"Building {shop.title}", log=log) as step:
        with contextlib.suppress(OSError, ValueError):
            # How much there is to do is not known before the first full build.
            if not (shop.objects / shop.arch.image).exists():
                step.update(total=int(count_file.read_text()))

        def on_line(line: str) -> None:
            nonlocal count
            made = buildlog.compiled(line)
            if made is not None:
                count += 1
                step.update(done=count, note=made)

        jobs = len(os.sched_getaffinity(0)) + 1
        done = run(
            [
                *("make", f"ARCH={shop.arch.make_arch}", f"O={shop.objects}", f"-j{jobs}"),
                # Each recipe's output in one piece: warnings follow their object.
                *("-Otarget", *make_args, shop.arch.target),
            ],
            cwd=shop.source,
            env=ENVIRONMENT,
            log_path=log,
            on_line=on_line,
            timeout=BUILD_LIMIT,
            check=False,
            watched=True,
        )
    with contextlib.suppress(OSError, ValueError):
        known = int(count_file.read_text()) if count_file.exists() else 0
        if done.returncode == 0 and count > known:
            count_file.write_text(str(count))
    return done


def _explain(shop: _Workshop, done: Completed, log: Path) -> Exception:
    """Say whose fault it is that a build failed: the machine's, or the patch's."""
    tool = _NOT_INSTALLED.search(done.output)
    if tool:
        return ToolMissing(
            f"{tool[tool.lastindex or 0]} is not installed, {shop.title} needs it",
            hint="`iommuq doctor` names the package",
        )
    header = toolchain.missing_header(done.output)
    if header is not None:
        return ToolMissing(
            f"{header} is not installed, {shop.title} needs it",
            hint="`iommuq doctor` names the package",
        )
    infra = failure(done, log_path=log)
    if not isinstance(infra, CommandFailed) or done.returncode < 0:
        return infra
    lines = done.output.replace(f"{shop.source}/", "").splitlines()
    first = next((line for line in lines if _FIRST_ERROR.search(line)), tail(done.output, 1))
    who = shop.step.patch.name if shop.step.patch else f"the {shop.step.label} tree"
    return VerdictError(
        f"{who} does not build for {shop.arch.name}: {first.strip()}", hint=f"full log: {log}"
    )


def _publish(
    shop: _Workshop,
    key: str,
    found: frozenset[str],
    log: Path,
    addition: Addition | None = None,
) -> Image:
    """Copy what is needed to run the image to its place, whole or not at all."""
    images = _images()
    # Nobody else builds this base now: whoever began these is dead.
    prefix = f".{shop.base.spec.name}.tmp-"
    for left in images.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    images.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=images))
    try:
        target = temporary / shop.arch.image
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(shop.objects / shop.arch.image, target)
        shutil.copy2(shop.objects / ".config", temporary / ".config")
        shutil.copytree(
            shop.source / "tools/testing/kunit",
            temporary / "tools/testing/kunit",
            # Compiled modules come along: they hold as long as the sources' times do.
            ignore=shutil.ignore_patterns("test_data"),
        )
        if addition is not None:
            (temporary / Addition.FOLDER).mkdir()
            addition.make(shop.source, shop.objects, temporary / Addition.FOLDER, log)
        # kunit.py wants one, to compare; what it compares was checked above.
        (temporary / ".kunitconfig").write_text("CONFIG_KUNIT=y\n")
        record = {
            "warnings": sorted(found),
            "log": str(log),
            "title": shop.title,
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
    return Image(key, final, shop.arch, found, log, built=True)


def _images() -> Path:
    return cache_dir() / "images"
