# SPDX-License-Identifier: GPL-2.0-only
"""One build directory of a kernel: configure it, run make in it, explain why that failed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from iommuq.bases import dotconfig
from iommuq.bases.sources import Base
from iommuq.build import kconfig, warnings
from iommuq.build.kconfig import Fragments
from iommuq.queue.checkout import checkout
from iommuq.queue.steps import Step
from iommuq.system import files, progress, toolchain
from iommuq.system.arches import Arch
from iommuq.system.errors import CommandFailed, ObjectsLost, ToolMissing, VerdictError
from iommuq.system.files import cache_dir
from iommuq.system.git.objects import open_repository
from iommuq.system.run import Completed, failure, run, tail

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
    # Added to the compiler's by whoever exports them.
    "KCFLAGS": "",
    "KAFLAGS": "",
    "KCPPFLAGS": "",
    # In place of make's own, when iommuq is itself run by make. No kernel here needs these
    # programs, but Kconfig asks for their versions, and the image carries the answer.
    "MAKEFLAGS": "-- RUSTC=no-rustc PAHOLE=no-pahole",
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
class BuildDirectory:
    """One build directory, with the tree that is checked out for it.

    :ivar step: whose tree that is.
    :ivar source: where it is checked out.
    :ivar objects: the build directory.
    """

    base: Base
    step: Step
    arch: Arch
    source: Path
    objects: Path

    @property
    def title(self) -> str:
        """What is built, for people."""
        return f"{self.base.spec.name} {self.step.label} for {self.arch.name}"

    @property
    def notes(self) -> Path:
        """Our own files in the build directory."""
        return self.objects / ".iommuq"


def _home(base: Base) -> Path:
    return cache_dir() / "trees" / base.spec.name


@contextlib.contextmanager
def hold(base: Base) -> Iterator[None]:
    """Keep others from building a base; they would change its tree."""
    _home(base).mkdir(parents=True, exist_ok=True)
    with files.hold(_home(base) / "lock", f"another build of {base.spec.name}"):
        yield


def enter(base: Base, step: Step, arch: Arch, variant: str) -> BuildDirectory:
    """Check out the tree of a step and return the directory to build it in.

    :param variant: of the configuration; each has a directory of its own.
    """
    home = _home(base)
    with progress.step(f"Checking out {base.spec.name} {step.label}"):
        checkout(base, step.tree, home / "src")
    objects = home / "-".join(filter(None, ("obj", arch.name, variant)))
    kdir = BuildDirectory(base, step, arch, home / "src", objects)
    kdir.notes.mkdir(parents=True, exist_ok=True)
    return kdir


@contextlib.contextmanager
def interruptible(objects: Path, marker: Path) -> Iterator[None]:
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


def configure(kdir: BuildDirectory, fragments: Fragments, log: Path) -> None:
    """Make the ``.config``, unless the one that is there is still right.

    :raises VerdictError: it cannot be as the fragments ask.
    """
    config = kdir.objects / ".config"
    stamp = kdir.notes / "configured.json"
    wanted = {
        "fragments": fragments.key,
        "toolchain": toolchain.identity(),
        "environment": ENVIRONMENT,
    }
    with contextlib.suppress(OSError, ValueError):
        old = json.loads(stamp.read_text())
        tree = old.pop("tree")
        if config.exists() and old == wanted and not _kconfig_changed(kdir, tree):
            return
    for path in (config, stamp):
        path.unlink(missing_ok=True)
    # In one file: of two that contradict each other kunit.py takes neither.
    merged = kdir.notes / "merged.config"
    merged.write_text(dotconfig.render(fragments.wanted))
    with progress.step(f"Configuring {kdir.title}", log=log):
        for argv in _config_commands(kdir, fragments, merged):
            done = run(
                argv,
                cwd=kdir.source,
                env=ENVIRONMENT,
                log_path=log,
                timeout=_CONFIG_LIMIT,
                check=False,
                watched=True,
            )
            if done.returncode != 0:
                break
    if config.exists():
        kconfig.check(kdir.source, fragments.wanted, config)
    if done.returncode != 0:
        raise explain(kdir, done, log)
    stamp.write_text(json.dumps({**wanted, "tree": kdir.step.tree}))


def _config_commands(kdir: BuildDirectory, fragments: Fragments, merged: Path) -> list[list[str]]:
    """Return the commands that make a ``.config``: kunit.py's own, or the kernel's."""
    objects = str(kdir.objects)
    if not fragments.tiny and not fragments.every:
        kunit = [sys.executable, "tools/testing/kunit/kunit.py", "config"]
        kunit += ["--arch", kdir.arch.make_arch, "--build_dir", objects]
        return [[*kunit, "--kunitconfig", str(merged)]]
    # Which compiler it is decides what can be configured.
    make = ["make", f"ARCH={kdir.arch.make_arch}", f"O={objects}", *fragments.make_args]
    merge = ["scripts/kconfig/merge_config.sh", "-m", "-O", objects, f"{objects}/.config"]
    begin = "allmodconfig" if fragments.every else "tinyconfig"
    return [[*make, begin], [*merge, str(merged)], [*make, "olddefconfig"]]


def _kconfig_changed(kdir: BuildDirectory, tree: str) -> bool:
    """Say whether any file that decides the configuration differs from *tree*."""
    if tree == kdir.step.tree:
        return False
    try:
        changed = open_repository(kdir.base.git_dir).changed(tree, kdir.step.tree)
    except ObjectsLost:
        return True
    return any(
        "Kconfig" in name or name.startswith(("scripts/", "tools/testing/kunit/"))
        for name in changed
    )


def make_image(kdir: BuildDirectory, make_args: tuple[str, ...], log: Path) -> Completed:
    """Run make for the image of the architecture, showing how far it is.

    :param make_args: what else to tell make, such as ``W=1``.
    :return: the finished process, with its exit status unchecked.
    """
    count_file = kdir.notes / "count"
    count = 0
    with progress.step(f"Building {kdir.title}", log=log) as step:
        with contextlib.suppress(OSError, ValueError):
            # How much there is to do is not known before the first full build.
            if not (kdir.objects / kdir.arch.image).exists():
                step.update(total=int(count_file.read_text()))

        def on_line(line: str) -> None:
            nonlocal count
            made = warnings.compiled(line)
            if made is not None:
                count += 1
                step.update(done=count, note=made)

        jobs = len(os.sched_getaffinity(0)) + 1
        done = run(
            [
                *("make", f"ARCH={kdir.arch.make_arch}", f"O={kdir.objects}", f"-j{jobs}"),
                # Each recipe's output in one piece: warnings follow their object.
                *("-Otarget", *make_args, kdir.arch.target),
            ],
            cwd=kdir.source,
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


def explain(kdir: BuildDirectory, done: Completed, log: Path) -> Exception:
    """Say whose fault it is that a build failed: the machine's, or the patch's."""
    tool = _NOT_INSTALLED.search(done.output)
    if tool:
        return ToolMissing(
            f"{tool[tool.lastindex or 0]} is not installed, {kdir.title} needs it",
            hint="`iommuq doctor` names the package",
        )
    header = toolchain.missing_header(done.output)
    if header is not None:
        return ToolMissing(
            f"{header} is not installed, {kdir.title} needs it",
            hint="`iommuq doctor` names the package",
        )
    infra = failure(done, log_path=log)
    if not isinstance(infra, CommandFailed) or done.returncode < 0:
        return infra
    lines = done.output.replace(f"{kdir.source}/", "").splitlines()
    first = next((line for line in lines if _FIRST_ERROR.search(line)), tail(done.output, 1))
    who = kdir.step.patch.name if kdir.step.patch else f"the {kdir.step.label} tree"
    return VerdictError(
        f"{who} does not build for {kdir.arch.name}: {first.strip()}", hint=f"full log: {log}"
    )
