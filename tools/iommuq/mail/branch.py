# SPDX-License-Identifier: GPL-2.0-only
"""Mail branches: branches of b4, with a note of the patches of the queue on them.

Changes of a branch are written back into the queue, without the commit of the cover letter, the
suites, and the Signed-off-by of the sender.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from iommuq.mail import cover as covers
from iommuq.mail.b4tool import side
from iommuq.queue.edit import EditTree, Refreshed, refresh
from iommuq.queue.model import load_queue
from iommuq.system import files
from iommuq.system.errors import CommandFailed, UserError
from iommuq.system.git.command import Commit
from iommuq.system.git.objects import Objects
from iommuq.system.run import Completed, run
from iommuq.system.tables import Table, load_json
from iommuq.system.temporary import temporary_folder

PREFIX = "b4/"
_FILE = "iommuq-mail.json"
_LIMIT = 600.0
_SIGNED = re.compile(r"^Signed-off-by: (.*)$", re.M)


@dataclass(frozen=True)
class Note(Table):
    """The patches of the queue on a branch.

    :ivar section: the series.
    :ivar needs: names of the patches below it.
    :ivar tests: subjects of the patches made of the suites.
    """

    section: str
    needs: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()


@dataclass(frozen=True)
class MailBranch:
    """A mail branch, checked out.

    :ivar cover: b4's cover letter.
    :ivar tracking: b4's tracking of the series.
    :ivar start: the commit with the cover letter, below the patches.
    :ivar head: the last commit.
    """

    tree: EditTree
    name: str
    note: Note
    cover: str
    tracking: Mapping[str, Any]
    start: str
    head: str

    @property
    def change_id(self) -> str:
        """The change-id, the same for all versions."""
        return str(self.tracking["series"]["change-id"])

    @property
    def revision(self) -> int:
        """The current version."""
        return int(self.tracking["series"]["revision"])

    @property
    def history(self) -> dict[str, list[str]]:
        """Version -> message ids of its cover letters, ``v1`` first."""
        return dict(self.tracking["series"].get("history", {}))

    def commits(self, store: Objects) -> list[Commit]:
        """Return the patches, then those made of the suites."""
        return store.repo.line(self.start, self.head)

    def is_test(self, commit: Commit) -> bool:
        """Tell whether a commit was made of suites."""
        return commit.subject in self.note.tests


def person(tree: EditTree, *words: str, stdin: str | None = None, check: bool = True) -> Completed:
    """Run git with the user's configuration."""
    return run(["git", *words], cwd=tree.folder, stdin=stdin, check=check)


def identity(tree: EditTree) -> str:
    """Return the sender, as ``Name <address>``.

    :raises UserError: git has no user.name or user.email; its default is not used.
    """
    words = ("-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT")
    done = person(tree, *words, check=False)
    match = re.fullmatch(r"(.*) <([^<>\s]+@[^<>\s]+)> \d+ [+-]\d{4}", done.output.strip())
    if done.returncode != 0 or match is None or not match[1].strip():
        raise UserError(
            "no sender: git has no user.name or no user.email",
            hint="git config --global user.name 'Your Name'; …user.email you@example.com",
        )
    return f"{match[1].strip()} <{match[2]}>"


@contextmanager
def objects(tree: EditTree) -> Iterator[Objects]:
    """Open the object database of a tree, for the duration of the block."""
    with temporary_folder("mail") as folder:
        yield Objects(tree.common, folder)


def load_branch(tree: EditTree) -> MailBranch:
    """Return the mail branch that is checked out.

    :raises UserError: `iommuq mail prep` did not make it, or b4 cannot read it.
    """
    name = tree.repo.branch()
    known = notes(tree)
    note = known.get(name)
    if note is None:
        raise UserError(
            f"{tree.folder}: {name or 'a detached HEAD'} is not a mail branch",
            hint=f"`git switch {min(known)}`" if known else "run `iommuq mail prep BASE SERIES`",
        )
    head = tree.head()
    found = side("load", cwd=tree.folder)
    return MailBranch(tree, name, note, found["cover"], found["tracking"], found["start"], head)


def notes(tree: EditTree) -> dict[str, Note]:
    """Return the notes of all mail branches, by name."""
    path = tree.common / _FILE
    damaged = UserError(f"{path}: damaged", hint="run `iommuq mail prep` again")
    return load_json(dict[str, Note], path, damaged) or {}


def write_note(tree: EditTree, name: str, note: Note) -> None:
    """Write the note of a branch."""
    try:
        old = notes(tree)
    except UserError:
        old = {}
    data = {each: asdict(what) for each, what in {**old, name: note}.items()}
    files.write_json(tree.common / _FILE, data)


def signers(message: str) -> list[str]:
    """Return the Signed-off-by lines of a message, without the key."""
    return [each.strip() for each in _SIGNED.findall(message)]


def without_sign_off(message: str, who: str) -> str:
    """Return a message without the Signed-off-by of *who*."""
    lines = message.rstrip("\n").split("\n")
    kept = [line for line in lines if line.strip() != f"Signed-off-by: {who}"]
    return "\n".join(kept).rstrip() + "\n"


def signed(tree: EditTree, message: str, who: str) -> str:
    """Return a message with the Signed-off-by of *who* at its end."""
    words = ("interpret-trailers", "--if-exists", "addIfDifferent", "--no-divider", "--trailer")
    return tree_git(tree, *words, f"Signed-off-by: {who}", stdin=message)


def tree_git(tree: EditTree, *words: str, stdin: str | None = None) -> str:
    """Run git in a tree, and return its output.

    :raises CommandFailed: it failed.
    """
    done = person(tree, *words, stdin=stdin, check=False)
    if done.returncode != 0:
        raise CommandFailed(f"git {words[0]} failed", hint=done.stderr.strip().split("\n")[0])
    return done.output


def commit_as(
    tree: EditTree, content: str, parent: str, message: str, author: str, date: str
) -> str:
    """Make a commit with the user as committer, and return its id.

    :param content: the id of its tree.
    :param author: ``Name <address>``.
    :param date: of the author, in git's raw form; empty for the current time.
    """
    name, _, address = author.rpartition(" <")
    env = [f"GIT_AUTHOR_NAME={name}", f"GIT_AUTHOR_EMAIL={address.removesuffix('>')}"]
    env += [f"GIT_AUTHOR_DATE=@{date}"] if date else ["-uGIT_AUTHOR_DATE"]
    env.sort(key=lambda word: not word.startswith("-"))
    argv = ["env", *env, "git", "commit-tree", content, "-p", parent]
    return run(argv, cwd=tree.folder, stdin=message, timeout=_LIMIT).output.strip()


def unsigned(branch: MailBranch) -> list[Commit]:
    """Return the patches that the sender has not signed off."""
    who = identity(branch.tree)
    with objects(branch.tree) as store:
        return [each for each in branch.commits(store) if who not in signers(each.message)]


def sign(branch: MailBranch) -> int:
    """Add the sender's Signed-off-by to all patches, and return how many lacked it."""
    tree = branch.tree
    who = identity(tree)
    count = 0
    tip = branch.start
    with objects(tree) as store:
        commits = branch.commits(store)
    for each in commits:
        message = each.message
        if who not in signers(message):
            message = signed(tree, message, who)
            count += 1
        elif each.parents == (tip,):
            tip = each.id
            continue
        tip = commit_as(tree, each.tree, tip, message, each.author, each.date)
    if count:
        # The content is unchanged, so the work tree needs no update.
        tree_git(tree, "update-ref", "-m", "iommuq: sign off", "HEAD", tip, branch.head)
    return count


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
    with objects(tree) as store:
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
    who = identity(branch.tree)
    names = list(note.patches)
    own = [number for number, name in enumerate(names) if name.partition("/")[0] == section]
    first, last = (own[0], own[-1] + 1) if own else (len(names), len(names))
    commits = {each.id: each for each in store.repo.line(note.commit, note.tip)}
    queue = [commits[ident] for ident in note.patches.values()]
    mine = [
        replace(each, message=without_sign_off(each.message, who))
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
    return tree.repo.branch() in notes(tree)
