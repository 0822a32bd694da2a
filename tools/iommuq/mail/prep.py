# SPDX-License-Identifier: GPL-2.0-only
"""Make the mail branch of a series, or update it from the queue.

From the base up: the patches that the series needs, b4's cover letter, the series, the suites.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from iommuq.build.workspace import Workspace
from iommuq.mail import branch as branches
from iommuq.mail import cover as covers
from iommuq.mail import export
from iommuq.mail.b4tool import b4, side
from iommuq.mail.branch import MailBranch, Note, commit_as, tree_git
from iommuq.mail.cover import Cover
from iommuq.queue.edit import EditTree
from iommuq.queue.model import BASELINE, Patch
from iommuq.queue.steps import explain
from iommuq.queue.write import sums
from iommuq.system.errors import UserError, VerdictError
from iommuq.system.git.command import Commit
from iommuq.system.git.objects import Objects

_MAINTAINERS = "scripts/get_maintainer.pl"


@dataclass(frozen=True)
class Prepared:
    """The branch that was made.

    :ivar needs: the patches below the series.
    :ivar skipped: suites that are not exported, each with the reason.
    """

    branch: MailBranch
    needs: tuple[Patch, ...]
    skipped: tuple[str, ...]
    anew: bool


def prepare(workspace: Workspace, tree: EditTree, section: str) -> Prepared:
    """Make the branch of a series, or update it from the queue.

    Recipients, version and history of an existing branch are kept.

    :param tree: a work tree of the queue.
    :raises UserError: the tree or the series cannot be used; nothing was changed.
    """
    who = branches.identity(tree)
    patches = _series(workspace, section)
    letter = _letter(workspace, section, patches)
    _see_tree(workspace, tree)
    with branches.objects(tree) as store:
        return _Maker(workspace, tree, store, section, who).make(patches, letter)


def _series(workspace: Workspace, section: str) -> list[Patch]:
    sections = list(dict.fromkeys(patch.section for patch in workspace.queue.sent))
    found = [patch for patch in workspace.queue.patches if patch.section == section]
    if section == BASELINE and found:
        raise UserError(f"the {BASELINE} is never sent")
    if not found:
        raise UserError(
            f"no series {section!r} in the queue of {workspace.queue.base}",
            hint=f"series: {', '.join(sections) or 'none'}",
        )
    at = workspace.queue.patches.index(found[0])
    if list(workspace.queue.patches[at : at + len(found)]) != found:
        raise UserError(f"the patches of {section} are not contiguous in the series file")
    return found


def _letter(workspace: Workspace, section: str, patches: Sequence[Patch]) -> Cover:
    letter = covers.read(workspace.queue.folder, section)
    if letter is not None:
        return letter
    if len(patches) > 1:
        raise UserError(
            f"{section} has {len(patches)} patches and no cover letter",
            hint=f"write {workspace.queue.folder / section / '0000-cover.md'}",
        )
    return Cover(patches[0].subject, "")


def _see_tree(workspace: Workspace, tree: EditTree) -> None:
    tree.head()
    if tree.note.commit != workspace.base.commit:
        raise UserError(
            f"{tree.folder} has {tree.note.version}, the base now has {workspace.base.version}",
            hint="make another tree, or run `iommuq queue rebase`",
        )
    if tree.note.sums != sums(workspace.queue):
        raise UserError(
            f"the patches of {tree.note.base} changed since {tree.folder} was made",
            hint="make another tree with `iommuq queue edit`",
        )


@dataclass
class _Maker:
    """Makes one branch."""

    workspace: Workspace
    tree: EditTree
    store: Objects
    section: str
    who: str
    old: list[Commit] = field(default_factory=list)

    def make(self, patches: Sequence[Patch], letter: Cover) -> Prepared:
        exports, skipped = self._exports()
        queue = self.workspace.queue
        earlier = queue.patches[: queue.patches.index(patches[0])]
        base = self.store.tree_of(self.tree.note.commit)
        always = {name for _, each in exports for name in each.needs}
        below = prerequisites(self.store, base, earlier, patches, always - {self.section})
        if below is None:
            raise VerdictError(f"{self.section} does not apply", hint="run `iommuq queue apply`")
        # Before the branch is changed: what may fail.
        fork, content = self._stack(self.tree.note.commit, base, below)
        # b4 names the branch the same way.
        name = branches.PREFIX + re.sub(r"\W+", "-", self.section).strip("-").lower()
        anew = not self.tree.repo.find(f"refs/heads/{name}")
        trees = self._trees(content, patches)
        tests = self._test_trees(trees[-1] if trees else content, exports)
        if anew:
            b4("prep", "-n", self.section, "-f", fork, cwd=self.tree.folder)
            found = side("load", cwd=self.tree.folder)
            text, tracking = letter.for_b4, _restored(found["tracking"], letter)
        else:
            text, tracking = self._take_up(name, fork, content, letter)
        tracking["series"]["prerequisites"] = self._prerequisites(below, fork)
        side("store", cwd=self.tree.folder, data={"cover": text, "tracking": tracking})
        tip = self._patches(patches, trees)
        for (_, each), tree in zip(exports, tests, strict=True):
            tip = self._test(each, tree, tip)
        tree_git(self.tree, "reset", "--quiet", "--hard", tip)
        note = Note(
            self.section,
            tuple(patch.name for patch in below),
            tuple(each.subject for _, each in exports),
        )
        branches.write_note(self.tree, name, note)
        if os.access(self.tree.folder / _MAINTAINERS, os.X_OK):
            b4("prep", "--auto-to-cc", cwd=self.tree.folder)
        return Prepared(branches.load_branch(self.tree), tuple(below), tuple(skipped), anew)

    def _exports(self) -> tuple[list[Any], list[str]]:
        there = {patch.section for patch in self.workspace.queue.patches}
        found, skipped = [], []
        for folder, each in export.load_exports(self.workspace.root):
            lacking = sorted(set(each.needs) - there)
            if lacking:
                skipped.append(f"{each.subject}: the queue has no {', '.join(lacking)}")
            else:
                found.append((folder, each))
        return found, skipped

    def _stack(self, commit: str, tree: str, patches: Sequence[Patch]) -> tuple[str, str]:
        """Commit patches on top of a commit, and return the last commit and its tree."""
        self.store.read_tree(tree)
        for patch in patches:
            tree = self._apply(patch, tree)
            commit = self.store.commit(
                tree, commit, author=patch.author, date=patch.date, message=patch.message
            )
        return commit, tree

    def _apply(self, patch: Patch, tree: str) -> str:
        done = self.store.apply(patch.diff)
        if done.returncode != 0:
            raise explain(patch, done.stderr, lambda path: self.store.read_file(tree, path))
        return self.store.write_tree()

    def _trees(self, tree: str, patches: Sequence[Patch]) -> list[str]:
        self.store.read_tree(tree)
        made = []
        for patch in patches:
            tree = self._apply(patch, tree)
            made.append(tree)
        return made

    def _test_trees(self, tree: str, exports: Sequence[Any]) -> list[str]:
        made = []
        for folder, each in exports:
            space = self.workspace
            tree = export.lay(self.store, tree, folder, each, space.exported, space.base.kernel)
            made.append(tree)
        return made

    def _take_up(
        self, name: str, fork: str, content: str, letter: Cover
    ) -> tuple[str, dict[str, Any]]:
        """Move the cover letter of an existing branch to another commit."""
        tree_git(self.tree, "checkout", "--quiet", name)
        found = side("load", cwd=self.tree.folder)
        self.old = self.store.repo.line(found["start"], self.tree.head())
        message = self.tree.repo.describe(found["start"]).message
        start = commit_as(self.tree, content, fork, message, self.who, "")
        tree_git(self.tree, "reset", "--quiet", "--hard", start)
        series = found["tracking"]["series"]
        said = covers.from_b4(found["cover"], series, letter)
        same = (said.subject, said.body) == (letter.subject, letter.body)
        return (found["cover"] if same else letter.for_b4), dict(found["tracking"])

    def _prerequisites(self, below: Sequence[Patch], fork: str) -> list[str]:
        """Return b4's ``prerequisites``: the patches below the series."""
        base = self.tree.note.commit
        if not below:
            return []
        listing = self.store.git("log", "--reverse", "-p", "--format=commit %H", f"{base}..{fork}")
        ids = self.store.git("patch-id", "--stable", stdin=listing.output).output
        found = [f"patch-id: {line.split()[0]}" for line in ids.splitlines()]
        return [*found, f"base-commit: {base}"]

    def _patches(self, patches: Sequence[Patch], trees: Sequence[str]) -> str:
        """Commit the series as the user, on top of the cover letter."""
        tip = self.tree.repo.find("HEAD")
        before = self.store.tree_of(tip)
        for patch, tree in zip(patches, trees, strict=True):
            message = patch.message
            if self._signed_before(patch.subject, before, tree):
                message = branches.signed(self.tree, message, self.who)
            tip = commit_as(self.tree, tree, tip, message, patch.author, patch.date)
            before = tree
        return tip

    def _signed_before(self, subject: str, before: str, after: str) -> bool:
        """Tell whether the user has signed off the same change."""
        old = next((each for each in self.old if each.subject == subject), None)
        if old is None or self.who not in branches.signers(old.message):
            return False
        return self._diff(f"{old.id}^", old.id) == self._diff(before, after)

    def _diff(self, before: str, after: str) -> str:
        text = self.store.git("diff", before, after).output
        return self.store.git("patch-id", "--stable", stdin=text).output

    def _test(self, each: export.Export, tree: str, tip: str) -> str:
        """Commit suites as the user; unchanged ones keep message, author and date."""
        old = next((commit for commit in self.old if commit.subject == each.subject), None)
        if old is not None and self._diff(f"{old.id}^", old.id) == self._diff(tip, tree):
            return commit_as(self.tree, tree, tip, old.message, old.author, old.date)
        message = f"{each.subject}\n\n{each.message.strip()}\n"
        return commit_as(self.tree, tree, tip, message, self.who, "")


def _restored(tracking: dict[str, Any], letter: Cover) -> dict[str, Any]:
    """Return b4's tracking with the earlier versions in the cover letter."""
    if not letter.change_id:
        return tracking
    known = {"change-id": letter.change_id, "revision": letter.revision}
    series = {**tracking["series"], **known}
    if letter.sent:
        series["history"] = {version: [msgid] for version, msgid in letter.sent.items()}
    return {**tracking, "series": series}


def prerequisites(
    store: Objects,
    tree: str,
    earlier: Sequence[Patch],
    series: Sequence[Patch],
    always: Collection[str] = (),
) -> list[Patch] | None:
    """Return the patches that must be applied before a series.

    :param store: a repository with *tree*; its private index is used.
    :param tree: the tree that all is applied to.
    :param earlier: the patches before the series, in order.
    :param always: sections that are needed even if the series applies without them.
    :return: in order; None if the series does not apply even with all of them.
    """
    related = _related(earlier, series, always)
    keep = [patch for patch in earlier if patch.name in related]
    if _applies(store, tree, [p for p in keep if p.section in always], series):
        keep = [patch for patch in keep if patch.section in always]
    elif not _applies(store, tree, keep, series):
        # The patches left out change other files; they matter only for renames.
        keep = list(earlier)
        if not _applies(store, tree, keep, series):
            return None
    for patch in reversed(keep.copy()):
        without = [each for each in keep if each is not patch]
        if patch.section not in always and _applies(store, tree, without, series):
            keep = without
    return keep


def _related(
    earlier: Sequence[Patch], series: Sequence[Patch], always: Collection[str]
) -> set[str]:
    """Return the names of the patches that touch files of the series, transitively."""
    paths = {change.path for patch in series for change in patch.changes}
    found: set[str] = set()
    for patch in reversed(earlier):
        own = {change.path for change in patch.changes}
        if patch.section in always or own & paths:
            found.add(patch.name)
            paths |= own
    return found


def _applies(store: Objects, tree: str, first: Sequence[Patch], then: Sequence[Patch]) -> bool:
    store.read_tree(tree)
    return all(store.apply(patch.diff).returncode == 0 for patch in (*first, *then))
