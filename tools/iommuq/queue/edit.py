# SPDX-License-Identifier: GPL-2.0-only
"""Edit a queue as the commits of a work tree, and write them back as patches.

The work tree has a note of what it was made of.  Unchanged patches keep their files.  Commits
are matched to patches by id, subject, range-diff.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from iommuq.bases.sources import Base
from iommuq.queue import write as naming
from iommuq.queue.model import BASELINE, Patch, Queue, load_queue
from iommuq.queue.steps import apply_to_repo
from iommuq.queue.write import SERIES, Replay, check, format_mails, rewrite, same_words, sums, write
from iommuq.system import files
from iommuq.system.errors import UserError
from iommuq.system.git.command import Commit, git
from iommuq.system.git.objects import Objects, open_repository
from iommuq.system.git.scratch import scratch
from iommuq.system.run import Completed
from iommuq.system.tables import Table, load_json

if TYPE_CHECKING:
    from iommuq.system.git.repository import Repository

#: The note in the repository of a work tree.
_FILE = "iommuq-queue.json"
# Files of git that exist while an operation is unfinished.
_UNDER_WAY = {
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase, or `git am`,",
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "BISECT_LOG": "a bisection",
}
_SOURCES = (".c", ".h", ".S", ".rs", ".rst", ".dts", ".dtsi", ".yaml", ".sh", ".py")
_PAIR = re.compile(r"\s*(\d+):\s+\S+\s+[=!]\s+(\d+):\s")
# Subjects of `git commit --fixup` and `--squash`.
_FIXUP = re.compile(r"(?:fixup|squash|amend)! ")


class NoTree(UserError):
    """The directory is not in a work tree of a queue."""


@dataclass(frozen=True)
class Note(Table):
    """What a work tree was made of.

    :ivar base: the name of the base.
    :ivar commit: the commit of its sources.
    :ivar version: of the sources, from the provider.
    :ivar patches: the commit of each patch, in order.
    :ivar sums: the sha256 of each file of the queue at that time, with the series file.
    """

    base: str
    commit: str
    version: str
    patches: dict[str, str] = field(default_factory=dict)
    sums: dict[str, str] = field(default_factory=dict)

    @property
    def tip(self) -> str:
        """The last of the commits."""
        return list(self.patches.values())[-1] if self.patches else self.commit


@dataclass(frozen=True)
class EditTree:
    """A work tree.

    :ivar git_dir: the git directory of this work tree.
    :ivar common: the git directory that linked work trees share.
    """

    folder: Path
    git_dir: Path
    common: Path
    note: Note

    @cached_property
    def repo(self) -> Repository:
        """The repository as GitPython has it."""
        return open_repository(self.git_dir)

    def git(self, *words: str | Path) -> Completed:
        """Run git in it, without optional locks, as the user may work there."""
        env = {"GIT_OPTIONAL_LOCKS": "0"}
        return git(*words, git_dir=self.git_dir, cwd=self.folder, env=env)

    def head(self) -> str:
        """Return the commit that is checked out.

        :raises UserError: an operation is unfinished, changes are not committed, or later
            commits of the branch would be lost.
        """
        for name, what in _UNDER_WAY.items():
            if (self.git_dir / name).exists():
                raise UserError(f"{self.folder}: {what} is not finished", hint="finish it first")
        words = ("status", "--porcelain=v1", "-z", "--untracked-files=no", "--no-renames")
        changed = [entry[3:] for entry in self.git(*words).output.split("\0") if entry]
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise UserError(
                f"{self.folder}: {changed[0]}{more} changed and not committed",
                hint="commit it to the patch that it belongs to, or restore it",
            )
        here = self.repo.find("HEAD")
        form = "--format=%(objectname) %(refname:short)"
        found = self.git("for-each-ref", "--contains=HEAD", form, "refs/heads").output.splitlines()
        later = [name for at, name in (line.split(" ", 1) for line in found) if at != here]
        if found and len(later) == len(found):
            raise UserError(
                f"{self.folder}: a commit before the last of {later[0]} is checked out",
                hint=f"`git switch {later[0]}`",
            )
        return here

    def strays(self) -> list[str]:
        """Return sources that are in no commit; Debian's .gitignore hides them from git."""
        if (self.folder / ".config").exists():
            return []  # A build in the tree generates sources.
        names = self.git("ls-files", "-z", "--others").output.split("\0")
        return [
            name
            for name in names
            if name.endswith(_SOURCES)
            or name.rpartition("/")[2].startswith(("Kconfig", "Makefile"))
        ]

    def write(self, note: Note) -> EditTree:
        """Replace its note."""
        files.write_json(self.common / _FILE, asdict(note))
        return EditTree(self.folder, self.git_dir, self.common, note)


def mark(folder: Path, note: Note) -> EditTree:
    """Make a repository with a queue's commits the latest edit tree of its base."""
    git_dir = folder.absolute() / ".git"
    tree = EditTree(folder.absolute(), git_dir, git_dir, note).write(note)
    files.write_json(_latest(note.base), {"folder": str(folder.absolute())})
    return tree


def default_place(base: str) -> Path:
    """Return the default directory for the edit tree of a base."""
    return files.state_dir() / "edit" / base


def find(base: str | None, start: Path | None) -> EditTree:
    """Return an edit tree.

    :param base: of this base; None for any.
    :param start: a directory in it; None for the current one, or else the latest of *base*.
    :raises NoTree: there is none.
    """
    here = start or Path.cwd()
    tree = _open(here)
    if start is None and base is not None and (tree is None or tree.note.base != base):
        last = load_json(dict[str, str], _latest(base)) or {}
        here = Path(last.get("folder", here))
        tree = _open(here) if last else None
    if tree is None:
        raise NoTree(
            f"{here}: not a work tree of a queue"
            if start or base is None
            else f"there is no work tree of the queue of {base}",
            hint=f"`iommuq queue edit {base or 'BASE'}` makes one",
        )
    if base is not None and tree.note.base != base:
        raise UserError(f"{tree.folder} is the queue of {tree.note.base}, not of {base}")
    return tree


def _latest(base: str) -> Path:
    return files.state_dir() / "edit" / f"{base}.json"


def _open(start: Path) -> EditTree | None:
    """Return the edit tree that a directory is in."""
    start = start.absolute()
    for folder in (start, *start.parents):
        git_dir = folder / ".git"
        if not git_dir.exists():
            continue
        common = git_dir
        try:
            if git_dir.is_file():  # a linked work tree
                text = git_dir.read_text(encoding="utf-8")
                git_dir = (folder / text.removeprefix("gitdir:").strip()).resolve()
                common = (git_dir / (git_dir / "commondir").read_text().strip()).resolve()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UserError(f"{git_dir}: damaged: {error}") from error
        hint = "save your commits with `git format-patch`"
        damaged = UserError(f"{common / _FILE}: damaged", hint=hint)
        note = load_json(Note, common / _FILE, damaged)
        return None if note is None else EditTree(folder, git_dir, common, note)
    return None


def edit(base: Base, queue: Queue, into: Path | None = None) -> EditTree:
    """Make a work tree whose commits are the patches of a queue.

    :param into: its directory; `default_place` if None.
    :raises UserError: the directory is not empty.
    :raises VerdictError: a patch does not apply.
    """
    where = into or default_place(queue.base)
    if into is None and where.exists() and any(where.iterdir()):
        raise UserError(
            f"{where}: there is a work tree of {queue.base} already",
            hint="use it, remove it, or give another directory with --into",
        )
    apply_to_repo(base, queue, where)
    return attach(base, queue, where)


def attach(base: Base, queue: Queue, where: Path) -> EditTree:
    """Make a repository with one commit a patch an edit tree; *where* is its work tree."""
    commits = open_repository(where / ".git").line(base.commit, "HEAD")
    names = [patch.name for patch in queue.patches]
    patches = {name: commit.id for name, commit in zip(names, commits, strict=True)}
    note = Note(queue.base, base.commit, base.version, patches, sums(queue))
    return mark(where, note)


@dataclass(frozen=True)
class Entry:
    """A patch after a refresh.

    :ivar name: as in the series file.
    :ivar old: its old name; None if it is new.
    :ivar kept: whether the content of its file is unchanged.
    """

    name: str
    old: str | None
    commit: Commit
    kept: bool

    @property
    def action(self) -> str:
        """``new``, ``changed``, ``renamed`` or ``unchanged``."""
        if self.old is None:
            return "new"
        if not self.kept:
            return "changed"
        return "unchanged" if self.name == self.old else "renamed"


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did.

    :ivar entries: the new patches, in order.
    :ivar dropped: the names of removed patches.
    """

    entries: tuple[Entry, ...]
    dropped: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether any file was written or removed."""
        return bool(self.dropped) or any(entry.action != "unchanged" for entry in self.entries)


def refresh(
    tree: EditTree,
    folder: Path,
    *,
    section: str | None = None,
    rewrite_all: bool = False,
    force: bool = False,
    tip: str | None = None,
) -> tuple[Refreshed, EditTree]:
    """Write the commits of a work tree to the patches in a folder.

    :param folder: ``patches/<base>``.
    :param section: the section of new patches; None for that of their neighbours.
    :param rewrite_all: also write unchanged patches, as git formats them now.
    :param force: write even if the patches changed since the tree was made.
    :param tip: the last of the commits; None for what is checked out.
    :return: what was done, and the tree with a new note.
    :raises UserError: the tree or a commit is not valid for it; nothing was written.
    """
    lock = files.state_dir() / "edit" / f"{tree.note.base}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with files.hold(lock, f"another refresh of {tree.note.base}"), scratch([tree.common]) as store:
        queue = load_queue(folder, tree.note.base)
        if not force:
            _refuse_if_changed(tree, sums(queue))
        commits = _line(store, tree, tip or tree.head())
        if tip is None and queue.patches and not commits:
            raise UserError(
                f"{tree.folder}: no commit after iommuq-base",
                hint="check out the branch with the queue; to drop all patches remove the files",
            )
        found = _Refresh(store, queue, tree.note, commits).run(section, rewrite_all)
    patches = {entry.name: entry.commit.id for entry in found.entries}
    now = sums(load_queue(folder, tree.note.base))
    return found, tree.write(replace(tree.note, patches=patches, sums=now))


def _refuse_if_changed(tree: EditTree, now: Mapping[str, str]) -> None:
    """Raise an error if the patches changed since the tree was made."""
    then = tree.note.sums
    words = [
        *(f"{name} is missing" for name in then if name not in now),
        *(f"{name} is new" for name in now if name not in then),
        *(f"{name} changed" for name in now if name in then and then[name] != now[name]),
    ]
    if words:
        raise UserError(
            f"the patches of {tree.note.base} changed since {tree.folder} was made:"
            f" {', '.join(words)}",
            hint="make another tree and move your commits there, or overwrite them with --force",
        )


def _line(store: Objects, tree: EditTree, tip: str) -> list[Commit]:
    """Return the commits since the base; raise an error if one cannot be a patch."""
    base = tree.note.commit
    if not store.repo.descends(tip, base):
        raise UserError(
            f"{tree.folder}: HEAD does not descend from iommuq-base ({base[:12]})",
            hint="check out the branch with the queue",
        )
    commits = store.repo.line(base, tip)
    before = store.tree_of(base)
    for commit in commits:
        where = f"{tree.folder}: commit {commit.title}"
        if len(commit.parents) != 1:
            raise UserError(f"{where} is a merge", hint="rebase: a queue is linear")
        if _FIXUP.match(commit.subject):
            raise UserError(
                f"{where} is not squashed yet", hint="git rebase -i --autosquash iommuq-base"
            )
        if commit.tree == before:
            raise UserError(f"{where} changes no file", hint="drop it with git rebase -i")
        before = commit.tree
    return commits


class _Refresh:
    """One refresh: matches commits to patches, checks the new files, and writes them."""

    def __init__(self, store: Objects, queue: Queue, note: Note, commits: Sequence[Commit]) -> None:
        self._store = store
        self._queue = queue
        self._note = note
        self._commits = commits
        self._proof = Replay(store)

    def run(self, section: str | None, rewrite_all: bool) -> Refreshed:
        olds = self._match()
        mails = self._mails(olds, rewrite_all)
        slots = [
            naming.Slot(old.name if old else None, old.subject if old else "", name, commit.subject)
            for commit, old, (name, _) in zip(self._commits, olds, mails, strict=True)
        ]
        names = naming.assign(slots, section)
        self._check_order(names)
        files = {name: data for name, (_, data) in zip(names, mails, strict=True)}
        text = (self._queue.folder / SERIES).read_text(encoding="utf-8")
        called = {name: old.name for name, old in zip(names, olds, strict=True) if old}
        if list(called.items()) != [(patch.name, patch.name) for patch in self._queue.patches] or (
            len(names) != len(called)
        ):
            text = rewrite(text, names, called)
        before = {patch.name: patch.path.read_bytes() for patch in self._queue.patches}
        entries = tuple(
            Entry(name, old.name if old else None, commit, bool(old and before[old.name] == data))
            for name, old, commit, (_, data) in zip(names, olds, self._commits, mails, strict=True)
        )
        check(
            self._proof,
            self._queue.base,
            {entry.name: entry.commit for entry in entries},
            {entry.name for entry in entries if entry.kept},
            files,
            text,
        )
        kept = {old.name for old in olds if old}
        gone = tuple(patch.name for patch in self._queue.patches if patch.name not in kept)
        write(self._queue.folder, files, text, [name for name in before if name not in files])
        return Refreshed(entries, gone)

    def _match(self) -> list[Patch | None]:
        """Return the patch of each commit; None if it is new."""
        patches = {patch.name: patch for patch in self._queue.patches}
        found: dict[str, Patch] = {}

        def pair(ident: str, name: str) -> None:
            if ident not in found and name in patches:
                found[ident] = patches.pop(name)

        by_id = {ident: name for name, ident in self._note.patches.items()}
        for commit in self._commits:
            if commit.id in by_id:
                pair(commit.id, by_id[commit.id])
        left = [commit for commit in self._commits if commit.id not in found]
        for commit in left:
            alike = [name for name, patch in patches.items() if patch.subject == commit.subject]
            twins = [each for each in left if each.subject == commit.subject]
            if len(alike) == len(twins) == 1:
                pair(commit.id, alike[0])
        if patches and len(found) < len(self._commits):
            old = list(self._note.patches)
            tip = self._commits[-1].id
            ranges = [f"{self._note.commit}..{end}" for end in (self._note.tip, tip)]
            listing = self._store.git("range-diff", "--no-color", "--no-patch", *ranges).output
            for match in filter(None, map(_PAIR.match, listing.splitlines())):
                pair(self._commits[int(match[2]) - 1].id, old[int(match[1]) - 1])
        return [found.get(commit.id) for commit in self._commits]

    def _mails(self, olds: Sequence[Patch | None], rewrite_all: bool) -> list[tuple[str, bytes]]:
        """Return git's file name and the content of each patch; unchanged ones keep theirs."""
        keeps = [
            not rewrite_all and old is not None and self._still_says(old, commit)
            for commit, old in zip(self._commits, olds, strict=True)
        ]
        if all(keeps):
            return [(PurePosixPath(old.name).name, old.path.read_bytes()) for old in olds if old]
        mails = format_mails(self._store, self._note.commit, self._commits[-1].id)
        return [
            (name, old.path.read_bytes() if keep and old else data)
            for (name, data), old, keep in zip(mails, olds, keeps, strict=True)
        ]

    def _still_says(self, old: Patch, commit: Commit) -> bool:
        if self._note.patches.get(old.name) == commit.id and (
            self._note.sums.get(old.name) == old.sha256
        ):
            return True
        return same_words(old, commit) and self._proof.same_change(old.diff, commit)

    def _check_order(self, names: Sequence[str]) -> None:
        sent = ""
        for name, commit in zip(names, self._commits, strict=True):
            if not name.startswith(f"{BASELINE}/"):
                sent = name
            elif sent:
                raise UserError(
                    f"commit {commit.title} is in {BASELINE}/ and comes after {sent}",
                    hint=f"the patches of {BASELINE}/ come first",
                )
