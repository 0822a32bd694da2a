# SPDX-License-Identifier: GPL-2.0-only
"""Write the changes of a mail branch back into the queue.

Not taken: the cover letter's commit, the suites, and the sender's Signed-off-by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from iommuq.mail import branch as branches
from iommuq.mail import cover as covers
from iommuq.mail.branch import MailBranch, tree_git
from iommuq.queue.edit import EditTree, Refreshed, refresh
from iommuq.queue.model import load_queue
from iommuq.system.errors import UserError
from iommuq.system.git.command import Commit
from iommuq.system.git.objects import Objects


@dataclass(frozen=True)
class Taken:
    """What changed in the queue: patches, and whether the cover letter did."""

    refreshed: Refreshed
    cover: bool


def take_back(branch: MailBranch, folder: Path, *, force: bool = False) -> Taken:
    """Write patches and cover letter of a branch into the queue.

    :param folder: ``patches/<base>``.
    :param force: even if the patches changed since the tree was made.
    :raises UserError: a later patch of the queue no longer applies, or the queue's branch
        has commits that are not in the queue; nothing was written.
    """
    tree = branch.tree
    section = branch.note.section
    home = f"refs/heads/iommuq/{tree.note.base}"
    at = tree.repo.find(home)
    if at and at != tree.note.tip:
        raise UserError(
            f"{tree.folder}: iommuq/{tree.note.base} has commits that are not in the queue",
            hint=f"`git switch iommuq/{tree.note.base} && iommuq queue refresh` first",
        )
    with branches.objects(tree) as store:
        tip = _line(store, branch, section)
    done, after = refresh(tree, folder, section=section, force=force, tip=tip)
    if at:
        tree_git(tree, "update-ref", home, tip, at)
    return Taken(done, write_cover(replace(branch, tree=after), folder))


def write_cover(branch: MailBranch, folder: Path) -> bool:
    """Write the cover letter of a branch into the queue.

    :return: whether the file changed.
    """
    section = branch.note.section
    old = covers.read(folder, section)
    queue = load_queue(folder, branch.tree.note.base)
    if old is None and sum(patch.section == section for patch in queue.patches) < 2:
        # A single patch needs no cover letter; its version stays with the branch.
        return False
    new = covers.from_b4(branch.cover, branch.tracking["series"], old)
    return covers.write(folder, section, new)


def _line(store: Objects, branch: MailBranch, section: str) -> str:
    """Commit the queue with the branch's patches in it, and return the last commit."""
    note = branch.tree.note
    who = branches.identity(branch.tree)
    names = list(note.patches)
    own = [number for number, name in enumerate(names) if name.partition("/")[0] == section]
    first, last = (own[0], own[-1] + 1) if own else (len(names), len(names))
    commits = {each.id: each for each in store.repo.line(note.commit, note.tip)}
    queue = [commits[ident] for ident in note.patches.values()]
    mine = [
        replace(each, message=branches.without_sign_off(each.message, who))
        for each in branch.commits(store)
        if not branch.is_test(each)
    ]
    if not mine:
        raise UserError("no patch on this branch", hint="see `git reflog`")
    for each in mine:
        if len(each.parents) != 1:
            raise UserError(f"commit {each.title} is a merge", hint="rebase it")
        if each.tree == store.tree_of(each.parents[0]):
            raise UserError(f"commit {each.title} changes no file", hint="drop it, or amend it")
    tip = queue[first - 1].id if first else note.commit
    tip = _replay(store, tip, mine, "of this branch", section)
    return _replay(store, tip, queue[last:], "a later patch of the queue", section)


def _replay(store: Objects, tip: str, commits: Sequence[Commit], kind: str, section: str) -> str:
    """Apply commits on top of *tip*, and return the last."""
    tree = store.tree_of(tip)
    store.read_tree(tree)
    for each in commits:
        if each.parents == (tip,):
            tip, tree = each.id, each.tree
            store.read_tree(tree)
            continue
        diff = store.git("diff", "--binary", "--full-index", f"{each.id}^", each.id).output
        done = store.apply(diff.encode())
        if done.returncode != 0:
            raise UserError(
                f"commit {each.title}, {kind}, does not apply with this {section}:"
                f" {done.stderr.strip().splitlines()[0]}",
                hint="change it on the queue's branch: docs/changing-a-patch.md",
            )
        tree = store.write_tree()
        tip = store.commit(tree, tip, author=each.author, date=each.date, message=each.message)
    return tip


def is_on_mail_branch(tree: EditTree) -> bool:
    """Tell whether a mail branch is checked out."""
    return branches.current(tree) in branches.notes(tree)
