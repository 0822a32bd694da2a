# SPDX-License-Identifier: GPL-2.0-only
"""Build the programs of the userspace suites: those of the tree, and those of this project.

A program that does not compile leaves a file with the reason; it is no error."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from iommuq.build.image import Addition
from iommuq.system import progress, tables, toolchain
from iommuq.system.errors import CommandFailed, ToolMissing, UserError
from iommuq.system.files import cache_dir, file_sha256
from iommuq.system.run import run, tail
from iommuq.system.tables import Table, require
from iommuq.system.temporary import temporary_folder

#: The programs of the tree.
KERNEL = "tools/testing/selftests/iommu"
#: Suffix of the file that tells why a program does not compile.
REASON = ".failed"
#: Part of the key; raise it when the same sources give other programs.
_GENERATION = "3"
_LIMIT = 600.0
#: The files and folders of a tree that the programs depend on.
_INPUTS = (
    KERNEL,
    "tools/testing/selftests/kselftest",
    "tools/testing/selftests/kselftest.h",
    "tools/testing/selftests/kselftest_harness.h",
    "tools/testing/selftests/lib.mk",
    "tools/include",
    "tools/arch/x86/include",
    "include/uapi",
    "arch/x86/include/uapi",
    "drivers/iommu/iommufd/iommufd_test.h",
    "scripts/headers_install.sh",
    "Makefile",
)


@dataclass(frozen=True)
class Suite(Table):
    """One program.

    :ivar source: ``kernel`` or ``project``.
    :ivar limit: in seconds.
    :ivar needs: paths that must exist in the guest.
    """

    name: str
    source: str
    limit: float
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.source in ("kernel", "project"), "source is neither kernel nor project")


@dataclass(frozen=True)
class _Document(Table):
    suite: tuple[Suite, ...]


def load_suites(root: Path) -> tuple[Suite, ...]:
    """Read ``selftests/suites.toml``.

    :raises UserError: it is missing or malformed.
    """
    return tables.load_toml(_Document, root / "selftests/suites.toml").suite


def choose(suites: Sequence[Suite], names: Sequence[str]) -> tuple[Suite, ...]:
    """Return the suites of these names; all if no name is given.

    :raises UserError: there is no such suite.
    """
    known = {suite.name: suite for suite in suites}
    for name in names:
        if name not in known:
            raise UserError(f"no suite {name!r}; there are {', '.join(known)}")
    return tuple(known[name] for name in names) if names else tuple(suites)


def addition(root: Path) -> Addition:
    """Return the addition to an image that builds all programs.

    :param root: the checkout of the project.
    """
    own = sorted((root / "selftests/iommu").glob("*.[ch]"))
    words = [_GENERATION]
    for path in own:
        words += [path.name, file_sha256(path)]
    key = hashlib.sha256("\n".join(words).encode()).hexdigest()
    texts = {path.name: path.read_text("utf-8") for path in own}

    def make(source: Path, objects: Path, into: Path, log: Path) -> None:
        kept = cache_dir() / "programs" / _key(source, key)
        if not kept.is_dir():
            with progress.task("Building the selftests", log=log):
                headers = _headers(source, objects, log)
                _kernel_programs(source, objects, headers, into, log)
                _own_programs(source, texts, headers, into, log)
            _keep(into, kept)
            return
        kept.touch()
        shutil.copytree(kept, into, dirs_exist_ok=True)

    return Addition(key, make)


def _key(source: Path, own: str) -> str:
    """Return a hash of the part of a tree that the programs depend on."""
    files = [path for path in _INPUTS if (source / path).is_file()]
    for folder in _INPUTS:
        for where, _, names in os.walk(source / folder):
            files += [str(Path(where, name).relative_to(source)) for name in names]
    words = [own, toolchain.identity()]
    for path in sorted(files):
        file = source / path
        content = str(file.readlink()).encode() if file.is_symlink() else file.read_bytes()
        words += [path, hashlib.sha256(content).hexdigest()]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _keep(made: Path, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder("programs", kept.parent) as temporary:
        shutil.copytree(made, temporary, dirs_exist_ok=True)
        with contextlib.suppress(OSError):
            temporary.rename(kept)


def _headers(source: Path, objects: Path, log: Path) -> Path:
    """Export the tree's headers for userspace, those of x86: UML has none."""
    where = objects.with_name(f"{objects.name}-headers")
    # headers_install needs rsync and copies them once more.
    _make(["make", "ARCH=x86_64", f"O={where}", "headers"], source, log, check=True)
    return where / "usr/include"


def _kernel_programs(source: Path, objects: Path, headers: Path, into: Path, log: Path) -> None:
    output = objects.with_name(f"{objects.name}-programs")
    # Remove programs of other steps.
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    argv = ["make", "-k", "-C", f"{source}/{KERNEL}", f"OUTPUT={output}"]
    # check=False: a program that is missing afterwards did not compile.
    said = _make(
        [*argv, f"KHDR_INCLUDES=-isystem {headers}", "LDFLAGS=-static"], source, log, check=False
    )
    for path in sorted((source / KERNEL).glob("*.c")):
        name = path.stem
        if (output / name).exists():
            shutil.copy2(output / name, into / name)
        else:
            (into / f"{name}{REASON}").write_text(_reason(said, path.name, source))


def _own_programs(
    source: Path, texts: dict[str, str], headers: Path, into: Path, log: Path
) -> None:
    folder = into / "src"
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    for name in texts:
        if not name.endswith(".c"):
            continue
        program = name.removesuffix(".c")
        argv = ["gcc", "-Wall", "-O2", "-static", "-D_GNU_SOURCE=", "-Wno-unused-function"]
        # This tree's headers first, then harness and utilities of its selftests.
        argv += ["-isystem", str(headers), f"-I{source}/{KERNEL}"]
        argv += [f"-I{source}/tools/testing/selftests", f"-I{source}/drivers/iommu/iommufd"]
        # Messages quote the argument: pass the name, not the path.
        said = _make([*argv, "-o", str(into / program), name], folder, log, check=False)
        if not (into / program).exists():
            (into / f"{program}{REASON}").write_text(_reason(said, name, source))


def _make(argv: list[str], cwd: Path, log: Path, check: bool) -> str:
    environment = {"LC_ALL": "C.UTF-8", "MAKEFLAGS": "", "MAKELEVEL": ""}
    try:
        done = run(argv, cwd=cwd, env=environment, log_path=log, timeout=_LIMIT, watched=True)
    except CommandFailed as error:
        if check:
            raise
        return error.output
    return done.output


def _reason(said: str, name: str, source: Path) -> str:
    """Return the first errors of the compiler; raise ToolMissing if a system header is missing."""
    header = toolchain.missing_header(said)
    if header is not None:
        raise ToolMissing(
            f"{header} is not installed, {name} needs it", hint="`iommuq doctor` names the package"
        )
    lines = said.replace(f"{source}/", "").splitlines()
    errors = [line for line in lines if ": error: " in line or ": fatal error: " in line]
    return "\n".join(errors[:10]) or f"{name} was not built:\n{tail(said, 5)}"
