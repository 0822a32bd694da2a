# SPDX-License-Identifier: GPL-2.0-only
"""One build directory of a kernel: configure it, run make in it, explain a failure."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from iommuq.bases import dotconfig
from iommuq.bases.sources import Base
from iommuq.build import kconfig, warnings
from iommuq.build.kconfig import Fragments
from iommuq.queue.steps import Step, checkout
from iommuq.system import files, progress, toolchain
from iommuq.system.arches import Arch
from iommuq.system.errors import CommandFailed, ObjectsLost, ToolMissing, UserError, VerdictError
from iommuq.system.files import cache_dir
from iommuq.system.git.objects import open_repository
from iommuq.system.run import Completed, failure, run, tail
from iommuq.system.tables import own_table

#: Time limit of one build in seconds.
BUILD_LIMIT = 3600.0
_CONFIG_LIMIT = 600.0
#: Variables for a reproducible image.
ENVIRONMENT: dict[str, str] = own_table(__package__, "environment.toml")
# Messages of the shell, of make without a shell, of Python, and of env in a script.
_NOT_INSTALLED = re.compile(
    r"(?:^|: )(?:\d+: )?([\w+.-]+): (?:[Cc]ommand )?not found$"
    r"|^make(?:\[\d+\])?: ([\w+.-]+): No such file or directory$"
    r"|\[Errno 2\] No such file or directory: '([\w+.-]+)'$"
    r"|\benv: .([\w+.-]+).: No such file or directory$",
    re.MULTILINE,
)
# The code that gcc quotes, and the text of its #error, are not gcc's words.
_QUOTED = re.compile(r"^ *\d* \|.*$|#(?:error|warning).*$", re.M)
_FIRST_ERROR = re.compile(
    r"(?:: (?:fatal )?error: |^error\b|\bundefined reference\b|^ld: |^make.*\*\*\* )"
)


@dataclass(frozen=True)
class BuildDirectory:
    """One build directory, with the tree that is checked out for it.

    :ivar step: the step of that tree.
    :ivar source: the checkout.
    :ivar objects: the build directory.
    """

    base: Base
    step: Step
    arch: Arch
    source: Path
    objects: Path

    @property
    def title(self) -> str:
        """Its name in output."""
        return f"{self.base.spec.name} {self.step.label} for {self.arch.name}"

    @property
    def notes(self) -> Path:
        """The folder of iommuq's own files in the build directory."""
        return self.objects / ".iommuq"


# What make and the kernel's Makefiles take in a path.
_PATH = re.compile(r"[\w/.,+=@~-]*")


def _home(base: Base) -> Path:
    home = cache_dir() / "trees" / base.spec.name
    if not _PATH.fullmatch(str(home)):
        raise UserError(
            f"no kernel can be built below {home}: its path has characters that make does not take",
            hint="set IOMMUQ_CACHE_DIR to a path of letters, digits and . _ - + = @ , ~",
        )
    return home


@contextlib.contextmanager
def hold(base: Base) -> Iterator[None]:
    """Lock the tree of a base during the block.

    :raises UserError: no kernel can be built in the cache, for its path.
    """
    _home(base).mkdir(parents=True, exist_ok=True)
    with files.hold(_home(base) / "lock", f"another build of {base.spec.name}"):
        yield


def enter(base: Base, step: Step, arch: Arch, variant: str) -> BuildDirectory:
    """Check out the tree of a step and return its build directory.

    :param variant: of the configuration; each has its own directory.
    """
    home = _home(base)
    with progress.task(f"Checking out {base.spec.name} {step.label}"):
        checkout(base, step.tree, home / "src")
    objects = home / "-".join(filter(None, ("obj", arch.name, variant)))
    kdir = BuildDirectory(base, step, arch, home / "src", objects)
    kdir.notes.mkdir(parents=True, exist_ok=True)
    return kdir


@contextlib.contextmanager
def interruptible(objects: Path, marker: Path) -> Iterator[None]:
    """Remove the files that a killed build may have left incomplete, then run the block.

    Such a file is newer than its sources, and make would not make it again.  *marker* exists
    during a build: files newer than it are removed, except the notes in its folder.
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
    """Make the ``.config``, unless it is up to date.

    :raises VerdictError: a symbol cannot be set as the fragments ask.
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
    # In one file: kunit.py refuses two that contradict each other.
    merged = kdir.notes / "merged.config"
    symbols = fragments.wanted_of(kdir.source)
    merged.write_text(dotconfig.render(symbols))
    with progress.task(f"Configuring {kdir.title}", log=log):
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
        kconfig.check(kdir.source, symbols, config)
    if done.returncode != 0:
        raise explain(kdir, done, log)
    stamp.write_text(json.dumps({**wanted, "tree": kdir.step.tree}))


def _config_commands(kdir: BuildDirectory, fragments: Fragments, merged: Path) -> list[list[str]]:
    """Return the commands that make a ``.config``, with kunit.py or with make."""
    objects = str(kdir.objects)
    if not fragments.tiny and not fragments.every:
        kunit = [sys.executable, "tools/testing/kunit/kunit.py", "config"]
        kunit += ["--arch", kdir.arch.make_arch, "--build_dir", objects]
        return [[*kunit, "--kunitconfig", str(merged)]]
    make = ["make", f"ARCH={kdir.arch.make_arch}", f"O={objects}", *fragments.make_args]
    merge = ["scripts/kconfig/merge_config.sh", "-m", "-O", objects, f"{objects}/.config"]
    begin = "allmodconfig" if fragments.every else "tinyconfig"
    return [[*make, begin], [*merge, str(merged)], [*make, "olddefconfig"]]


def _kconfig_changed(kdir: BuildDirectory, tree: str) -> bool:
    """Tell whether any file that affects the configuration differs from *tree*."""
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
    """Run make for the image of the architecture, with its progress.

    :param make_args: further arguments of make, such as ``W=1``.
    :return: the finished process; the exit status is not checked.
    """
    count_file = kdir.notes / "count"
    count = 0
    with progress.task(f"Building {kdir.title}", log=log) as step:
        with contextlib.suppress(OSError, ValueError):
            # The total is known only after the first full build.
            if not (kdir.objects / kdir.arch.image).exists():
                step.update(total=int(count_file.read_text()))

        def on_line(line: str) -> None:
            nonlocal count
            made = warnings.compiled(line)
            if made is not None:
                count += 1
                step.update(done=count, note=made)

        jobs = len(os.sched_getaffinity(0)) + 1
        argv = ["make", f"ARCH={kdir.arch.make_arch}", f"O={kdir.objects}", f"-j{jobs}"]
        # -Otarget keeps the output of a recipe together: warnings follow their object.
        argv += ["-Otarget", *make_args, kdir.arch.target]
        done = run(
            argv,
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


@cache
def _faults() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return the patterns of ``faults.toml``: of the code, and of the machine."""
    found = own_table(__package__, "faults.toml")
    return re.compile("|".join(found["code"]), re.M), re.compile("|".join(found["machine"]), re.M)


def explain(kdir: BuildDirectory, done: Completed, log: Path) -> Exception:
    """Return the error of a failed build: `InfraError` of the machine, or `VerdictError`."""
    said = _QUOTED.sub("", done.output)
    tool = _NOT_INSTALLED.search(said)
    missing = tool[tool.lastindex or 0] if tool else toolchain.missing_header(said)
    if missing:
        return ToolMissing(
            f"{missing} is not installed, {kdir.title} needs it",
            hint="`iommuq doctor` names the package",
        )
    infra = failure(replace(done, output=said), log_path=log)
    if not isinstance(infra, CommandFailed) or done.returncode < 0:
        return infra
    code, machine = _faults()
    if machine.search(said) or not code.search(said):
        return infra
    lines = done.output.replace(f"{kdir.source}/", "").splitlines()
    first = next((line for line in lines if _FIRST_ERROR.search(line)), tail(done.output, 1))
    who = kdir.step.patch.name if kdir.step.patch else f"the {kdir.step.label} tree"
    return VerdictError(
        f"{who} does not build for {kdir.arch.name}: {first.strip()}", hint=f"full log: {log}"
    )
