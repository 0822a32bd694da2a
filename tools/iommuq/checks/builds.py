# SPDX-License-Identifier: GPL-2.0-only
"""Checks that build: new warnings of the compiler, sparse, Coccinelle.

``build-*`` builds the kernels of `iommuq run`, the others only the objects of changed files, whose
build directories and messages are cached.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib import resources
from pathlib import Path, PurePosixPath

from iommuq.bases.sources import Base
from iommuq.build import directory
from iommuq.build import warnings as buildlog
from iommuq.build.directory import BUILD_LIMIT, ENVIRONMENT, BuildDirectory
from iommuq.build.image import build_image
from iommuq.build.kconfig import Fragments
from iommuq.build.workspace import Workspace
from iommuq.checks.model import CHECKS, Check, Finding, Skipped, Status, Subject
from iommuq.queue.steps import Step
from iommuq.system import arches, files, progress, toolchain
from iommuq.system.arches import Arch
from iommuq.system.errors import ToolMissing, VerdictError
from iommuq.system.files import cache_dir, write_json
from iommuq.system.git.objects import Objects
from iommuq.system.run import run
from iommuq.system.tables import Table, load_json
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
#: The architectures whose kernels `iommuq run` and `iommuq kunit` build.
_WHOLE = ("um", "x86_64")
_NOTHING = "no compiled file changes"
#: The most compiler errors to show.
_FEW = 3


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


SPARSE = Checker("sparse", ("sparse",), ("C=1", "CHECK=sparse"))
COCCICHECK = Checker(
    "coccicheck",
    ("spatch", "ocamlopt"),  # spatch compiles rules that are in OCaml.
    ("C=1", "CHECK={source}/scripts/coccicheck", "MODE=report"),
    rules=("scripts/coccicheck", "scripts/coccinelle"),
)


@dataclass(frozen=True)
class Said(Table):
    """The normalised messages for a file.

    :ivar status: ``built``, ``failed``, or ``left out`` if it is not configured.
    :ivar remarks: the messages of the checker.
    """

    status: str
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
                key = files.hash_of(*words, path, *content)
                notes[path] = cache_dir() / "checks" / f"{key}.json"
    found = {path: said for path, note in notes.items() if (said := load_json(Said, note))}
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
            jobs = len(os.sched_getaffinity(0))
            make = ["make", f"ARCH={kdir.arch.make_arch}", f"O={kdir.objects}", f"-j{jobs}"]
            done = run(
                [*make, "-k", "-Otarget", *words, *objects.values()],
                cwd=kdir.source,
                env=ENVIRONMENT,
                log_path=log,  # With a log, both streams are one.
                timeout=BUILD_LIMIT,
                check=False,
                watched=True,
            )
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


def new_warnings(arch_name: str, subject: Subject) -> list[Finding]:
    """Build the trees with and without the patch, and compare the warnings.

    :raises Skipped: it is a mail without a queue.
    """
    place = _Around.of(subject)
    arch = arches.get(arch_name)
    fragments = place.workspace.fragments(arch)
    old: frozenset[str] = frozenset()
    with contextlib.suppress(VerdictError):
        old = build_image(place.workspace, place.before, arch, fragments).warnings
    try:
        new = build_image(place.workspace, place.after, arch, fragments).warnings
    except VerdictError as error:
        return [Finding(Status.FAIL, str(error))]
    return [Finding(Status.FAIL, line) for line in sorted(new - old)]


@dataclass(frozen=True)
class _Around:
    """A patch in a queue: the steps before and after it; *plain*: both without overlay."""

    workspace: Workspace
    before: Step
    after: Step
    plain: tuple[Step, ...]

    @classmethod
    def of(cls, subject: Subject) -> _Around:
        """Return the place of a patch; raise `Skipped` for a mail without a queue."""
        if subject.workspace is None or subject.step is None or subject.previous is None:
            raise Skipped("a mail has no tree")
        return cls(subject.workspace, subject.previous, subject.step, subject.plain)


@dataclass(frozen=True)
class Plan:
    """How to make the objects of a patch.

    :ivar cross: the prefix of the cross compiler; empty for the native one.
    :ivar every: all drivers are configured, instead of the configuration of `iommuq kunit`.
    """

    arch: Arch
    cross: str = ""
    every: bool = True

    def fragments(self, workspace: Workspace) -> Fragments:
        """Return the configuration."""
        if not self.every:
            return workspace.fragments(self.arch).with_warnings()
        with resources.as_file(resources.files(__package__) / "checks.config") as path:
            made = Fragments.read(path, variant="checks", every=True).with_warnings()
        words = (f"CROSS_COMPILE={self.cross}",) if self.cross else ()
        return replace(made, make_args=(*made.make_args, *words))


_UM = Plan(arches.get("um"), every=False)
_X86 = Plan(arches.get("x86_64"))
# For the drivers of IORT and the SMMUs.  No guest uses it, so it is not in arches.
_ARM = Plan(
    Arch("arm64", "arm64", "arm64", "Image", Path("arch/arm64/boot/Image"), "", "", ()),
    cross="aarch64-linux-gnu-",
)
#: A checker uses the first of these that compiles a file.
_WIDE = (_X86, _ARM)


@dataclass(frozen=True)
class _Pair:
    """The messages for the files of a patch, by path, without it and with it."""

    before: dict[str, Said]
    after: dict[str, Said]

    @property
    def broken(self) -> list[str]:
        """The files that compile without the patch but not with it."""
        return [
            path
            for path, said in self.after.items()
            if said.status == FAILED and self.before.get(path, Said(LEFT_OUT)).status != FAILED
        ]

    @property
    def seen(self) -> set[str]:
        """The files that compile, or fail only with the patch."""
        built = {path for path, said in self.after.items() if said.status == BUILT}
        return built | set(self.broken)

    def new(self, kind: str) -> list[str]:
        """Return the new ``errors``, ``warnings`` or ``remarks`` in the files of *seen*."""
        after, before = (
            {text for path in self.seen if path in side for text in getattr(side[path], kind)}
            for side in (self.after, self.before)
        )
        return sorted(after - before)


def w1(plan: Plan, subject: Subject) -> list[Finding]:
    """Compile the files of a patch with ``W=1``, and compare the compiler's messages.

    :raises Skipped: there is nothing to compile, or no compiler for it.
    :raises ToolMissing: a tool of the build is not installed.
    :raises VerdictError: no object of this tree can be made.
    """
    # In the same build as sparse, which is fast.
    checker = SPARSE if plan in _WIDE and not missing(SPARSE) else None
    pair = _look(plan, subject, _sources(subject), checker)
    why = ", ".join(pair.new("errors")[:_FEW])
    found = [Finding(Status.FAIL, f"does not compile: {why}", path) for path in pair.broken]
    found += [Finding(Status.FAIL, text) for text in pair.new("warnings")]
    return found + _left_out(subject, pair.seen)


def checked(checker: Checker, subject: Subject) -> list[Finding]:
    """Run a checker on the files of a patch, and return the messages that the patch adds.

    :raises Skipped: there is no file to check.
    :raises ToolMissing: a tool of the build is not installed.
    :raises VerdictError: no object of this tree can be made.
    """
    left = _sources(subject)
    if not left:
        raise Skipped(_NOTHING)
    found: list[Finding] = []
    seen: set[str] = set()
    for plan in _WIDE:
        if not left:
            break
        try:
            pair = _look(plan, subject, left, checker)
        except (Skipped, ToolMissing):
            if plan is _WIDE[0]:
                raise
            break
        seen |= pair.seen
        left = [path for path in left if path not in seen]
        found += [Finding(Status.WARN, text) for text in pair.new("remarks")]
    return found + _left_out(subject, seen)


def _left_out(subject: Subject, seen: set[str]) -> list[Finding]:
    """Report the files of a patch that were not checked."""
    left = sorted(_own(subject) - seen)
    if not left:
        return []
    why = "not compiled in this configuration, or broken without the patch too"
    return [Finding(Status.SKIP, f"{why}: {', '.join(left)}")]


def _look(plan: Plan, subject: Subject, paths: list[str], checker: Checker | None) -> _Pair:
    place = _Around.of(subject)
    if not paths:
        raise Skipped(_NOTHING)
    if plan.cross and shutil.which(f"{plan.cross}gcc") is None:
        raise Skipped(f"{plan.cross}gcc is not installed")
    fragments = plan.fragments(place.workspace)
    base = place.workspace.base
    programs = [f"{plan.cross}gcc"] if plan.cross else []
    programs += checker.programs if checker else ()
    studies = []
    # The overlay is not part of the patch, but the configuration for UML needs it.
    steps = place.plain if plan.every else (place.before, place.after)
    for step in steps:
        try:
            said = study(base, step, plan.arch, fragments, paths, programs, checker)
            studies.append(said)
        except VerdictError:
            if step is steps[-1]:  # The step before is checked by itself.
                raise
            studies.append({})
    return _Pair(*studies)


def _own(subject: Subject) -> set[str]:
    """Return the C sources of the kernel that a patch changes and does not remove."""
    tree = subject.need_tree()
    return {
        path
        for path in (change.path for change in subject.changes)
        if path.endswith(".c")
        and not path.startswith(("tools/", "scripts/"))
        and tree.store.read_file(tree.after, path) is not None
    }


def _sources(subject: Subject) -> list[str]:
    """Return the sources of the patch, and those of the queue that include its headers."""
    tree = subject.need_tree()
    paths = _own(subject)
    headers = [PurePosixPath(c.path).name for c in subject.changes if c.path.endswith(".h")]
    if headers and subject.workspace is not None:
        names = "|".join(map(re.escape, headers))
        includes = re.compile(rf'^\s*#\s*include\s+[<"](?:[^>"]*/)?(?:{names})[>"]', re.MULTILINE)
        for patch in subject.workspace.queue.patches:
            for path in (c.path for c in patch.changes if c.path.endswith(".c")):
                text = tree.store.read_file(tree.after, path) or b""
                if includes.search(text.decode("utf-8", "replace")):
                    paths.add(path)
    return sorted(paths)


for _name in _WHOLE:
    _title = f"builds for {arches.get(_name).title}, without new warnings"
    CHECKS.append(Check(f"build-{_name}", _title, partial(new_warnings, _name), slow=True))
for _plan in (_UM, _X86, _ARM):
    _title = f"compiles for {_plan.arch.title} with W=1, without new warnings"
    CHECKS.append(Check(f"w1-{_plan.arch.name}", _title, partial(w1, _plan), slow=True))
for _checker in (SPARSE, COCCICHECK):
    _title = f"{_checker.name} on the files it changes"
    _run = partial(checked, _checker)
    CHECKS.append(Check(_checker.name, _title, _run, _checker.programs, slow=True))
