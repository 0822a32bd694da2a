# SPDX-License-Identifier: GPL-2.0-only
"""Branches that a series is mailed from: b4's, and a note of what of the queue is on them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from iommuq.mail.b4tool import side
from iommuq.queue.edit.tree import EditTree
from iommuq.system.errors import CommandFailed, InfraError, UserError
from iommuq.system.git.commit import Commit
from iommuq.system.git.objects import Store
from iommuq.system.run import Completed, run

#: What b4 calls its branches.
PREFIX = "b4/"
_FILE = "iommuq-mail.json"
_LIMIT = 600.0
# Left by whoever runs us from a hook or from `git rebase --exec`.
_FOREIGN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
_SIGNED = re.compile(r"^Signed-off-by: (.*)$", re.M)


@dataclass(frozen=True)
class Note:
    """What of the queue is on a branch.

    :ivar section: the series.
    :ivar needs: names of the patches below it.
    :ivar tests: subjects of the patches that were made of the suites.
    """

    section: str
    needs: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()


@dataclass(frozen=True)
class MailBranch:
    """A branch, which is checked out.

    :ivar cover: b4's cover letter.
    :ivar tracking: what b4 knows of the series.
    :ivar start: the commit with the cover letter, which the patches follow.
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
        """What all versions have in common."""
        return str(self.tracking["series"]["change-id"])

    @property
    def revision(self) -> int:
        """The version at work."""
        return int(self.tracking["series"]["revision"])

    @property
    def history(self) -> dict[str, list[str]]:
        """Version -> message ids of its cover letters, ``v1`` first."""
        return dict(self.tracking["series"].get("history", {}))

    def commits(self, store: Store) -> list[Commit]:
        """Return the patches, those made of the suites last."""
        return store.repo.line(self.start, self.head)

    def is_test(self, commit: Commit) -> bool:
        """Tell whether a commit was made of the suites."""
        return commit.subject in self.note.tests


def person(tree: EditTree, *words: str, stdin: str | None = None, check: bool = True) -> Completed:
    """Run git as the person at the tree does, with their configuration."""
    env = {name: "" for name in _FOREIGN if name in os.environ}
    argv = ["env", *(f"-u{name}" for name in env), "git", *words]
    return run(argv if env else ["git", *words], cwd=tree.folder, stdin=stdin, check=check)


def identity(tree: EditTree) -> str:
    """Return who sends, as ``Name <address>``.

    :raises UserError: nobody said so; what git makes of the machine's name is not taken.
    """
    words = ("-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT")
    done = person(tree, *words, check=False)
    match = re.fullmatch(r"(.*) <([^<>\s]+@[^<>\s]+)> \d+ [+-]\d{4}", done.output.strip())
    if done.returncode != 0 or match is None or not match[1].strip():
        raise UserError(
            "nobody knows who sends this: git has no user.name or no user.email",
            hint="git config --global user.name 'Your Name'; …user.email you@example.com",
        )
    return f"{match[1].strip()} <{match[2]}>"


@contextmanager
def objects(tree: EditTree) -> Iterator[Store]:
    """Open the objects of a tree, to read and to add, for as long as the block lasts."""
    with TemporaryDirectory(prefix="iommuq-mail-") as folder:
        yield Store(tree.common, Path(folder))


def current(tree: EditTree) -> str:
    """Return the branch that is checked out; empty if there is none."""
    return tree.repo.branch()


def load(tree: EditTree) -> MailBranch:
    """Return the branch that is checked out, with all that b4 knows of it.

    :raises UserError: it is none that `iommuq mail prep` made, or is not fit to be read.
    """
    name = current(tree)
    note = notes(tree).get(name)
    if note is None:
        made = sorted(notes(tree))
        raise UserError(
            f"{tree.folder}: {name or 'a commit'} is checked out, which nothing is mailed from",
            hint=f"`git switch {made[0]}`" if made else "`iommuq mail prep BASE SERIES` makes one",
        )
    head = tree.head()
    found = side("load", cwd=tree.folder)
    return MailBranch(tree, name, note, found["cover"], found["tracking"], found["start"], head)


def notes(tree: EditTree) -> dict[str, Note]:
    """Return what is on the branches that series are mailed from, by name of the branch."""
    path = tree.common / _FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): Note(str(each["section"]), tuple(each["needs"]), tuple(each["tests"]))
            for name, each in data.items()
        }
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InfraError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged", hint="`iommuq mail prep` writes it anew") from error


def write_note(tree: EditTree, name: str, note: Note) -> None:
    """Note what is on a branch."""
    path = tree.common / _FILE
    try:
        old = notes(tree)
    except UserError:
        old = {}
    data = {each: asdict(what) for each, what in {**old, name: note}.items()}
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_text(json.dumps(data, indent=1), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise InfraError(f"{path}: {error.strerror}") from error


def signers(message: str) -> list[str]:
    """Return who signed a message off."""
    return [each.strip() for each in _SIGNED.findall(message)]


def without_sign_off(message: str, who: str) -> str:
    """Return a message without somebody's Signed-off-by."""
    lines = message.rstrip("\n").split("\n")
    return "\n".join(line for line in lines if line.strip() != f"Signed-off-by: {who}").rstrip() + (
        "\n"
    )


def signed(tree: EditTree, message: str, who: str) -> str:
    """Return a message with somebody's Signed-off-by at its end."""
    words = ("interpret-trailers", "--if-exists", "addIfDifferent", "--no-divider")
    trailer = f"Signed-off-by: {who}"
    return tree_git(tree, *words, "--trailer", trailer, stdin=message)


def tree_git(tree: EditTree, *words: str, stdin: str | None = None) -> str:
    """Run git in a tree, and return what it prints.

    :raises CommandFailed: it failed.
    """
    done = person(tree, *words, stdin=stdin, check=False)
    if done.returncode != 0:
        raise CommandFailed(f"git {words[0]} failed", hint=done.stderr.strip().split("\n")[0])
    return done.output


def commit_as(
    tree: EditTree, content: str, parent: str, message: str, author: str, date: str
) -> str:
    """Make a commit of the person's, who need not be its author.

    :param content: the id of its tree.
    :param author: ``Name <address>``.
    :param date: of the author, in git's raw form; empty for now.
    :return: its id.
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
    """Sign all patches off; nothing but their messages changes.

    :return: how many there were to sign.
    """
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
        # The content is the same, so the files on disk are right as they are.
        tree_git(tree, "update-ref", "-m", "iommuq: sign off", "HEAD", tip, branch.head)
    return count
