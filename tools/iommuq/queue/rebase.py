# SPDX-License-Identifier: GPL-2.0-only
"""Carry a queue over to another kernel, patch by patch, with a three-way merge.

It runs in the work tree of the new queue, where files are written only at a conflict.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from iommuq.bases.sources import Base
from iommuq.queue import write as naming
from iommuq.queue.hunks import hunks
from iommuq.queue.model import BASELINE, COVER, Patch, Queue, load_queue
from iommuq.queue.steps import join_repo, make_steps
from iommuq.queue.upstream.compare.judge import Grade
from iommuq.queue.upstream.patches import TreeTarget, judge_patch
from iommuq.queue.write import SERIES, Replay, check, format_mails, rewrite, sums, write
from iommuq.system import files
from iommuq.system.errors import InfraError, UserError, VerdictError
from iommuq.system.files import write_json
from iommuq.system.git.command import git
from iommuq.system.git.objects import Objects, open_repository
from iommuq.system.git.scratch import scratch
from iommuq.system.run import Completed
from iommuq.system.tables import Table, load_json
from iommuq.system.temporary import temporary_folder

#: The note in the repository of the work tree.
FILE = "iommuq-rebase.json"
#: The stored result of a patch whose conflict the user resolved.
RESOLVED = "resolved"
_LIMIT = 1800.0
_PICKED = "CHERRY_PICK_HEAD"
_WHO = {"GIT_COMMITTER_NAME": "iommuq", "GIT_COMMITTER_EMAIL": "iommuq@localhost"}


@dataclass(frozen=True)
class Carried(Table):
    """The result of one patch.

    :ivar name: as in the old series file.
    :ivar how: ``unchanged``, ``offset``, ``merged``, `RESOLVED`, ``already there`` or ``skipped``.
    :ivar commit: the new commit; empty if there is none.
    """

    name: str
    how: str
    commit: str
    old: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class State(Table):
    """The state of a rebase.

    :ivar base: the name of the old base.
    :ivar onto: the name of the new base.
    :ivar start: the commit of the new base.
    :ivar sums: the sha256 of each file of the queue at the start.
    :ivar names: the patches to carry over, in order.
    :ivar done: the results of the first of them.
    :ivar stopped: the time it stopped at a conflict; empty if it did not.
    """

    base: str
    onto: str
    start: str
    sums: dict[str, str]
    names: list[str]
    done: list[Carried] = field(default_factory=list)
    stopped: str = ""

    @property
    def at(self) -> str:
        """The name of the next patch, or ``its end``."""
        return self.names[len(self.done)] if len(self.done) < len(self.names) else "its end"

    @property
    def tip(self) -> str:
        """The last of the new commits."""
        return next((each.commit for each in reversed(self.done) if each.commit), self.start)


def place(base: str, onto: str) -> Path:
    """Return the default directory of a rebase."""
    return files.state_dir() / "rebase" / f"{base}-onto-{onto}"


def read_state(where: Path) -> State | None:
    """Return the state in a work tree; None if it has no rebase."""
    path = where / ".git" / FILE
    hint = f"remove {where}, and start again"
    return load_json(State, path, UserError(f"{path}: damaged", hint=hint))


def write_state(where: Path, state: State) -> None:
    """Store the state of a rebase."""
    write_json(where / ".git" / FILE, asdict(state))


class Stopped(VerdictError):
    """A patch conflicts, and the user must resolve it."""


class Rebase:
    """A new or resumed rebase; *where* is its work tree."""

    def __init__(self, base: Base, queue: Queue, onto: Base, where: Path, state: State) -> None:
        self._base = base
        self._queue = queue
        self._onto = onto
        self._where = where
        self.state = state
        self._patches = {patch.name: patch for patch in queue.patches}

    @classmethod
    def begin(
        cls, base: Base, queue: Queue, onto: Base, where: Path, patches: Sequence[Patch]
    ) -> Rebase:
        """Make the repository.

        :raises UserError: *where* is not empty.
        """
        found = read_state(where)
        if found is not None:
            how, hint = f"was interrupted before {found.at}", "--continue, or --abort"
            if found.stopped:
                how = f"stopped at {found.at} on {found.stopped}"
                hint = "--continue, --skip or --abort"
            raise UserError(
                f"a rebase of {found.base} onto {found.onto} {how}, in {where}", hint=hint
            )
        if where.exists() and any(where.iterdir()):
            raise UserError(f"{where}: not an empty directory", hint="give one with --into")
        names = [patch.name for patch in patches]
        make_steps(base, queue, None)  # Makes the objects that are copied next.
        join_repo(where, f"iommuq/{onto.spec.name}", onto, [base])
        state = State(base.spec.name, onto.spec.name, onto.commit, sums(queue), names)
        write_state(where, state)
        return cls(base, queue, onto, where, state)

    @classmethod
    def resume(cls, base: Base, queue: Queue, onto: Base, where: Path) -> Rebase:
        """Resume a rebase that stopped.

        :raises UserError: there is none, or the patches or the sources changed.
        """
        state = read_state(where)
        if state is None:
            raise UserError(f"no rebase of {queue.base} onto {onto.spec.name} to resume")
        if state.sums != sums(queue) or state.start != onto.commit:
            what = "patches" if state.start == onto.commit else "sources"
            raise UserError(
                f"the {what} changed since the rebase in {where} began",
                hint="--abort, then start again",
            )
        return cls(base, queue, onto, where, state)

    def run(self) -> list[Carried]:
        """Carry over the remaining patches, and return the results of all.

        :raises Stopped: a patch conflicts; the rebase can be resumed.
        """
        steps = make_steps(self._base, self._queue, None)
        with temporary_folder("rebase") as folder:
            store = Objects(self._where / ".git", folder)
            commits = commits_of(store, self._base.commit, steps[-1].commit, self._queue)
            for name in self.state.names[len(self.state.done) :]:
                self._carry(store, self._patches[name], *commits[name])
        self._git("update-ref", f"refs/heads/iommuq/{self.state.onto}", self.state.tip)
        return self.state.done

    def write(self, folder: Path) -> list[str]:
        """Write the results as the queue of the new base.

        :param folder: ``patches/<onto>``.
        :return: the names of the patches.
        :raises UserError: the folder has patches of another queue.
        """
        again = folder == self._queue.folder
        there = self._queue if again else load_queue(folder, self.state.onto)
        if there.patches and not again:
            raise UserError(f"{folder} has {len(there.patches)} patches already")
        kept = [each for each in self.state.done if each.commit]
        with scratch([self._where / ".git"]) as store:
            commits = store.repo.line(self.state.start, self.state.tip)
            mails = list(format_mails(store, self.state.start, self.state.tip)) if kept else []
            olds = [self._patches[each.name] for each in kept]
            slots = [
                naming.Slot(old.name, old.subject, made, commit.subject)
                for old, (made, _), commit in zip(olds, mails, commits, strict=True)
            ]
            names = naming.assign(slots)
            files = {name: data for name, (_, data) in zip(names, mails, strict=True)}
            text = (self._queue.folder / SERIES).read_text(encoding="utf-8")
            called = {name: old.name for name, old in zip(names, olds, strict=True)}
            text = rewrite(text, names, called) if names or again else ""
            check(
                Replay(store),
                self.state.onto,
                dict(zip(names, commits, strict=True)),
                (),
                files,
                text,
            )
        if text:
            gone = [patch.name for patch in there.patches if patch.name not in files]
            write(folder, files, text, gone)
        for section in {name.rpartition("/")[0] for name in names}:
            cover = self._queue.folder / section / COVER
            if cover.is_file() and not (folder / section / COVER).exists():
                shutil.copyfile(cover, folder / section / COVER)
        return names

    def finish(self, *, keep: bool) -> bool:
        """Remove the state of the rebase, and the work tree unless it is of use.

        :param keep: check out the result even if no conflict was resolved there.
        :return: whether there is a work tree.
        """
        if not keep and not any(each.how == RESOLVED for each in self.state.done):
            shutil.rmtree(self._where)
            return False
        self._git("reset", "--quiet", "--hard")
        (self._where / ".git" / FILE).unlink(missing_ok=True)
        return True

    def difference(self) -> str:
        """Return a range-diff of the patches that changed."""
        texts = []
        for each in self.state.done:
            if each.how in ("merged", RESOLVED) and each.old:
                ranges = [f"{commit}^..{commit}" for commit in (each.old, each.commit)]
                words = ("range-diff", "--no-color", "--creation-factor=100")
                texts.append(self._git(*words, *ranges).output)
        return "".join(texts)

    def _carry(self, store: Objects, patch: Patch, parent: str, commit: str) -> None:
        tip = self.state.tip
        trees = [TreeTarget(store, each) for each in (parent, commit, tip)]
        verdict = judge_patch(patch, *trees)
        if verdict.grade >= Grade.DRIFT:
            notes = [f"{each.path}:{each.lines[0]}" for each in verdict.hunks if each.lines[0]]
            self._note(Carried(patch.name, "already there", "", commit, tuple(notes)))
            return
        merged, conflicts = merge(store, parent, commit, tip)
        if conflicts:
            self._stop(patch, commit, conflicts)
        if merged == store.tree_of(tip):
            self._note(Carried(patch.name, "already there", "", commit))
            return
        made = store.commit(
            merged, tip, author=patch.author, date=patch.date, message=patch.message
        )
        self._note(Carried(patch.name, compare(store, commit, made), made, commit))

    def _note(self, carried: Carried) -> None:
        self.state = replace(self.state, done=[*self.state.done, carried], stopped="")
        write_state(self._where, self.state)

    def _stop(self, patch: Patch, commit: str, conflicts: Sequence[str]) -> None:
        """Write the conflict to the work tree, and raise `Stopped`."""
        branch = f"refs/heads/iommuq/{self.state.onto}"
        self._git("update-ref", branch, self.state.tip)
        self._git("reset", "--quiet", "--hard")
        words = ("-c", "merge.conflictStyle=diff3", "cherry-pick", "--allow-empty", commit)
        self._git(*words, check=False)
        stopped = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        self.state = replace(self.state, stopped=stopped)
        write_state(self._where, self.state)
        raise Stopped(
            f"{patch.name} conflicts in {', '.join(conflicts[:3])}"
            + (f" and {len(conflicts) - 3} more" if len(conflicts) > 3 else ""),
            hint=f"resolve it in {self._where}, `git add -f` it, then --continue;"
            " or --skip, or --abort",
        )

    def take(self) -> None:
        """Take the resolution of the patch that conflicted.

        :raises UserError: it is not resolved, or there are other changes.
        """
        if not self.state.stopped:
            return  # It was interrupted, or could not be written at its end.
        name = self.state.names[len(self.state.done)]
        patch = self._patches[name]
        repo = open_repository(self._where / ".git")
        if (self._where / ".git" / _PICKED).exists():
            old = repo.find(_PICKED)
            unmerged = self._git("diff", "--name-only", "--diff-filter=U").output.split("\n")
            unstaged = self._git("diff", "--name-only").output.split("\n")
            for path in filter(None, unmerged + unstaged):
                raise UserError(
                    f"{self._where}: {path} is not resolved, or changed and not added",
                    hint=f"resolve it, `git add -f {path}`, then --continue",
                )
            tree = self._git("write-tree").output.strip()
        else:
            # Committed by hand, or with `git cherry-pick --continue`.
            head = repo.describe("HEAD")
            changed = self._git("status", "--porcelain", "--untracked-files=no").output.strip()
            if changed or (head.id != self.state.tip and head.parents != (self.state.tip,)):
                raise UserError(
                    f"{self._where}: not exactly one commit on top of {self.state.tip[:12]}",
                    hint="squash to one commit, and commit or drop other changes",
                )
            old, tree = "", head.tree
        with temporary_folder("rebase") as folder:
            store = Objects(self._where / ".git", folder)
            marker = marked(store, self.state.tip, tree)
            if marker:
                raise UserError(f"{self._where}: {marker} still has conflict markers")
            if tree == store.tree_of(self.state.tip):
                carried = Carried(name, "skipped", "", old, ("no change left",))
            else:
                message = patch.message
                if not (self._where / ".git" / _PICKED).exists():
                    message = repo.describe("HEAD").message.strip() + "\n"
                made = store.commit(
                    tree, self.state.tip, author=patch.author, date=patch.date, message=message
                )
                carried = Carried(name, RESOLVED, made, old)
        self._quit_pick()
        self._note(carried)

    def skip(self) -> None:
        """Leave out the patch that conflicted.

        :raises UserError: no patch conflicts.
        """
        if not self.state.stopped:
            raise UserError(f"no patch conflicts in {self._where}", hint="--continue, or --abort")
        self._quit_pick()
        self._note(Carried(self.state.names[len(self.state.done)], "skipped", "", ""))

    def _quit_pick(self) -> None:
        self._git("cherry-pick", "--quit", check=False)

    def _git(self, *words: str | Path, check: bool = True) -> Completed:
        return git(
            *words,
            git_dir=self._where / ".git",
            cwd=self._where,
            check=check,
            env=_WHO,  # A cherry-pick without a conflict commits.
            timeout=_LIMIT,
            watched=True,
        )


def abort(where: Path) -> State:
    """Remove a rebase and its work tree.

    :raises UserError: there is none.
    """
    state = read_state(where)
    if state is None:
        raise UserError(f"{where}: no rebase to abort")
    shutil.rmtree(where)
    return state


def wanted(queue: Queue, section: str | None, *, baseline: bool) -> list[Patch]:
    """Return the patches to carry over.

    :param section: the only section to carry over; None for all.
    :param baseline: also those of the baseline.
    :raises UserError: there is no such section.
    """
    sections = sorted({patch.section for patch in queue.patches})
    if section is not None and section not in sections:
        raise UserError(f"no section {section!r} in {queue.base}; there are {', '.join(sections)}")
    return [
        patch
        for patch in queue.patches
        if (section in (None, patch.section))
        and (baseline or section == BASELINE or patch.section != BASELINE)
    ]


def commits_of(store: Objects, base: str, tip: str, queue: Queue) -> dict[str, tuple[str, str]]:
    """Return parent and commit of each patch of a queue."""
    line = [commit.id for commit in store.repo.line(base, tip)]
    names = (patch.name for patch in queue.patches)
    return dict(zip(names, zip([base, *line], line, strict=False), strict=True))


def merge(store: Objects, parent: str, commit: str, tip: str) -> tuple[str, list[str]]:
    """Merge the change of a commit into a tree; return the tree and conflicting files."""
    # The parent becomes the common ancestor that git looks for.
    who = {"author": "iommuq <iommuq@localhost>", "date": "0 +0000", "message": "x\n"}
    root = store.commit(store.tree_of(parent), parent, **who)
    sides = [store.commit(store.tree_of(each), root, **who) for each in (tip, commit)]
    words = ("merge-tree", "--write-tree", "--name-only", "--no-messages", "-z")
    done = store.git(*words, *sides, check=False)
    if done.returncode not in (0, 1):
        raise InfraError(f"git merge-tree: {done.stderr.strip().splitlines()[-1:]}")
    tree, *conflicts = [part for part in done.output.split("\0") if part]
    return tree, sorted(set(conflicts)) if done.returncode else []


def compare(store: Objects, old: str, new: str) -> str:
    """Return ``unchanged``, ``offset`` or ``merged`` for a patch and its old commit."""
    texts = []
    for commit in (old, new):
        diff = store.git("diff-tree", "-p", "--no-renames", f"{commit}^", commit).output
        texts.append(diff.encode("utf-8", "backslashreplace"))
    if _plain(texts[0]) == _plain(texts[1]):
        return "unchanged"
    same = [[(h.path, h.before, h.after) for h in hunks(text)] for text in texts]
    return "offset" if same[0] == same[1] else "merged"


def _plain(diff: bytes) -> list[bytes]:
    """Return the lines without blob ids and without function names in @@ lines."""
    lines = [line for line in diff.split(b"\n") if not line.startswith(b"index ")]
    return [re.sub(rb"^(@@ .*? @@).*", rb"\1", line) for line in lines]


def marked(store: Objects, tip: str, tree: str) -> str:
    """Return a changed file with conflict markers; empty if there is none."""
    for name in store.repo.changed(tip, tree):
        text = store.read_file(tree, name) or b""
        if re.search(rb"^<{7} ", text, re.MULTILINE) and re.search(rb"^>{7} ", text, re.MULTILINE):
            return name
    return ""
