# SPDX-License-Identifier: GPL-2.0-only
"""What a check is, what it looks at, and what it says."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from iommuq.build.workspace import Workspace
from iommuq.queue.model import Patch, Queue
from iommuq.queue.parse import Change
from iommuq.queue.steps import Step
from iommuq.system.errors import ToolMissing, VerdictError
from iommuq.system.git.objects import Store


class Status(StrEnum):
    """How a check ended.  A check that could not be made is skipped, which is no pass."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True)
class Finding:
    """One thing that a check has to say.

    :ivar text: in one line.
    :ivar where: ``file:line``, or empty.
    :ivar answer: why it is as it should be, if somebody said so.
    """

    status: Status
    text: str
    where: str = ""
    answer: str = ""


@dataclass(frozen=True)
class Report:
    """What one check said about one patch, or about the series.

    :ivar subject: the label of the patch, or the name of the section.
    """

    check: str
    subject: str
    findings: tuple[Finding, ...]

    @property
    def status(self) -> Status:
        """The worst of what was found and not answered."""
        left = {finding.status for finding in self.findings if not finding.answer}
        order = (Status.FAIL, Status.WARN, Status.SKIP)
        return next((status for status in order if status in left), Status.PASS)


class Skipped(Exception):
    """A check cannot be made here, say because its tool is not installed."""


@dataclass(frozen=True)
class Tree:
    """The tree that a patch makes, in the object database of its base.

    :ivar store: that database.
    :ivar before: id of the tree without the patch.
    :ivar after: id of the tree with it.
    """

    store: Store
    before: str
    after: str

    def extract(self, *names: str, before: bool = False) -> Path:
        """Return a directory with some files of the tree.

        :param names: of files; with a slash at its end, of a directory, for the files in it.
        :param before: of the tree without the patch.
        :raises Skipped: the tree has none of that name.
        """
        folder = self.store.folder / ("before" if before else "after")
        folder.mkdir(exist_ok=True)
        tree = self.before if before else self.after
        for name in names:
            if name.endswith("/"):
                listed = self.store.entries(tree, [name])
                files = [path for path, entry in listed.items() if entry.startswith("100")]
                if not files:
                    raise Skipped(f"the tree has no {name}")
                self.extract(*files, before=before)
                continue
            path = folder / name
            if path.exists():
                continue
            data = self.store.read_file(tree, name)
            if data is None:
                raise Skipped(f"the tree has no {name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o755)
        return folder


@dataclass(frozen=True)
class Subject:
    """A patch to be checked.

    :ivar data: the mail.
    :ivar tree: what it makes; None for a mail without a queue.
    :ivar workspace: its base with its queue; None for a mail.
    :ivar step: the step that the patch makes, with the overlay; None for a mail.
    :ivar previous: the step before.
    :ivar plain: the two without the overlay, the step before first; none for a mail.
    """

    patch: Patch
    data: bytes
    tree: Tree | None = None
    workspace: Workspace | None = None
    step: Step | None = None
    previous: Step | None = None
    plain: tuple[Step, ...] = ()

    @property
    def changes(self) -> tuple[Change, ...]:
        """What it does, file by file."""
        return self.patch.changes

    @cached_property
    def body(self) -> list[str]:
        """The lines of its message below the subject."""
        return self.patch.message.split("\n")[2:]

    def need_tree(self) -> Tree:
        """Return the tree.

        :raises Skipped: there is none.
        """
        if self.tree is None:
            raise Skipped("there is no tree to a mail alone")
        return self.tree


@dataclass(frozen=True)
class Series:
    """The patches of a section, with what is said about them all.

    :ivar cover: the cover letter; empty if there is none.
    """

    section: str
    queue: Queue
    subjects: Sequence[Subject]
    cover: str


@dataclass(frozen=True)
class Check:
    """A check.

    :ivar title: what it looks at, in a few words.
    :ivar run: looks at one patch; may raise `Skipped` or `ToolMissing`, which are no pass,
        or `VerdictError` for a failure.
    :ivar needs: programs that it cannot do without.
    :ivar slow: it builds.
    """

    name: str
    title: str
    run: Callable[[Subject], list[Finding]]
    needs: tuple[str, ...] = ()
    slow: bool = False

    def report(self, subject: Subject) -> Report:
        """Make the check."""
        return Report(self.name, subject.patch.label, tuple(_guarded(self, subject)))


def _guarded(check: Check, subject: Subject) -> list[Finding]:
    for program in check.needs:
        if shutil.which(program) is None:
            return [Finding(Status.SKIP, f"{program} is not installed")]
    try:
        return check.run(subject)
    except (Skipped, ToolMissing) as reason:
        return [Finding(Status.SKIP, str(reason))]
    except VerdictError as error:
        # One patch; the others are to be looked at, too.
        return [Finding(Status.FAIL, str(error))]


@dataclass
class Registry:
    """The checks there are, in the order they are made."""

    checks: list[Check] = field(default_factory=list)

    def add(
        self, name: str, title: str, *, needs: Sequence[str] = (), slow: bool = False
    ) -> Callable[[Callable[[Subject], list[Finding]]], Callable[[Subject], list[Finding]]]:
        """Register a function as a check."""

        def register(run: Callable[[Subject], list[Finding]]) -> Callable[[Subject], list[Finding]]:
            self.checks.append(Check(name, title, run, tuple(needs), slow))
            return run

        return register


#: All that were registered.
REGISTRY = Registry()
