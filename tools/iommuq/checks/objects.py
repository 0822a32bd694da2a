# SPDX-License-Identifier: GPL-2.0-only
"""What compiler and checkers say of single source files of a tree.

Only the objects of these files are made, in build directories that are kept; what was
said is kept, too, so that a tree that was looked at once is not made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from iommuq import buildlog, logs, progress, toolchain, workshop
from iommuq.arches import Arch
from iommuq.bases import Base
from iommuq.dirs import cache_dir
from iommuq.errors import InfraError
from iommuq.fragments import Fragments
from iommuq.run import Completed, run
from iommuq.tree import Step
from iommuq.workshop import BUILD_LIMIT, ENVIRONMENT, Workshop

#: Part of every key; to be raised when the same input would say something else.
_GENERATION = "1"
#: Seconds for a program to say its version.
_MOMENT = 30.0
# Whose words follow, as make prints it; with -Otarget all of an object is in one piece.
_HEADING = re.compile(r"^  ([A-Z]+)(?: \[M\])? +\S")
_REMARK = re.compile(r"^(\S+?\.[chS]):[\d:-]*:? *((?:warning|error|ERROR|WARNING)\b:? *.*)$")
_ERROR = re.compile(r"^(\S+?\.[chS]):[\d:]*:? *(?:fatal )?error: (.*)$")
_FAILED = re.compile(r"^make.*\*\*\* \[\S+: (\S+\.o)\] Error \d+", re.MULTILINE)


@dataclass(frozen=True)
class Checker:
    """A program that the kernel's build runs on each source file.

    :ivar program: what must be installed.
    :ivar words: what make is told.
    """

    name: str
    program: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """What was said of some files of a tree.

    :ivar built: the files that there is an object of now.
    :ivar failed: those that do not compile; the others are not in this configuration.
    :ivar errors: what the compiler says of those, normalised.
    :ivar warnings: what it warns of, normalised.
    :ivar remarks: what the checker says, normalised.
    """

    built: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def study(
    base: Base,
    step: Step,
    arch: Arch,
    fragments: Fragments,
    paths: Sequence[str],
    programs: Sequence[str],
    checker: Checker | None = None,
) -> Study:
    """Return what is said of some files, making their objects if nobody asked before.

    :param paths: the files, ``*.c``; those that the tree has not are left out.
    :param programs: those whose version counts, besides the machine's own compiler.
    :param checker: what else to let look at them.
    :raises ToolMissing: something that the build needs is not installed.
    :raises VerdictError: the tree cannot be configured, or prepared for any object.
    """
    words = [_GENERATION, step.tree, arch.name, fragments.key, toolchain.identity(), *paths]
    words += [_version(program) for program in programs]
    words += [] if checker is None else checker.words
    key = hashlib.sha256("\n".join(words).encode()).hexdigest()
    note = cache_dir() / "checks" / f"{key}.json"
    found = _read(note)
    if found is not None:
        return found
    with workshop.hold(base):
        shop = workshop.enter(base, step, arch, fragments.variant)
        found = _study(shop, fragments, paths, checker)
    _write(note, found)
    return found


def _study(
    shop: Workshop, fragments: Fragments, paths: Sequence[str], checker: Checker | None
) -> Study:
    there = [path for path in paths if (shop.source / path).is_file()]
    if not there:
        return Study()
    log = logs.new_log(f"check-{shop.base.spec.name}-{shop.arch.name}-{shop.step.label}")
    objects = [str(Path(path).with_suffix(".o")) for path in there]
    with workshop.interruptible(shop.objects, shop.notes / "building"):
        workshop.configure(shop, fragments, log)
        for name in objects:
            # Only of what it compiles the compiler says anything.
            (shop.objects / name).unlink(missing_ok=True)
        title = f"{checker.name if checker else 'W=1'} on {shop.title}"
        with progress.step(f"Looking at {len(there)} files, {title}", log=log):
            words = [*fragments.make_args, *(checker.words if checker else ())]
            done = _make(shop, words, objects, log)
    built = [path for path, name in zip(there, objects, strict=True) if _is(shop, name)]
    failed = set(_FAILED.findall(done.output))
    bad = [path for path, name in zip(there, objects, strict=True) if name in failed]
    if done.returncode != 0 and not built and not bad and not _is_left_out(done.output, objects):
        raise workshop.explain(shop, done, log)
    return _listen(done.output, shop, built, bad)


def _make(shop: Workshop, words: Iterable[str], objects: Sequence[str], log: Path) -> Completed:
    jobs = len(os.sched_getaffinity(0))
    return run(
        [
            *("make", f"ARCH={shop.arch.make_arch}", f"O={shop.objects}", f"-j{jobs}"),
            *("-k", "-Otarget", *words, *objects),
        ],
        cwd=shop.source,
        env=ENVIRONMENT,
        # With a log, both streams are one, in the order they were written.
        log_path=log,
        timeout=BUILD_LIMIT,
        check=False,
        watched=True,
    )


def _is(shop: Workshop, name: str) -> bool:
    return (shop.objects / name).is_file()


def _is_left_out(said: str, objects: Sequence[str]) -> bool:
    """Tell whether make knows no way to what it was asked for: Kconfig left it out."""
    return any(f"No rule to make target '{name}'" in said for name in objects)


def _listen(said: str, shop: Workshop, built: Sequence[str], failed: Sequence[str]) -> Study:
    """Sort what a build said by who said it."""
    errors: set[str] = set()
    warnings: set[str] = set()
    remarks: set[str] = set()
    checking = False
    for line in said.replace(f"{shop.source}/", "").splitlines():
        heading = _HEADING.match(line)
        if heading:
            checking = heading[1] == "CHECK"
            continue
        text = line.removeprefix("../")
        if checking:
            remark = _REMARK.match(text)
            remarks |= {f"{remark[1]}: {remark[2]}"} if remark else set()
            continue
        error = _ERROR.match(text)
        errors |= {f"{error[1]}: {error[2]}"} if error else set()
        warning = buildlog.normalise(text, shop.source)
        warnings |= {warning} if warning else set()
    return Study(
        tuple(sorted(built)),
        tuple(sorted(failed)),
        tuple(sorted(errors)),
        tuple(sorted(warnings)),
        tuple(sorted(remarks)),
    )


@cache
def _version(program: str) -> str:
    return run((program, "--version"), cwd=Path("/"), timeout=_MOMENT, check=False).output


def missing(checker: Checker) -> bool:
    """Tell whether a checker is not installed."""
    return shutil.which(checker.program) is None


def _read(note: Path) -> Study | None:
    try:
        data = json.loads(note.read_text(encoding="utf-8"))
        return Study(**{name: tuple(map(str, value)) for name, value in data.items()})
    except (OSError, ValueError, TypeError, AttributeError):
        return None  # Never made, or damaged: it is made again.


def _write(note: Path, found: Study) -> None:
    temporary = note.with_suffix(".new")
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(asdict(found), indent=1), encoding="utf-8")
        temporary.replace(note)
    except OSError as error:
        raise InfraError(f"{note}: {error.strerror}") from error
