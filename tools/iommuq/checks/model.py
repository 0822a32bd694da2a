# SPDX-License-Identifier: GPL-2.0-only
"""The data of checks: checks, their subjects, and their reports."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from iommuq.build.workspace import Workspace
from iommuq.queue.model import Patch, Queue
from iommuq.queue.parse import FileChange
from iommuq.queue.steps import Step
from iommuq.system.errors import ToolMissing, VerdictError
from iommuq.system.git.objects import Objects


class Status(StrEnum):
    """The result of a check.  One that cannot run is skipped, which is not a pass."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True)
class Finding:
    """One result of a check.

    :ivar text: one line.
    :ivar where: ``file:line``, or empty.
    :ivar answer: the reason why it is correct, from ``checks.toml``; empty without one.
    """

    status: Status
    text: str
    where: str = ""
    answer: str = ""


@dataclass(frozen=True)
class Report:
    """The findings of a check; *subject* is the label of the patch, or the name of the section."""

    check: str
    subject: str
    findings: tuple[Finding, ...]

    @property
    def status(self) -> Status:
        """The worst status of the findings without an answer."""
        left = {finding.status for finding in self.findings if not finding.answer}
        order = (Status.FAIL, Status.WARN, Status.SKIP)
        return next((status for status in order if status in left), Status.PASS)


class Skipped(Exception):
    """A check cannot run, for example because its tool is not installed."""


@dataclass(frozen=True)
class Tree:
    """The ids of the trees without and with a patch, in the object database of its base."""

    store: Objects
    before: str
    after: str

    def extract(self, *names: str, before: bool = False) -> Path:
        """Return a directory with some files of the tree.

        :param names: of files, or of directories with a slash at the end.
        :param before: take the tree without the patch.
        :raises Skipped: the tree lacks one of them.
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
    """A patch to check.  For a mail without a queue only the first two fields are set.

    :ivar data: the mail.
    :ivar workspace: its base with its queue.
    :ivar step: its step, with the overlay.
    :ivar previous: the step before, with the overlay.
    :ivar plain: the step before and its step, without the overlay.
    """

    patch: Patch
    data: bytes
    tree: Tree | None = None
    workspace: Workspace | None = None
    step: Step | None = None
    previous: Step | None = None
    plain: tuple[Step, ...] = ()

    @property
    def changes(self) -> tuple[FileChange, ...]:
        """The files that it changes."""
        return self.patch.changes

    @cached_property
    def body(self) -> list[str]:
        """The lines of its message below the subject."""
        return self.patch.message.split("\n")[2:]

    def need_tree(self) -> Tree:
        """Return the tree.

        :raises Skipped: a mail has none.
        """
        if self.tree is None:
            raise Skipped("a mail has no tree")
        return self.tree


@dataclass(frozen=True)
class Series:
    """The patches of a section; *cover* is empty without a cover letter."""

    section: str
    queue: Queue
    subjects: Sequence[Subject]
    cover: str


#: Checks one patch; may raise `Skipped`, `ToolMissing` or `VerdictError`.
Run = Callable[[Subject], list[Finding]]


@dataclass(frozen=True)
class Check:
    """A check.

    :ivar title: what it checks, in a few words.
    :ivar slow: it builds.
    """

    name: str
    title: str
    run: Run
    needs: tuple[str, ...] = ()
    slow: bool = False

    def report(self, subject: Subject) -> Report:
        """Run the check on a patch; its errors become findings."""
        lacks = next((name for name in self.needs if shutil.which(name) is None), None)
        try:
            if lacks is not None:
                raise Skipped(f"{lacks} is not installed")
            found = self.run(subject)
        except (Skipped, ToolMissing) as reason:
            found = [Finding(Status.SKIP, str(reason))]
        except VerdictError as error:
            found = [Finding(Status.FAIL, str(error))]
        return Report(self.name, subject.patch.label, tuple(found))


#: All checks, in the order they run.
CHECKS: list[Check] = []


def register(name: str, title: str) -> Callable[[Run], Run]:
    """Register a function as a check that needs no program and builds nothing."""

    def add(run: Run) -> Run:
        CHECKS.append(Check(name, title, run))
        return run

    return add
