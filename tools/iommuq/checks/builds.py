# SPDX-License-Identifier: GPL-2.0-only
"""Checks that build: new warnings of the compiler, sparse, Coccinelle.

``build-*`` builds the kernels of `iommuq run`, the others the objects of changed files.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path, PurePosixPath

from iommuq.build.image import build_image
from iommuq.build.kconfig import Fragments
from iommuq.build.workspace import Workspace
from iommuq.checks.model import REGISTRY, Check, Finding, Skipped, Status, Subject
from iommuq.checks.objects import BUILT, FAILED, Checker, Said, missing, study
from iommuq.queue.steps import Step
from iommuq.system import arches
from iommuq.system.arches import Arch
from iommuq.system.errors import ToolMissing, VerdictError

#: The architectures whose kernels `iommuq run` and `iommuq kunit` build.
_WHOLE = ("um", "x86_64")
SPARSE = Checker("sparse", ("sparse",), ("C=1", "CHECK=sparse"))
COCCICHECK = Checker(
    "coccicheck",
    ("spatch", "ocamlopt"),  # spatch compiles rules that are in OCaml.
    ("C=1", "CHECK={source}/scripts/coccicheck", "MODE=report"),
    rules=("scripts/coccicheck", "scripts/coccinelle"),
)
_NOTHING = "no compiled file changes"
#: The most compiler errors to show.
_FEW = 3


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
            if said.status == FAILED and self.before.get(path, Said()).status != FAILED
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
    REGISTRY.checks.append(
        Check(
            f"build-{_name}",
            f"builds for {arches.get(_name).title}, without new warnings",
            partial(new_warnings, _name),
            slow=True,
        )
    )
for _plan in (_UM, _X86, _ARM):
    REGISTRY.checks.append(
        Check(
            f"w1-{_plan.arch.name}",
            f"compiles for {_plan.arch.title} with W=1, without new warnings",
            partial(w1, _plan),
            slow=True,
        )
    )
for _checker in (SPARSE, COCCICHECK):
    REGISTRY.checks.append(
        Check(
            _checker.name,
            f"{_checker.name} on the files it changes",
            partial(checked, _checker),
            needs=_checker.programs,
            slow=True,
        )
    )
