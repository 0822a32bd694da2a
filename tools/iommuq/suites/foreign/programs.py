# SPDX-License-Identifier: GPL-2.0-only
"""Build the programs of a suite of others in a sandbox, and keep them in the cache."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from iommuq.guests.initramfs import is_dynamic
from iommuq.suites.foreign import sources
from iommuq.suites.foreign.table import Program, Suite
from iommuq.suites.selftest import keep
from iommuq.system import files, progress, toolchain
from iommuq.system.errors import InfraError, IommuqError
from iommuq.system.files import cache_dir, hash_of
from iommuq.system.run import tail
from iommuq.system.sandbox.box import Sandbox
from iommuq.system.sandbox.model import Limits, default_limits
from iommuq.system.temporary import temporary_folder

# Part of the key; raise it when the same sources give other programs.
_GENERATION = "1"
#: Bytes of a program: the guest has it in memory.
MOST_PROGRAM = 64 << 20
#: Lines of the build that a message quotes.
_QUOTED = 12


@dataclass(frozen=True)
class Built:
    """The programs of a suite.

    :ivar key: of the sources and the build; empty without programs.
    :ivar paths: by the name of the program.
    :ivar skipped: why nothing was built; says nothing about the suite.
    :ivar failed: why the build is of no use.
    """

    suite: Suite
    key: str = ""
    paths: Mapping[str, Path] = field(default_factory=dict)
    skipped: str = ""
    failed: str = ""


def limits(suite: Suite) -> Limits:
    """Return the limits of a build."""
    return replace(
        default_limits(), processes=128, memory=2048, address_space=4096, file_size=256,
        disk=1024, files=2 * sources.MOST_FILES, tmp=64, shm=64, output=16, seconds=suite.seconds,
    )  # fmt: skip


def build(suite: Suite, given: Path | None) -> Built:
    """Return the programs of a suite: from the cache, or built in a sandbox.

    :param given: see `sources.find`.
    :return: without programs if anything is wrong: the other suites are still run.
    """
    found = sources.find(suite, given)
    if found.path is None:
        return Built(suite, skipped=found.missing)
    lacking = {tool: package for tool, package in suite.tools.items() if not _is_there(tool)}
    if lacking:
        packages = " ".join(dict.fromkeys(lacking.values()))
        what = f"{', '.join(lacking)} is missing; get it with: apt-get install {packages}"
        return Built(suite, skipped=what)
    try:
        return _built(suite, found.path)
    except IommuqError as error:
        return Built(suite, failed=str(error))


def _built(suite: Suite, source: Path) -> Built:
    name = _key(suite, source)
    kept = cache_dir() / "programs" / name
    if not kept.is_dir():
        failed = _build(suite, source, kept)
        if failed:
            return Built(suite, failed=failed)
    else:
        os.utime(kept)
    paths = {one.name: kept / one.name for one in suite.program}
    lost = [one for one, path in paths.items() if not path.is_file()]
    if lost:
        return Built(suite, failed=f"{kept} has no {', '.join(lost)}: remove that folder")
    return Built(suite, name, paths)


def _key(suite: Suite, source: Path) -> str:
    taken = [f"{one.name} {one.path}" for one in suite.program]
    words = (*suite.build, *taken, sources.key(source))
    return hash_of(_GENERATION, toolchain.identity(), suite.name, *words)


def _is_there(tool: str) -> bool:
    return Path(tool).exists() if tool.startswith("/") else shutil.which(tool) is not None


def _build(suite: Suite, source: Path, kept: Path) -> str:
    """Build in a sandbox, and keep what the table lists; return why that failed."""
    log = files.new_log(f"build-foreign-{suite.name}")
    with (
        progress.task(f"Building {suite.name}", log=log),
        temporary_folder("foreign", _home()) as folder,
    ):
        # The user of the sandbox needs access.
        folder.chmod(0o755)
        noun = f"the build of {suite.name}"
        sandbox = Sandbox(folder / "work", limits(suite), noun=noun)
        with sandbox.opened():
            sources.copy(source, sandbox.writable)
            sandbox.hand_over()
            if failed := _run(suite, sandbox, log):
                return failed
            made = folder / "made"
            made.mkdir()
            wrong = [why for one in suite.program if (why := _take(sandbox, one, made))]
            if wrong:
                return f"{'; '.join(wrong)}; full log: {log}"
        keep(made, kept)
    return ""


def _home() -> Path:
    place = cache_dir() / "programs"
    place.mkdir(parents=True, exist_ok=True)
    return place


def _run(suite: Suite, sandbox: Sandbox, log: Path) -> str:
    """Run the commands of a build; return why one failed."""
    deadline = time.monotonic() + suite.seconds
    for line in suite.build:
        left = deadline - time.monotonic()
        if left < 1:
            return f"the build is not done after {suite.seconds:g} s"
        bounded = replace(sandbox, limits=replace(sandbox.limits, seconds=left))
        try:
            done = bounded.run(shlex.split(line), environment={"LC_ALL": "C.UTF-8"})
        except InfraError as error:
            # Its hint is an option that this build does not have.
            return error.what
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ {line}\n{done.output}{done.stderr}")
        if done.returncode != 0:
            said = tail(done.stderr.strip() or done.output, _QUOTED)
            return f"`{line}`: exit status {done.returncode}\n{said}"
    return ""


def _take(sandbox: Sandbox, program: Program, into: Path) -> str:
    """Copy a program out of the sandbox, or return why not; a link of it could name any file."""
    missing = f"the build does not make {program.name}"
    try:
        # No process of the build is left that could change it.
        place = (sandbox.writable / program.path).resolve()
        if not place.is_relative_to(sandbox.writable.resolve()):
            return missing
        fd = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_PROGRAM:
                return missing
            data = file.read(MOST_PROGRAM)
        if is_dynamic(data, Path(program.path)):
            return f"{program.path} is linked dynamically: the guest has no libraries"
        (into / program.name).write_bytes(data)
    except InfraError as error:
        return str(error)
    except (OSError, RuntimeError):
        # RuntimeError: resolve() of a link to itself.
        return missing
    (into / program.name).chmod(0o755)
    return ""
