# SPDX-License-Identifier: GPL-2.0-only
"""Checks that build: new warnings of the compiler, sparse, Coccinelle.

Trees, build directories and images are those of `iommuq run`; kernels with ``W=1``
have build directories of their own, as every object of theirs is another one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from iommuq import arches
from iommuq.build import Addition, Image
from iommuq.checks.model import REGISTRY, Check, Finding, Skipped, Status, Subject
from iommuq.errors import VerdictError
from iommuq.run import run
from iommuq.workshop import BUILD_LIMIT, ENVIRONMENT

_ARCHES = ("um", "x86_64")
#: Where what a checker of sources said is kept, with the image.
_SAID = "said.txt"
_REMARK = re.compile(r"^(\S+?\.[chS]):[\d:-]*:? *((?:warning|error|ERROR|WARNING):? .*)$")

_Images = tuple[Image | None, Image]


def new_warnings(arch: str, subject: Subject) -> list[Finding]:
    """Build the tree with the patch and the one without it, and compare the warnings.

    :raises Skipped: it is a mail without a queue.
    """
    try:
        before, after = _images(arch, subject, None)
    except VerdictError as error:
        return [Finding(Status.FAIL, str(error))]
    old = before.warnings if before else frozenset()
    return [Finding(Status.FAIL, line) for line in sorted(after.warnings - old)]


def _images(arch_name: str, subject: Subject, addition: Addition | None) -> _Images:
    """Return the images without and with a patch.

    :return: None for the first if that tree does not build.
    :raises VerdictError: the tree with it does not build.
    """
    if subject.workspace is None or subject.step is None or subject.previous is None:
        raise Skipped("there is no tree to a mail alone")
    arch = arches.get(arch_name)
    fragments = subject.workspace.fragments(arch).with_warnings()
    before = None
    # One of the two trees is that of the patch before, which was built just now.
    with contextlib.suppress(VerdictError):
        before = subject.workspace.image(subject.previous, arch, fragments, addition)
    return before, subject.workspace.image(subject.step, arch, fragments, addition)


@dataclass(frozen=True)
class Checker:
    """A program that the kernel's build runs on each source file.

    :ivar words: what make is told.
    """

    name: str
    words: tuple[str, ...]

    def addition(self, arch: str, paths: Sequence[str]) -> Addition:
        """Return what to make with an image: what the checker says of some files."""
        key = hashlib.sha256("\n".join([self.name, *self.words, *paths]).encode()).hexdigest()
        return Addition(key, partial(self._make, arch, paths))

    def _make(
        self, arch: str, paths: Sequence[str], source: Path, objects: Path, folder: Path, log: Path
    ) -> None:
        names = [str(Path(path).with_suffix(".o")) for path in paths]
        # What this configuration leaves out is not looked at; neither is what is not there yet.
        names = [name for name in names if (objects / name).exists()]
        said = ""
        if names:
            words = ("make", f"ARCH={arches.get(arch).make_arch}", f"O={objects}", "C=2")
            done = run(
                [*words, *self.words, *names],
                cwd=source,
                env=ENVIRONMENT,
                timeout=BUILD_LIMIT,
                check=False,
                watched=True,
            )
            said = f"{done.output}\n{done.stderr}".replace(f"{source}/", "")
            with log.open("a", encoding="utf-8") as file:
                file.write(said)
        (folder / _SAID).write_text(json.dumps({"seen": names, "said": said}), encoding="utf-8")

    def check(self, subject: Subject) -> list[Finding]:
        """Compare what it says with the patch and without it."""
        paths = sorted(change.path for change in subject.changes if change.path.endswith(".c"))
        if not paths:
            return []
        addition = self.addition("x86_64", paths)
        try:
            before, after = _images("x86_64", subject, addition)
        except VerdictError as error:
            return [Finding(Status.FAIL, str(error))]
        old = _said(before)[1] if before else set()
        seen, new = _said(after)
        found = [Finding(Status.WARN, line) for line in sorted(new - old)]
        left = [path for path in paths if str(Path(path).with_suffix(".o")) not in seen]
        if left:
            found.append(Finding(Status.SKIP, f"not in this configuration: {', '.join(left)}"))
        return found


def _said(image: Image) -> tuple[set[str], set[str]]:
    """Return the objects that were looked at, and the remarks without their lines."""
    data = json.loads((image.folder / Addition.FOLDER / _SAID).read_text(encoding="utf-8"))
    matches = (_REMARK.match(line.removeprefix("../")) for line in data["said"].splitlines())
    return set(data["seen"]), {f"{match[1]}: {match[2]}" for match in matches if match}


for _arch in _ARCHES:
    REGISTRY.checks.append(
        Check(
            f"build-{_arch}",
            f"builds for {arches.get(_arch).title} with W=1, without new warnings",
            partial(new_warnings, _arch),
            slow=True,
        )
    )
for _name, _program, _words in (
    ("sparse", "sparse", ("CHECK=sparse",)),
    ("coccicheck", "spatch", ("CHECK=scripts/coccicheck", "MODE=report")),
):
    REGISTRY.checks.append(
        Check(
            _name,
            f"{_name} on the files it changes",
            Checker(_name, _words).check,
            needs=(_program,),
            slow=True,
        )
    )
