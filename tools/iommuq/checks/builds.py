# SPDX-License-Identifier: GPL-2.0-only
"""Checks that build: new warnings of the compiler, sparse, Coccinelle.

``build-*`` are the kernels that `iommuq run` builds, from the same cache.  The others
make the objects of the files that a patch changes, and no more: with ``W=1``, for UML
as `iommuq kunit` configures it, for x86_64 and arm64 with all drivers that there are.
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

#: Whose kernels `iommuq run` and `iommuq kunit` build.
_WHOLE = ("um", "x86_64")
SPARSE = Checker("sparse", ("sparse",), ("C=1", "CHECK=sparse"))
# The script is named in full, as make is in the build directory then.
COCCICHECK = Checker(
    "coccicheck",
    # Some of its rules are in OCaml, and spatch compiles them.
    ("spatch", "ocamlopt"),
    ("C=1", "CHECK={source}/scripts/coccicheck", "MODE=report"),
    rules=("scripts/coccicheck", "scripts/coccinelle"),
)
_NOTHING = "it changes nothing that is compiled"
#: Lines that are shown of what does not compile.
_FEW = 3


def new_warnings(arch_name: str, subject: Subject) -> list[Finding]:
    """Build the tree with the patch and the one without it, and compare the warnings.

    :raises Skipped: it is a mail without a queue.
    """
    place = _Place.of(subject)
    arch = arches.get(arch_name)
    fragments = place.workspace.fragments(arch)
    old: frozenset[str] = frozenset()
    # One of the two trees is that of the patch before, which was built just now.
    with contextlib.suppress(VerdictError):
        old = build_image(place.workspace, place.before, arch, fragments).warnings
    try:
        new = build_image(place.workspace, place.after, arch, fragments).warnings
    except VerdictError as error:
        return [Finding(Status.FAIL, str(error))]
    return [Finding(Status.FAIL, line) for line in sorted(new - old)]


@dataclass(frozen=True)
class _Place:
    """Where a patch of a queue stands.

    :ivar plain: the two without the overlay.
    """

    workspace: Workspace
    before: Step
    after: Step
    plain: tuple[Step, ...]

    @classmethod
    def of(cls, subject: Subject) -> _Place:
        """Return it.

        :raises Skipped: it is a mail without a queue.
        """
        if subject.workspace is None or subject.step is None or subject.previous is None:
            raise Skipped("there is no tree to a mail alone")
        return cls(subject.workspace, subject.previous, subject.step, subject.plain)


@dataclass(frozen=True)
class Plan:
    """How to make the objects of a patch.

    :ivar cross: the prefix of the compiler; empty for that of the machine.
    :ivar every: with all drivers that there are, not as `iommuq kunit` configures it.
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
# No guest of ours is one, so it is in no table; the drivers of IORT and the SMMUs are, though.
_ARM = Plan(
    Arch("arm64", "arm64", "arm64", "Image", Path("arch/arm64/boot/Image"), "", "", ()),
    cross="aarch64-linux-gnu-",
)
#: Checkers look with the first of these at what it compiles, and so on.
_WIDE = (_X86, _ARM)


@dataclass(frozen=True)
class _Pair:
    """What is said of the files of a patch, by path, without it and with it."""

    before: dict[str, Said]
    after: dict[str, Said]

    @property
    def broken(self) -> list[str]:
        """The files that do not compile with the patch and do without it."""
        return [
            path
            for path, said in self.after.items()
            if said.status == FAILED and self._was(path).status != FAILED
        ]

    @property
    def seen(self) -> set[str]:
        """The files of which something can be said."""
        built = {path for path, said in self.after.items() if said.status == BUILT}
        return built | set(self.broken)

    def new(self, kind: str) -> list[str]:
        """Return what is said with the patch alone: ``errors``, ``warnings`` or ``remarks``.

        Of what this configuration has, that is: what is said of the rest means nothing.
        """
        after, before = (
            {text for path in self.seen if path in side for text in getattr(side[path], kind)}
            for side in (self.after, self.before)
        )
        return sorted(after - before)

    def _was(self, path: str) -> Said:
        return self.before.get(path, Said())


def w1(plan: Plan, subject: Subject) -> list[Finding]:
    """Compile the files of a patch with ``W=1``, and compare what the compiler says.

    :raises Skipped: there is nothing to compile, or no compiler for it.
    :raises ToolMissing: something that the build needs is not installed.
    :raises VerdictError: no object of this tree can be made.
    """
    # sparse looks at the same objects, and is quick.
    checker = SPARSE if plan in _WIDE and not missing(SPARSE) else None
    pair = _look(plan, subject, _sources(subject), checker)
    why = ", ".join(pair.new("errors")[:_FEW])
    found = [Finding(Status.FAIL, f"does not compile: {why}", path) for path in pair.broken]
    found += [Finding(Status.FAIL, text) for text in pair.new("warnings")]
    return found + _left_out(subject, pair.seen)


def checked(checker: Checker, subject: Subject) -> list[Finding]:
    """Compare what a checker says of the files of a patch with it and without it.

    :raises Skipped: there is nothing to look at.
    :raises ToolMissing: something that the build needs is not installed.
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
    """Say which of a patch's own files nothing could be said of."""
    left = sorted(_own(subject) - seen)
    if not left:
        return []
    why = "not compiled in this configuration, or not without the patch either"
    return [Finding(Status.SKIP, f"{why}: {', '.join(left)}")]


def _look(plan: Plan, subject: Subject, paths: list[str], checker: Checker | None) -> _Pair:
    place = _Place.of(subject)
    if not paths:
        raise Skipped(_NOTHING)
    if plan.cross and shutil.which(f"{plan.cross}gcc") is None:
        raise Skipped(f"{plan.cross}gcc is not installed")
    fragments = plan.fragments(place.workspace)
    base = place.workspace.base
    programs = [f"{plan.cross}gcc"] if plan.cross else []
    programs += checker.programs if checker else ()
    studies = []
    # Our tests are not the patch's, nor is what it takes to configure them.
    steps = place.plain if plan.every else (place.before, place.after)
    for step in steps:
        try:
            said = study(base, step, plan.arch, fragments, paths, programs, checker)
            studies.append(said)
        except VerdictError:
            # That the patch before breaks the build is said there.
            if step is steps[-1]:
                raise
            studies.append({})
    return _Pair(*studies)


def _own(subject: Subject) -> set[str]:
    """Return the sources of the kernel among the files that a patch changes and leaves."""
    tree = subject.need_tree()
    paths = {change.path for change in subject.changes if change.path.endswith(".c")}
    programs = ("tools/", "scripts/")
    return {
        path
        for path in paths
        if not path.startswith(programs) and tree.store.read_file(tree.after, path) is not None
    }


def _sources(subject: Subject) -> list[str]:
    """Return what to compile: sources of the patch, and those its headers go into.

    Of the latter, those that the queue changes anywhere: what includes a header of the
    kernel is thousands of files.
    """
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
