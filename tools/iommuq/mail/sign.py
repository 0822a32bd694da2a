# SPDX-License-Identifier: GPL-2.0-only
"""Add the sender's own Signed-off-by to the patches of a branch."""

from __future__ import annotations

from iommuq.mail import branch as branches
from iommuq.mail.branch import MailBranch, commit_as, tree_git
from iommuq.mailwrite import Commit


def unsigned(branch: MailBranch) -> list[Commit]:
    """Return the patches that the sender has not signed off."""
    who = branches.identity(branch.tree)
    with branches.objects(branch.tree) as store:
        return [each for each in branch.commits(store) if who not in branches.signers(each.message)]


def sign(branch: MailBranch) -> int:
    """Sign all patches off; nothing but their messages changes.

    :return: how many there were to sign.
    """
    tree = branch.tree
    who = branches.identity(tree)
    count = 0
    tip = branch.start
    with branches.objects(tree) as store:
        commits = branch.commits(store)
    for each in commits:
        message = each.message
        if who not in branches.signers(message):
            message = branches.signed(tree, message, who)
            count += 1
        elif each.parents == (tip,):
            tip = each.id
            continue
        tip = commit_as(tree, each.tree, tip, message, each.author, each.date)
    if count:
        # The content is the same, so the files on disk are right as they are.
        tree_git(tree, "update-ref", "-m", "iommuq: sign off", "HEAD", tip, branch.head)
    return count
