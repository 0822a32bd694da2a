# SPDX-License-Identifier: GPL-2.0-only
"""Messages of the compiler and of checkers for single source files of a tree.

Only the objects of these files are built.  Build directories and messages are cached.
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
from pathlib import Path, PurePosixPath

from iommuq.bases.sources import Base
from iommuq.build import directory
from iommuq.build import warnings as buildlog
from iommuq.build.directory import BUILD_LIMIT, ENVIRONMENT, BuildDirectory
from iommuq.build.kconfig import Fragments
from iommuq.queue.steps import Step
from iommuq.system import files, progress, toolchain
from iommuq.system.arches import Arch
from iommuq.system.files import cache_dir, write_json
from iommuq.system.git.objects import Objects
from iommuq.system.run import Completed, run
from iommuq.system.temporary import temporary_folder

#: Part of every key.  Raise it when the same input gives other messages.
_GENERATION = "2"
BUILT, FAILED, LEFT_OUT = "built", "failed", "left out"
_KINDS = ("errors", "warnings", "remarks")
#: Seconds for a program to print its version.
_MOMENT = 30.0
# The line of make before the messages for an object, which -Otarget keeps together.
_HEADING = re.compile(r"^  ([A-Z]+)(?: \[M\])? +(\S+)")
_REMARK = re.compile(r"^(\S+?\.[chS]):[\d:-]*:? *((?:warning|error|ERROR|WARNING)\b:? *.*)$")
_ERROR = re.compile(r"^(\S+?\.[chS]):[\d:]*:? *(?:fatal )?error: (.*)$")
_FAILED = re.compile(r"^make.*\*\*\* \[\S+: (\S+\.o)\] Error \d+", re.MULTILINE)


@dataclass(frozen=True)
class Checker:
    """A program that the kernel's build runs on each source file that it compiles.

    :ivar programs: what must be installed.
    :ivar words: arguments for make; ``{source}`` is the tree.
    :ivar rules: files and directories that its result depends on, besides the source file
        and the headers next to it; None if it depends on all headers.
    """

    name: str
    programs: tuple[str, ...]
    words: tuple[str, ...]
    rules: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Said:
    """The normalised messages for a file.

    :ivar status: ``built``, ``failed``, or ``left out`` if it is not configured.
    :ivar remarks: the messages of the checker.
    """

    status: str = LEFT_OUT
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
) -> dict[str, Said]:
    """Return the messages for some files, from the cache or by making their objects.

    :param paths: the files, ``*.c``; those that the tree lacks are ignored.
    :param programs: programs whose version is part of the key, besides the native compiler.
    :param checker: a checker to run on them.
    :raises ToolMissing: a tool of the build is not installed.
    :raises VerdictError: the tree cannot be configured, or prepared for any object.
    """
    words = [_GENERATION, arch.name, fragments.key, toolchain.identity()]
    words += [_version(program) for program in programs]
    words += [] if checker is None else checker.words
    notes: dict[str, Path] = {}
    with temporary_folder("objects") as folder:
        store = Objects(base.git_dir, folder)
        for path in paths:
            if store.entries(step.tree, [path]):
                content = _content(store, step.tree, path, checker)
                text = "\n".join([*words, path, *content])
                key = hashlib.sha256(text.encode()).hexdigest()
                notes[path] = cache_dir() / "checks" / f"{key}.json"
    found = {path: said for path, note in notes.items() if (said := _read(note)) is not None}
    left = [path for path in notes if path not in found]
    if left:
        with directory.hold(base):
            kdir = directory.enter(base, step, arch, fragments.variant)
            made = _study(kdir, fragments, left, checker)
        for path, said in made.items():
            write_json(notes[path], asdict(said))
        found |= made
    return found


def _content(store: Objects, tree: str, path: str, checker: Checker | None) -> list[str]:
    """Return the ids of all that the messages for a file depend on."""
    if checker is None or checker.rules is None:
        return [tree]
    around = store.entries(tree, [f"{PurePosixPath(path).parent}/"])
    near = [entry for name, entry in around.items() if name == path or name.endswith(".h")]
    return [*near, *store.entries(tree, checker.rules).values()]


def _study(
    kdir: BuildDirectory, fragments: Fragments, paths: Sequence[str], checker: Checker | None
) -> dict[str, Said]:
    log = files.new_log(f"check-{kdir.base.spec.name}-{kdir.arch.name}-{kdir.step.label}")
    objects = {path: str(Path(path).with_suffix(".o")) for path in paths}
    with directory.interruptible(kdir.objects, kdir.notes / "building"):
        directory.configure(kdir, fragments, log)
        for name in objects.values():
            # The compiler must run again to print its messages.
            (kdir.objects / name).unlink(missing_ok=True)
        title = f"{checker.name if checker else 'W=1'} on {kdir.title}"
        with progress.task(f"Checking {len(paths)} files, {title}", log=log):
            words = list(fragments.make_args)
            words += [word.format(source=kdir.source) for word in checker.words] if checker else []
            done = _make(kdir, words, list(objects.values()), log)
    failed = set(_FAILED.findall(done.output))
    heard = _listen(done.output, kdir)
    found = {}
    for path, name in objects.items():
        built = (kdir.objects / name).is_file()
        status = BUILT if built else FAILED if name in failed else LEFT_OUT
        sides = (tuple(sorted(heard.get((path, kind), ()))) for kind in _KINDS)
        found[path] = Said(status, *sides)
    nothing = all(said.status == LEFT_OUT for said in found.values())
    unknown = [f"No rule to make target '{name}'" in done.output for name in objects.values()]
    if done.returncode != 0 and nothing and not any(unknown):
        raise directory.explain(kdir, done, log)
    return found


def _make(
    kdir: BuildDirectory, words: Iterable[str], objects: Sequence[str], log: Path
) -> Completed:
    jobs = len(os.sched_getaffinity(0))
    return run(
        [
            *("make", f"ARCH={kdir.arch.make_arch}", f"O={kdir.objects}", f"-j{jobs}"),
            *("-k", "-Otarget", *words, *objects),
        ],
        cwd=kdir.source,
        env=ENVIRONMENT,
        log_path=log,  # With a log, both streams are one.
        timeout=BUILD_LIMIT,
        check=False,
        watched=True,
    )


def _listen(said: str, kdir: BuildDirectory) -> dict[tuple[str, str], set[str]]:
    """Return the messages of a build by file and kind, one of `_KINDS`."""
    found: dict[tuple[str, str], set[str]] = {}
    path, checking = "", False

    def note(kind: str, text: str | None) -> None:
        if text:
            found.setdefault((path, kind), set()).add(text)

    for line in said.replace(f"{kdir.source}/", "").splitlines():
        text = line.removeprefix("../")
        heading = _HEADING.match(line)
        if heading:
            path = str(PurePosixPath(heading[2]).with_suffix(".c"))
            checking = heading[1] == "CHECK"
        elif checking:
            remark = _REMARK.match(text)
            note("remarks", remark and f"{remark[1]}: {remark[2]}")
        else:
            error = _ERROR.match(text)
            note("errors", error and f"{error[1]}: {error[2]}")
            note("warnings", buildlog.normalise(text, kdir.source))
    return found


@cache
def _version(program: str) -> str:
    return run((program, "--version"), cwd=Path("/"), timeout=_MOMENT, check=False).output


def missing(checker: Checker) -> bool:
    """Return whether a checker is not installed."""
    return any(shutil.which(program) is None for program in checker.programs)


def _read(note: Path) -> Said | None:
    try:
        data = json.loads(note.read_text(encoding="utf-8"))
        status = str(data.pop("status"))
        return Said(status, **{name: tuple(map(str, value)) for name, value in data.items()})
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None  # Missing or damaged: it is made again.
