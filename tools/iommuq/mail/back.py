# SPDX-License-Identifier: GPL-2.0-only
"""Take what was amended on a mailing branch back into the queue.

The queue's line of commits is made anew with the branch's patches in the place of the
series, and then refreshed as any other.  What stays behind: the cover letter's commit, the
suites (they are files of the project), and the sender's Signed-off-by, which is a statement
about what is sent and not about what is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from iommuq.mail import branch as branches
from iommuq.mail import cover as covers
from iommuq.mail.branch import MailBranch, tree_git
from iommuq.queue.edit import tree as edittree
from iommuq.queue.edit.refresh import Refreshed, refresh
from iommuq.queue.edit.tree import EditTree
from iommuq.queue.model import load_queue
from iommuq.system.errors import UserError
from iommuq.system.git.commit import Commit
from iommuq.system.git.objects import Store


@dataclass(frozen=True)
class Taken:
    """What came back.

    :ivar refreshed: what became of each patch of the queue.
    :ivar cover: whether the cover letter changed.
    """

    refreshed: Refreshed
    cover: bool


def take_back(branch: MailBranch, folder: Path, *, force: bool = False) -> Taken:
    """Write patches and cover letter of a branch into the queue.

    :param folder: ``patches/<base>``.
    :param force: even if the patches changed since the tree was made.
    :raises UserError: a later patch of the queue does not apply any more, or the queue's own
        branch has work that is not in the queue; nothing was written.
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
        # A single patch needs no letter of its own; its version stays with the branch.
        return False
    new = covers.from_b4(branch.cover, branch.tracking["series"], old)
    return covers.write(folder, section, new)


def _line(store: Store, branch: MailBranch, section: str) -> str:
    """Make the queue's commits anew, and return the last."""
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
    _see_sound(store, mine)
    tip = queue[first - 1].id if first else note.commit
    tip = _replay(store, tip, mine, "this branch's own", section)
    return _replay(store, tip, queue[last:], "a later patch of the queue", section)


def _see_sound(store: Store, commits: Sequence[Commit]) -> None:
    if not commits:
        raise UserError("there is no patch on this branch", hint="`git reflog` knows what was")
    for each in commits:
        if len(each.parents) != 1:
            raise UserError(f"commit {each.title} is a merge", hint="rebase: a series is a line")
        if each.tree == store.tree_of(each.parents[0]):
            raise UserError(f"commit {each.title} changes no file", hint="drop it, or amend it")


def _replay(store: Store, tip: str, commits: Sequence[Commit], kind: str, section: str) -> str:
    """Put commits on another one."""
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
                f"commit {each.title}, {kind}, does not apply with {section} as it is here:"
                f" {done.stderr.strip().splitlines()[0]}",
                hint="change it on the queue's own branch: docs/changing-a-patch.md",
            )
        tree = store.write_tree()
        tip = store.commit(tree, tip, author=each.author, date=each.date, message=each.message)
    return tip


def is_on_mail_branch(tree: EditTree) -> bool:
    """Tell whether what is checked out is a branch that a series is mailed from."""
    return branches.current(tree) in branches.notes(tree)


def find(start: Path | None) -> MailBranch:
    """Return the branch that is checked out in a work tree.

    :param start: the tree; None for the current directory.
    """
    return branches.load(edittree.find(None, start))
