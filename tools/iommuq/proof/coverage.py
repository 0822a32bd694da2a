# SPDX-License-Identifier: GPL-2.0-only
"""Line and branch coverage of the files that a queue touches, by gcov under UML.

UML is a process, so it is instrumented like one: gcc puts counters in, and libgcov writes
them when the process ends, into the directory that ``GCOV_PREFIX`` names.  What must be
different in the tree for that is laid over it, as the suites are; ``coverage.toml``
has it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from iommuq.build.image import Addition, Image
from iommuq.proof.lanes import KunitLane
from iommuq.queue.csource import parse
from iommuq.queue.overlay import Overlay, extend
from iommuq.queue.steps import Step
from iommuq.queue.touched import is_kernel_source, touched_functions
from iommuq.system.errors import InfraError, UserError
from iommuq.system.git.objects import Store
from iommuq.system.run import run

#: The variable that libgcov takes a directory from.
PREFIX = "GCOV_PREFIX"
#: Part of the key of what is kept with an image.
_GENERATION = "1"
_GCOV_LIMIT = 120.0


@cache
def _settings() -> Mapping[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath("coverage.toml").read_text())


@dataclass(frozen=True)
class FunctionCover:
    """How much of one function was executed.

    :ivar line: the first line of its definition, from 1.
    :ivar lines: times that each line with code was executed, by number.
    :ivar branches: times that each way of a decision was taken, by number of the line.
    """

    name: str
    line: int
    lines: Mapping[int, int] = field(default_factory=dict)
    branches: Mapping[int, Sequence[int]] = field(default_factory=dict)

    @property
    def missed(self) -> tuple[int, ...]:
        """Lines that were never executed."""
        return tuple(line for line, count in sorted(self.lines.items()) if not count)

    @property
    def half(self) -> tuple[int, ...]:
        """Lines that were executed, but decided one way only."""
        return tuple(
            line
            for line, ways in sorted(self.branches.items())
            if self.lines.get(line) and not all(ways)
        )


@dataclass(frozen=True)
class FileCover:
    """How much of one file was executed.

    :ivar functions: those that the compiler made code of, in order; None if the kernel does
        not have the file in it.
    """

    path: str
    functions: tuple[FunctionCover, ...] | None


def instrument(overlay: Overlay, store: Store, tree: str, paths: Sequence[str]) -> Overlay:
    """Return an overlay that also makes the kernel count what it executes in some files.

    :param overlay: what is laid over the tree as it is.
    :param store: the objects of the base.
    :param tree: the tree, to see where there is a Makefile.
    :param paths: C files.
    """
    makefiles = {str(PurePosixPath(path).with_name("Makefile")) for path in paths}
    present = store.entries(tree, sorted(makefiles)) if makefiles else {}
    hooks = [(hook["file"], hook["append"]) for hook in _settings()["hook"]]
    for makefile in sorted(present):
        objects = [
            PurePosixPath(path).with_suffix(".o").name
            for path in paths
            if str(PurePosixPath(path).with_name("Makefile")) == makefile
        ]
        flags = " ".join(_settings()["flags"])
        lines = "".join(f"CFLAGS_{name} += {flags}\n" for name in sorted(objects))
        hooks.append((makefile, f"\n{lines}"))
    return extend(overlay, hooks)


def check_arch(name: str) -> None:
    """Refuse an architecture whose kernels cannot count.

    :raises UserError: it is another than the one that can.
    """
    arch = _settings()["arch"]
    if name != arch:
        raise UserError(f"coverage is for {arch} only, not for {name}")


def addition(paths: Sequence[str]) -> Addition:
    """Return what keeps the compiler's notes of some files with an image.

    :param paths: C files; those that are not compiled have no notes.
    """

    def make(_source: Path, objects: Path, into: Path, _log: Path) -> None:
        for path in paths:
            notes = PurePosixPath(path).with_suffix(".gcno")
            if (objects / notes).exists():
                (into / notes).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(objects / notes, into / notes)

    key = hashlib.sha256("\n".join((_GENERATION, *paths)).encode()).hexdigest()
    return Addition(key, make)


def collect(image: Image, counters: Path, texts: Mapping[str, bytes]) -> tuple[FileCover, ...]:
    """Read what a kernel counted.

    :param image: built with `addition`.
    :param counters: the directory that `PREFIX` named when it ran.
    :param texts: the files, as they were compiled, by path.
    :raises InfraError: it wrote no counters, or they are not of this image.
    :raises ToolMissing: gcov is not installed.
    """
    covers = []
    for path, text in texts.items():
        notes = image.folder / Addition.FOLDER / PurePosixPath(path).with_suffix(".gcno")
        if not notes.exists():
            covers.append(FileCover(path, None))
            continue
        # The build directory's path is below: it is what the kernel was compiled with.
        wanted = PurePosixPath("/", path).with_suffix(".gcda")
        found = [each for each in counters.rglob(wanted.name) if str(each).endswith(str(wanted))]
        if len(found) != 1:
            raise InfraError(
                f"the kernel wrote no counters for {path}",
                hint="they are written as it halts; did it come to its end?",
            )
        covers.append(FileCover(path, _functions(path, text, _gcov(notes, found[0]))))
    return tuple(covers)


def _gcov(notes: Path, counters: Path) -> Mapping[str, Any]:
    """Run gcov on one object, and return its JSON."""
    with tempfile.TemporaryDirectory(prefix="iommuq-gcov-") as folder:
        # By one name: that is how gcov finds the one for the other.
        shutil.copy2(notes, Path(folder, "x.gcno"))
        shutil.copy2(counters, Path(folder, "x.gcda"))
        argv = ["gcov", "--json-format", "--branch-probabilities", "--stdout", "x.gcda"]
        done = run(argv, cwd=Path(folder), env={"LC_ALL": "C.UTF-8"}, timeout=_GCOV_LIMIT)
    try:
        data = json.loads(done.output)
        if not isinstance(data, dict) or not isinstance(data.get("files"), list):
            raise ValueError("no list of files")
    except ValueError as error:
        raise InfraError(f"gcov: not the JSON that it should print: {error}") from error
    return data


def _functions(path: str, text: bytes, data: Mapping[str, Any]) -> tuple[FunctionCover, ...]:
    """Sort the lines of a file by its functions.

    Not by what gcov takes for a line's function: what was inlined is its caller's.  And what
    is included at the end of the file is another file.
    """
    lines: dict[int, int] = {}
    branches: dict[int, list[int]] = {}
    try:
        for file in data["files"]:
            if not f"/{file['file']}".endswith(f"/{path}"):
                continue
            for line in file["lines"]:
                number = int(line["line_number"])
                lines[number] = lines.get(number, 0) + int(line["count"])
                ways = [int(way["count"]) for way in line["branches"] if not way["throw"]]
                branches[number] = _sum(branches.get(number, []), ways)
    except (KeyError, TypeError, ValueError) as error:
        raise InfraError(f"gcov: {path}: unexpected JSON: {error!r}") from error
    covers = []
    for function in parse(text).functions:
        own = range(function.start, function.end + 1)
        cover = FunctionCover(
            function.name,
            function.start,
            {number: count for number, count in lines.items() if number in own},
            {number: ways for number, ways in branches.items() if number in own and ways},
        )
        if cover.lines:
            covers.append(cover)
    return tuple(covers)


def _sum(some: Sequence[int], others: Sequence[int]) -> list[int]:
    """Add up the ways of a line that was compiled more than once, if they are the same ways."""
    if len(some) == len(others):
        return [one + other for one, other in zip(some, others, strict=True)]
    return [*some, *others]


@dataclass(frozen=True)
class Measured:
    """A step whose kernel counts what is executed, as long as `measuring` lasts.

    :ivar lane: runs the suites on the tree with counters.
    :ivar paths: the files that are counted.
    """

    lane: KunitLane
    step: Step
    objects: Store
    paths: Sequence[str]
    counters: Path

    def covers(self, image: Image) -> tuple[FileCover, ...]:
        """Return what was executed of the image of the step; see `collect`."""
        read = ((path, self.objects.read_file(self.step.tree, path)) for path in self.paths)
        texts = {path: text for path, text in read if text is not None}
        return collect(image, self.counters, texts)

    def touched(self) -> set[tuple[str, str]]:
        """Return path and name of the functions that the queue touches."""
        steps = self.lane.workspace.steps()
        return {(each.path, each.name) for each in touched_functions(self.objects, steps)}


@contextlib.contextmanager
def measuring(lane: KunitLane, plain: Step) -> Iterator[Measured]:
    """Lay counters over the tree of a step for as long as the block runs.

    :param plain: the step without them.
    """
    workspace = lane.workspace
    changes = (change for patch in workspace.queue.sent for change in patch.changes)
    paths = sorted({change.path for change in changes if is_kernel_source(change.path)})
    with tempfile.TemporaryDirectory(prefix="iommuq-coverage-") as folder:
        for name in ("objects", "counters"):
            (Path(folder) / name).mkdir()
        objects = Store(workspace.base.git_dir, Path(folder) / "objects")
        overlay = instrument(workspace.overlay, objects, plain.tree, paths)
        counting = replace(workspace, overlay=overlay)
        counters = Path(folder) / "counters"
        counted = replace(
            lane,
            workspace=counting,
            addition=addition(paths),
            environment={PREFIX: str(counters)},
        )
        yield Measured(counted, counting.step(plain.label), objects, paths, counters)
