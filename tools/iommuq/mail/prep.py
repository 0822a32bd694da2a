# SPDX-License-Identifier: GPL-2.0-only
"""Make the branch that a series is mailed from, or bring it up to date with the queue.

Below the cover letter's commit, which b4 makes, are the earlier patches that the series
needs; above it the series, and the suites as its last patches.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from iommuq.build.workspace import Workspace
from iommuq.mail import branch as branches
from iommuq.mail import cover as covers
from iommuq.mail import export
from iommuq.mail.b4tool import b4, side
from iommuq.mail.branch import MailBranch, Note, commit_as, person, tree_git
from iommuq.mail.cover import Cover
from iommuq.queue.edit.tree import EditTree
from iommuq.queue.model import BASELINE, Patch
from iommuq.queue.rejects import explain
from iommuq.queue.write import sums
from iommuq.system.errors import UserError, VerdictError
from iommuq.system.git.commit import Commit
from iommuq.system.git.objects import Store

_MAINTAINERS = "scripts/get_maintainer.pl"


@dataclass(frozen=True)
class Prepared:
    """What was made.

    :ivar needs: the patches below the series.
    :ivar skipped: suites that are not mailed with it, each with the reason.
    :ivar anew: whether the branch was not there before.
    """

    branch: MailBranch
    needs: tuple[Patch, ...]
    skipped: tuple[str, ...]
    anew: bool


def prepare(workspace: Workspace, tree: EditTree, section: str) -> Prepared:
    """Make the branch of a series, or make it anew on what the queue says now.

    The cover letter's recipients, the version and its history stay as b4 has them.

    :param tree: a work tree of the queue.
    :raises UserError: the tree or the series is not fit for it; nothing was changed.
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
        raise UserError(f"{BASELINE} goes back in time, and is never sent")
    if not found:
        raise UserError(
            f"no series {section!r} in the queue of {workspace.queue.base}",
            hint=f"there are {', '.join(sections) or 'none'}",
        )
    at = workspace.queue.patches.index(found[0])
    if list(workspace.queue.patches[at : at + len(found)]) != found:
        raise UserError(f"the patches of {section} do not follow each other in the series file")
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
            f"{tree.folder} is of {tree.note.version}, the base is {workspace.base.version} by now",
            hint="make another tree, or take the patches there with `iommuq queue rebase`",
        )
    if tree.note.sums != sums(workspace.queue):
        raise UserError(
            f"the patches of {tree.note.base} are not those that {tree.folder} was made of",
            hint="`iommuq queue edit` makes another tree",
        )


class _Maker:
    """Makes one branch."""

    def __init__(
        self, workspace: Workspace, tree: EditTree, store: Store, section: str, who: str
    ) -> None:
        self._workspace = workspace
        self._tree = tree
        self._store = store
        self._section = section
        self._who = who
        self._old: list[Commit] = []

    def make(self, patches: Sequence[Patch], letter: Cover) -> Prepared:
        """Do it."""
        exports, skipped = self._exports()
        queue = self._workspace.queue
        earlier = queue.patches[: queue.patches.index(patches[0])]
        base = self._store.tree_of(self._tree.note.commit)
        always = {name for _, each in exports for name in each.needs}
        below = prerequisites(self._store, base, earlier, patches, always - {self._section})
        if below is None:
            raise VerdictError(
                f"{self._section} does not apply", hint="`iommuq queue apply` says why"
            )
        # All that may fail comes before anything that a person can see changes.
        fork, content = self._stack(self._tree.note.commit, base, below)
        name = branches.PREFIX + _slug(self._section)
        trees = self._trees(content, patches)
        tests = self._test_trees(trees[-1] if trees else content, exports)
        anew = not self._tree.repo.find(f"refs/heads/{name}")
        if anew:
            b4("prep", "-n", self._section, "-f", fork, cwd=self._tree.folder)
            found = side("load", cwd=self._tree.folder)
            text, tracking = letter.for_b4, _restored(found["tracking"], letter)
        else:
            text, tracking = self._take_up(name, fork, content, letter)
        tracking["series"]["prerequisites"] = self._prerequisites(below, fork)
        side("store", cwd=self._tree.folder, data={"cover": text, "tracking": tracking})
        tip = self._patches(patches, trees)
        for (_, each), tree in zip(exports, tests, strict=True):
            tip = self._test(each, tree, tip)
        tree_git(self._tree, "reset", "--quiet", "--hard", tip)
        note = Note(
            self._section,
            tuple(patch.name for patch in below),
            tuple(each.subject for _, each in exports),
        )
        branches.write_note(self._tree, name, note)
        if os.access(self._tree.folder / _MAINTAINERS, os.X_OK):
            b4("prep", "--auto-to-cc", cwd=self._tree.folder)
        return Prepared(branches.load(self._tree), tuple(below), tuple(skipped), anew)

    def _exports(self) -> tuple[list[Any], list[str]]:
        there = {patch.section for patch in self._workspace.queue.patches}
        found, skipped = [], []
        for folder, each in export.load(self._workspace.root):
            lacking = sorted(set(each.needs) - there)
            if lacking:
                skipped.append(f"{each.subject}: the queue has no {', '.join(lacking)}")
            else:
                found.append((folder, each))
        return found, skipped

    def _stack(self, commit: str, tree: str, patches: Sequence[Patch]) -> tuple[str, str]:
        """Commit patches on top of a commit, by themselves, and return commit and tree."""
        self._store.read_tree(tree)
        for patch in patches:
            tree = self._apply(patch, tree)
            commit = self._store.commit(
                tree, commit, author=patch.author, date=patch.date, message=patch.message
            )
        return commit, tree

    def _apply(self, patch: Patch, tree: str) -> str:
        done = self._store.apply(patch.diff)
        if done.returncode != 0:
            raise explain(patch, done.stderr, lambda path: self._store.read_file(tree, path))
        return self._store.write_tree()

    def _trees(self, tree: str, patches: Sequence[Patch]) -> list[str]:
        self._store.read_tree(tree)
        made = []
        for patch in patches:
            tree = self._apply(patch, tree)
            made.append(tree)
        return made

    def _test_trees(self, tree: str, exports: Sequence[Any]) -> list[str]:
        made = []
        for folder, each in exports:
            tree = export.lay(
                self._store,
                tree,
                folder,
                each,
                self._workspace.overlay,
                self._workspace.base.kernel,
            )
            made.append(tree)
        return made

    def _take_up(
        self, name: str, fork: str, content: str, letter: Cover
    ) -> tuple[str, dict[str, Any]]:
        """Put the cover letter of a branch that is there on another commit."""
        tree_git(self._tree, "checkout", "--quiet", name)
        found = side("load", cwd=self._tree.folder)
        self._old = self._store.repo.line(found["start"], self._tree.head())
        message = self._tree.repo.describe(found["start"]).message
        start = commit_as(self._tree, content, fork, message, self._who, "")
        tree_git(self._tree, "reset", "--quiet", "--hard", start)
        series = found["tracking"]["series"]
        said = covers.from_b4(found["cover"], series, letter)
        same = (said.subject, said.body) == (letter.subject, letter.body)
        return (found["cover"] if same else letter.for_b4), dict(found["tracking"])

    def _prerequisites(self, below: Sequence[Patch], fork: str) -> list[str]:
        """Return what b4 is to say of the patches below the series."""
        base = self._tree.note.commit
        if not below:
            return []
        listing = self._store.git("log", "--reverse", "-p", "--format=commit %H", f"{base}..{fork}")
        ids = self._store.git("patch-id", "--stable", stdin=listing.output).output
        found = [f"patch-id: {line.split()[0]}" for line in ids.splitlines()]
        return [*found, f"base-commit: {base}"]

    def _patches(self, patches: Sequence[Patch], trees: Sequence[str]) -> str:
        """Commit the series as the person, on the cover letter."""
        tip = self._tree.repo.find("HEAD")
        before = self._store.tree_of(tip)
        for patch, tree in zip(patches, trees, strict=True):
            message = patch.message
            if self._signed_before(patch.subject, before, tree):
                message = branches.signed(self._tree, message, self._who)
            tip = commit_as(self._tree, tree, tip, message, patch.author, patch.date)
            before = tree
        return tip

    def _signed_before(self, subject: str, before: str, after: str) -> bool:
        """Tell whether the person signed just this change off already."""
        old = next((each for each in self._old if each.subject == subject), None)
        if old is None or self._who not in branches.signers(old.message):
            return False
        return self._diff(f"{old.id}^", old.id) == self._diff(before, after)

    def _diff(self, before: str, after: str) -> str:
        text = self._store.git("diff", before, after).output
        return self._store.git("patch-id", "--stable", stdin=text).output

    def _test(self, each: export.Export, tree: str, tip: str) -> str:
        """Commit suites as the person; what was said of the same ones before stays."""
        old = next((commit for commit in self._old if commit.subject == each.subject), None)
        if old is not None and self._diff(f"{old.id}^", old.id) == self._diff(tip, tree):
            return commit_as(self._tree, tree, tip, old.message, old.author, old.date)
        message = f"{each.subject}\n\n{each.message.strip()}\n"
        return commit_as(self._tree, tree, tip, message, self._who, "")


def _slug(section: str) -> str:
    """Return what b4 makes of a name."""
    return re.sub(r"\W+", "-", section).strip("-").lower()


def _restored(tracking: dict[str, Any], letter: Cover) -> dict[str, Any]:
    """Return b4's tracking with what the cover letter knows of earlier versions."""
    if not letter.change_id:
        return tracking
    series = {
        **tracking["series"],
        "change-id": letter.change_id,
        "revision": letter.revision,
    }
    if letter.sent:
        series["history"] = {version: [msgid] for version, msgid in letter.sent.items()}
    return {**tracking, "series": series}


def prerequisites(
    store: Store,
    tree: str,
    earlier: Sequence[Patch],
    series: Sequence[Patch],
    always: Collection[str] = (),
) -> list[Patch] | None:
    """Return the patches that must be applied before a series.

    :param store: a repository with *tree*; its private index is used.
    :param tree: what all is applied to.
    :param earlier: the patches before the series, in order.
    :param always: sections that are needed whether the series applies without them or not.
    :return: in order; None if the series does not even apply with all of them.
    """
    related = _related(earlier, series, always)
    keep = [patch for patch in earlier if patch.name in related]
    if _applies(store, tree, [p for p in keep if p.section in always], series):
        keep = [patch for patch in keep if patch.section in always]
    elif not _applies(store, tree, keep, series):
        # What was left out changes other files: it makes no difference, but for renames.
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
    """Return the names of the patches that touch files of the series, and so on."""
    paths = {change.path for patch in series for change in patch.changes}
    found: set[str] = set()
    for patch in reversed(earlier):
        own = {change.path for change in patch.changes}
        if patch.section in always or own & paths:
            found.add(patch.name)
            paths |= own
    return found


def _applies(store: Store, tree: str, first: Sequence[Patch], then: Sequence[Patch]) -> bool:
    store.read_tree(tree)
    return all(store.apply(patch.diff).returncode == 0 for patch in (*first, *then))
