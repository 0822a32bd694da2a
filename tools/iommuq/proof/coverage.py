# SPDX-License-Identifier: GPL-2.0-only
"""Line and branch coverage of the files that a queue touches, by gcov under UML.

UML is a process: libgcov writes the counters to ``GCOV_PREFIX`` when it ends.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from operator import add
from pathlib import Path, PurePosixPath
from typing import Any

from iommuq.build.image import Addition, Image
from iommuq.proof.lanes import KunitLane
from iommuq.queue.csource import is_kernel_source, parse, touched_functions
from iommuq.queue.overlay import Overlay, extend
from iommuq.queue.steps import Step
from iommuq.system.errors import InfraError, UserError
from iommuq.system.files import hash_of
from iommuq.system.git.objects import Objects
from iommuq.system.progress import ranges
from iommuq.system.run import run
from iommuq.system.tables import own_table
from iommuq.system.temporary import temporary_folder

#: The variable with the output directory of libgcov.
PREFIX = "GCOV_PREFIX"
#: Part of the key of an image with notes of the compiler.
_GENERATION = "1"
_GCOV_LIMIT = 120.0
#: Version of the JSON form.
JSON_FORMAT = 1
#: The most missed ranges to show for one function.  JSON has all.
_NAMED = 8

#: Functions by path and name.
Touched = Collection[tuple[str, str]]


@cache
def _settings() -> Mapping[str, Any]:
    return own_table(__package__, "coverage.toml")


@dataclass(frozen=True)
class FunctionCover:
    """The coverage of one function.

    :ivar line: the first line of its definition, from 1.
    :ivar lines: execution count of each line with code, by line number.
    :ivar branches: count of each way of the decisions in a line, by line number.
    """

    name: str
    line: int
    lines: Mapping[int, int] = field(default_factory=dict)
    branches: Mapping[int, Sequence[int]] = field(default_factory=dict)

    @property
    def missed(self) -> tuple[int, ...]:
        """The lines that were not executed."""
        return tuple(line for line, count in sorted(self.lines.items()) if not count)

    @property
    def half(self) -> tuple[int, ...]:
        """The executed lines with a decision that never took one of its ways."""
        return tuple(
            line
            for line, ways in sorted(self.branches.items())
            if self.lines.get(line) and not all(ways)
        )


@dataclass(frozen=True)
class FileCover:
    """The coverage of one file; *functions*: those with code, None if it is not in the kernel."""

    path: str
    functions: tuple[FunctionCover, ...] | None


def instrument(overlay: Overlay, store: Objects, tree: str, paths: Sequence[str]) -> Overlay:
    """Return an overlay that also instruments some files.

    :param tree: the tree, to look for Makefiles.
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
    """Check that coverage supports an architecture.

    :raises UserError: it does not.
    """
    arch = _settings()["arch"]
    if name != arch:
        raise UserError(f"coverage is for {arch} only, not for {name}")


def addition(paths: Sequence[str]) -> Addition:
    """Return an addition that keeps the ``.gcno`` files of compiled C files with an image."""

    def make(_source: Path, objects: Path, into: Path, _log: Path) -> None:
        for path in paths:
            notes = PurePosixPath(path).with_suffix(".gcno")
            if (objects / notes).exists():
                (into / notes).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(objects / notes, into / notes)

    key = hash_of(_GENERATION, *paths)
    return Addition(key, make)


def collect(image: Image, counters: Path, texts: Mapping[str, bytes]) -> tuple[FileCover, ...]:
    """Read the counters of a kernel.

    :param image: built with `addition`.
    :param counters: the directory in `PREFIX`.
    :param texts: the compiled files, by path.
    :raises InfraError: there are no counters, or they are of another image.
    :raises ToolMissing: gcov is not installed.
    """
    covers = []
    for path, text in texts.items():
        notes = image.folder / Addition.FOLDER / PurePosixPath(path).with_suffix(".gcno")
        if not notes.exists():
            covers.append(FileCover(path, None))
            continue
        # libgcov appends the path of the build directory.
        wanted = PurePosixPath("/", path).with_suffix(".gcda")
        found = [each for each in counters.rglob(wanted.name) if str(each).endswith(str(wanted))]
        if len(found) != 1:
            raise InfraError(
                f"the kernel wrote no counters for {path}",
                hint="it writes them when it halts: look for a crash in its log",
            )
        covers.append(FileCover(path, _functions(path, text, _gcov(notes, found[0]))))
    return tuple(covers)


def _gcov(notes: Path, counters: Path) -> Mapping[str, Any]:
    """Run gcov on one object, and return its JSON."""
    with temporary_folder("gcov") as folder:
        # gcov needs the same name for both.
        shutil.copy2(notes, Path(folder, "x.gcno"))
        shutil.copy2(counters, Path(folder, "x.gcda"))
        argv = ["gcov", "--json-format", "--branch-probabilities", "--stdout", "x.gcda"]
        done = run(argv, cwd=folder, env={"LC_ALL": "C.UTF-8"}, timeout=_GCOV_LIMIT)
    try:
        data = json.loads(done.output)
        if not isinstance(data, dict) or not isinstance(data.get("files"), list):
            raise ValueError("no list of files")
    except (ValueError, RecursionError) as error:
        raise InfraError(f"gcov: unexpected output: {error}") from error
    return data


def _functions(path: str, text: bytes, data: Mapping[str, Any]) -> tuple[FunctionCover, ...]:
    """Assign lines to functions by number, as gcov assigns inlined code to the caller."""
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
                old = branches.get(number, [])
                # A line that was compiled twice with the same ways has their sums.
                same = len(old) == len(ways)
                branches[number] = list(map(add, old, ways)) if same else [*old, *ways]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
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


@dataclass(frozen=True)
class Measured:
    """An instrumented step, valid inside `measuring`.

    :ivar lane: runs the suites on the instrumented tree.
    :ivar paths: the instrumented files.
    """

    lane: KunitLane
    step: Step
    objects: Objects
    paths: Sequence[str]
    counters: Path

    def covers(self, image: Image) -> tuple[FileCover, ...]:
        """Return the coverage of the image of the step; see `collect`."""
        read = ((path, self.objects.read_file(self.step.tree, path)) for path in self.paths)
        texts = {path: text for path, text in read if text is not None}
        return collect(image, self.counters, texts)

    def touched(self) -> set[tuple[str, str]]:
        """Return path and name of the functions that the queue touches."""
        steps = self.lane.workspace.steps()
        return {(each.path, each.name) for each in touched_functions(self.objects, steps)}


@contextlib.contextmanager
def measuring(lane: KunitLane, plain: Step) -> Iterator[Measured]:
    """Instrument the tree of the step *plain* for the duration of the block."""
    workspace = lane.workspace
    changes = (change for patch in workspace.queue.sent for change in patch.changes)
    paths = sorted({change.path for change in changes if is_kernel_source(change.path)})
    with temporary_folder("coverage") as folder:
        for name in ("objects", "counters"):
            (folder / name).mkdir()
        objects = Objects(workspace.base.git_dir, folder / "objects")
        overlay = instrument(workspace.overlay, objects, plain.tree, paths)
        counting = replace(workspace, overlay=overlay)
        counters = folder / "counters"
        environment = {PREFIX: str(counters)}
        counted = replace(
            lane, workspace=counting, addition=addition(paths), environment=environment
        )
        yield Measured(counted, counting.step(plain.label), objects, paths, counters)


def report_lines(covers: Sequence[FileCover], touched: Touched) -> Iterator[str]:
    """Yield the table; the functions in *touched* are marked, and have a sum."""
    for cover in covers:
        if cover.functions is None:
            yield f"{cover.path}: not in this kernel"
            continue
        width = max([len(each.name) for each in cover.functions] + [len(cover.path)]) + 2
        yield f"{cover.path:<{width + 2}}{'lines':>15}{'branches':>15}  not executed; one way only"
        for function in cover.functions:
            mark = "*" if (cover.path, function.name) in touched else " "
            missed = "; ".join(filter(None, [_numbers(function.missed), _numbers(function.half)]))
            if function.half and not function.missed:
                missed = f"; {missed}"
            yield f"{mark} {function.name:<{width}}{_counts([function])}  {missed}".rstrip()
        yield f"  {'all functions':<{width}}{_counts(cover.functions)}"
        own = [each for each in cover.functions if (cover.path, each.name) in touched]
        if own:
            yield f"* {'functions of the queue':<{width}}{_counts(own)}"


def _counts(functions: Sequence[FunctionCover]) -> str:
    totals = _totals(functions)
    text = ""
    for what in ("lines", "branches"):
        total, executed = totals[what], totals[f"{what}_executed"]
        ratio = f"{executed}/{total} {100 * executed // total:3}%" if total else "-     "
        text += f"{ratio:>15}"
    return text


def _totals(functions: Sequence[FunctionCover]) -> dict[str, int]:
    lines = [count for each in functions for count in each.lines.values()]
    ways = [count for each in functions for way in each.branches.values() for count in way]
    return {
        "lines": len(lines),
        "lines_executed": len(lines) - lines.count(0),
        "branches": len(ways),
        "branches_executed": len(ways) - ways.count(0),
    }


def _numbers(lines: Sequence[int]) -> str:
    """Return line numbers as ranges, such as ``3, 7-9``, with an ellipsis if there are many."""
    words = ranges(lines)
    return ", ".join(words[:_NAMED]) + (", …" if len(words) > _NAMED else "")


def to_json(covers: Sequence[FileCover], touched: Touched, base: str, patch: str) -> dict[str, Any]:
    """Return the coverage as JSON.

    :param touched: the functions that the queue touches.
    :param patch: label of the step.
    """
    files = []
    for cover in covers:
        functions = [
            {
                "name": each.name,
                "line": each.line,
                "touched": (cover.path, each.name) in touched,
                **_totals([each]),
                "missed": list(each.missed),
                "one_way": list(each.half),
            }
            for each in cover.functions or ()
        ]
        files.append(
            {
                "file": cover.path,
                "built": cover.functions is not None,
                **_totals(cover.functions or ()),
                "functions": functions,
            }
        )
    return {"format": JSON_FORMAT, "base": base, "patch": patch, "files": files}
