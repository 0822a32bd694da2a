# SPDX-License-Identifier: GPL-2.0-only
"""Make the trees of a queue: one commit a patch, and each with the overlay laid over it.

They are made in the base's bare repository with a private index, and kept by input hash.
The error for a patch that does not apply says which hunk, and why.  A tree is written to disk as
a build directory, where only the files that differ are rewritten, as make compares times; or as a
git repository for the user.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from operator import eq
from pathlib import Path

from iommuq.bases.sources import Base
from iommuq.queue.hunks import Hunk, hunks
from iommuq.queue.model import BASELINE, PLAIN, Patch, Queue, find_step
from iommuq.queue.overlay import Layer, Overlay
from iommuq.system.errors import (
    CommandFailed,
    InfraError,
    ObjectsLost,
    UserError,
    VerdictError,
    os_errors_as,
)
from iommuq.system.files import hash_of, write_whole
from iommuq.system.git.command import git
from iommuq.system.git.objects import Objects, lost_or
from iommuq.system.run import Completed
from iommuq.system.temporary import temporary_folder

#: Part of every key.  Raise it when the same input gives other trees.
_GENERATION = "1"
_IDS = re.compile(r"[0-9a-f]{40,64}(?: [0-9a-f]{40,64})?")
#: The least share of a hunk's text that a place must have to be named.
_ENOUGH = 0.4
_EVERYWHERE = {b"", b"{", b"}", b"};"}

_FAILED = re.compile(r"^error: patch failed: (.+):(\d+)$", re.MULTILINE)
_FIRST = re.compile(r"^error: (.+)$", re.MULTILINE)
#: Seconds.  A whole kernel takes 15 on an idle disk.
_LIMIT = 1800.0


@dataclass(frozen=True)
class Step:
    """A state of the tree that can be built and tested.

    :ivar label: ``base``, ``baseline``, or the label of its last patch.
    :ivar patch: that patch; None for the baseline and the plain base.
    :ivar commit: the last commit, without the overlay.
    :ivar tree: the id of the tree, with the overlay if there is one.
    """

    label: str
    patch: Patch | None
    commit: str
    tree: str


@dataclass(frozen=True)
class _Link:
    """A commit to make: the base or a patch; *key* is the hash of the base and all patches."""

    patch: Patch | None
    key: str

    @property
    def is_baseline(self) -> bool:
        return self.patch is None or self.patch.section == BASELINE


class _Memo:
    """The ids made for each key: one file a key, inside the repository, safe in parallel."""

    def __init__(self, git_dir: Path) -> None:
        self._folder = git_dir / "iommuq-steps"

    def get(self, key: str) -> tuple[str, ...] | None:
        try:
            text = (self._folder / key).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return None
        return tuple(text.split()) if _IDS.fullmatch(text) else None

    def put(self, key: str, *ids: str) -> None:
        """Store *ids*; a full disk is no error, as they can be made again."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            write_whole(self._folder / key, " ".join(ids).encode("ascii"))

    def forget(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def make_steps(
    base: Base, queue: Queue, overlay: Overlay | None, *, to: str | None = None
) -> list[Step]:
    """Make the steps of a queue: the baseline, then one a patch.

    :param to: the step to stop after, as `find_step` understands it; all if None.
        For ``base`` only that step is made, without any patch.
    :raises UserError: there is no step *to*.
    :raises VerdictError: a patch does not apply, or the overlay does not fit.
    """
    return _make_again_if_lost(base, queue, overlay, to, alone=False)


def make_step(base: Base, queue: Queue, overlay: Overlay | None, *, to: str | None = None) -> Step:
    """Make the last step of `make_steps`, and lay the overlay over that one only."""
    return _make_again_if_lost(base, queue, overlay, to, alone=True)[-1]


def _make_again_if_lost(
    base: Base, queue: Queue, overlay: Overlay | None, to: str | None, *, alone: bool
) -> list[Step]:
    last = None if to is None else find_step(queue, to)
    try:
        return _make(base, queue, overlay, last, alone)
    except ObjectsLost:
        forget_steps(base)
        return _make(base, queue, overlay, last, alone)


def forget_steps(base: Base) -> None:
    """Forget all steps of *base*, so that the next call makes them again."""
    _Memo(base.git_dir).forget()
    # Loose objects are not synced, for speed.  After a power cut some are empty, and git
    # takes those for written.
    for path in (base.git_dir / "objects").glob("[0-9a-f][0-9a-f]/*"):
        with contextlib.suppress(OSError):
            if path.stat().st_size == 0:
                path.unlink()


def _make(
    base: Base, queue: Queue, overlay: Overlay | None, last: str | None, alone: bool
) -> list[Step]:
    links = [_Link(None, hash_of(_GENERATION, base.commit))]
    for wanted in _wanted(queue, last):
        links.append(_Link(wanted, hash_of(links[-1].key, wanted.sha256)))
    with temporary_folder("steps") as folder:
        maker = _Maker(base, overlay, Objects(base.git_dir, folder, boxed=base.boxed))
        made = maker.commits(links)
        steps: list[Step] = []
        for number, (link, (commit, tree)) in enumerate(zip(links, made, strict=True)):
            if link.is_baseline and links[number + 1 :] and links[number + 1].is_baseline:
                continue
            if alone and links[number + 1 :]:
                continue
            patch = None if link.is_baseline else link.patch
            label = patch.label if patch else PLAIN if last == PLAIN else BASELINE
            steps.append(Step(label, patch, commit, maker.lay(link, tree, label)))
    return steps


def _wanted(queue: Queue, last: str | None) -> Iterator[Patch]:
    """Yield the patches up to the step *last*; all if None."""
    if last == PLAIN:
        return
    yield from queue.baseline
    if last == BASELINE:
        return
    for patch in queue.sent:
        yield patch
        if patch.label == last:
            return


class _Maker:
    """Makes commits and trees that `_Memo` lacks."""

    def __init__(self, base: Base, overlay: Overlay | None, store: Objects) -> None:
        self._base = base
        self._overlay = overlay
        self._store = store
        self._memo = _Memo(base.git_dir)
        self._layer: Layer | None = None

    def commits(self, links: Sequence[_Link]) -> list[tuple[str, str]]:
        """Return commit and tree of each link."""
        made: list[tuple[str, str]] = []
        loaded = ""  # the tree that the private index holds
        for link in links:
            known = self._memo.get(link.key)
            if known is None or len(known) != 2:
                if link.patch is None:
                    known = self._base.commit, self._store.tree_of(self._base.commit)
                else:
                    if loaded != made[-1][1]:
                        self._store.read_tree(made[-1][1])
                    known = self._commit(link.patch, *made[-1])
                    loaded = known[1]
                self._memo.put(link.key, *known)
            made.append((known[0], known[1]))
        return made

    def _commit(self, patch: Patch, parent: str, tree: str) -> tuple[str, str]:
        """Apply a patch to the private index, which holds *tree*, and commit it."""
        done = self._store.apply(patch.diff)
        if done.returncode != 0:
            raise explain(patch, done.stderr, lambda path: self._store.read_file(tree, path))
        result = self._store.write_tree()
        commit = self._store.commit(
            result, parent, author=patch.author, date=patch.date, message=patch.message
        )
        return commit, result

    def lay(self, link: _Link, tree: str, label: str) -> str:
        """Return the tree of *link* with the overlay laid over it."""
        if self._overlay is None:
            return tree
        key = hash_of(link.key, self._overlay.key)
        known = self._memo.get(key)
        if known is None:
            self._layer = self._layer or Layer(self._overlay, self._store)
            known = (self._layer.over(tree, f"{self._base.spec.name} {label}"),)
            self._memo.put(key, *known)
        return known[0]


def explain(patch: Patch, said: str, read_file: Callable[[str], bytes | None]) -> VerdictError:
    """Return the error for a patch that git refused.

    :param said: the standard error of git.
    :param read_file: returns the content of a file in the tree; None if it is missing.
    """
    failed = _FAILED.search(said)
    if not failed:
        first = _FIRST.search(said)
        reason = first[1] if first else said.strip() or "git gave no reason"
        return VerdictError(
            f"{patch.name} does not apply: {reason.replace(' in index', ' in the tree')}",
            hint="check that the base, or a patch before it, has that file",
        )
    path, start = failed[1], int(failed[2])
    hunk = next(
        (each for each in hunks(patch.diff) if (each.path, each.start) == (path, start)), None
    )
    if hunk is None:
        return VerdictError(f"{patch.name} does not apply: {path}:{start}", hint="line from git")
    at = f"{patch.path}:{patch.diff_line + hunk.line - 1}" if patch.diff_line else "encoded mail"
    return VerdictError(
        f"{patch.name} does not apply: {path}, hunk {hunk.number} ({hunk.header}) [{at}]",
        hint=where_to_look(hunk, read_file(path)),
    )


def where_to_look(hunk: Hunk, content: bytes | None) -> str:
    """Return a sentence that says where the text of a hunk, or the nearest to it, is."""
    if content is None:
        return f"there is no {hunk.path} in the tree"
    lines = content.split(b"\n")
    offset, _ = _nearest(hunk.after, lines, hunk.start - 1)
    there = tuple(lines[offset : offset + len(hunk.after)])
    if there == hunk.after != hunk.before and not set(there) <= _EVERYWHERE:
        return f"the change is probably in {hunk.path}:{offset + 1} already"
    offset, share = _nearest(hunk.before, lines, hunk.start - 1)
    if share < _ENOUGH:
        return f"no similar text in {hunk.path}"
    same = takewhile(bool, map(eq, hunk.before, lines[offset:]))
    differs = offset + 1 + len(list(same))
    return f"the nearest text is at {hunk.path}:{offset + 1}, differing from line {differs} on"


def _nearest(wanted: Sequence[bytes], lines: Sequence[bytes], near: int) -> tuple[int, float]:
    """Return the offset in *lines* with most of *wanted*, and the share found there."""
    # Braces and empty lines are everywhere, so they count only if there is nothing else.
    telling = [number for number, line in enumerate(wanted) if line.strip() not in _EVERYWHERE]
    counted = telling or range(len(wanted))
    places: dict[bytes, list[int]] = {}
    for number, line in enumerate(lines):
        places.setdefault(line, []).append(number)
    votes = Counter(
        place - number
        for number in counted
        for place in places.get(wanted[number], ())
        if place >= number
    )
    if not votes:
        return 0, 0.0
    offset, count = max(votes.items(), key=lambda vote: (vote[1], -abs(vote[0] - near)))
    return offset, count / len(counted)


def checkout(base: Base, tree: str, where: Path) -> None:
    """Make the directory *where* hold exactly the files of *tree*.

    Unchanged files keep their times, files changed by hand are restored, untracked files
    stay.  After a killed call or with a damaged index, all files are compared by content
    and untracked files are removed.  The caller must lock *where*, ``<where>.index`` and
    ``<where>.busy``.

    :param tree: the id of a tree, or of a commit.
    :raises ObjectsLost: the repository lost the tree; its steps must be made again.
    :raises DiskFull: the disk is full; the next call starts over.
    """
    place = _BuildTree(base.git_dir, where)
    place.prepare()
    # The index is valid if the last call finished.
    if not place.busy.exists():
        try:
            place.switch(tree)
            return
        except CommandFailed:
            pass  # Probably a damaged index.  Otherwise recover() fails in the same way.
    place.recover(tree)


class _BuildTree:
    """A build directory, its index, and the file that marks an unfinished call."""

    def __init__(self, git_dir: Path, where: Path) -> None:
        self._git_dir = git_dir
        self._where = where
        self._index = where.with_name(f"{where.name}.index")
        self.busy = where.with_name(f"{where.name}.busy")

    def prepare(self) -> None:
        """Make the directory, or check that iommuq made it."""
        with os_errors_as(InfraError, self._where):
            if not (self._index.exists() or self.busy.exists()):
                self._where.mkdir(parents=True, exist_ok=True)
                if any(self._where.iterdir()):
                    raise UserError(f"{self._where}: not empty, and not made by iommuq")
            self._where.mkdir(exist_ok=True)
            # The caller holds the lock, so the process that left this is dead.
            self._index.with_name(f"{self._index.name}.lock").unlink(missing_ok=True)

    def switch(self, tree: str) -> None:
        """Go from the tree that the index holds to another."""
        self.busy.touch()
        # --reset also restores files that changed on disk.
        self._git("read-tree", "--reset", "-u", tree)
        self.busy.unlink()

    def recover(self, tree: str) -> None:
        """Go to a tree from an unknown state, by content."""
        self.busy.touch()
        self._index.unlink(missing_ok=True)
        self._git("read-tree", tree)
        # Fails if files differ; switch() rewrites those.
        self._git("update-index", "-q", "--refresh", check=False)
        self.switch(tree)
        self._git("clean", "-ffdxq")

    def _git(self, *words: str, check: bool = True) -> Completed:
        try:
            return git(
                *words,
                git_dir=self._git_dir,
                cwd=self._where,
                index=self._index,
                work_tree=self._where,
                check=check,
                timeout=_LIMIT,
                watched=True,
            )
        except CommandFailed as error:
            raise lost_or(error, self._git_dir, *words) from error


def apply_to_repo(base: Base, queue: Queue, into: Path, *, to: str | None = None) -> list[Step]:
    """Make a git repository with the queue applied, one commit a patch, on ``iommuq/<base>``.

    It does not depend on the cache.  The tag ``iommuq-base`` is the start of the branch.
    On an error everything is removed again.

    :param into: a directory that does not exist, or is empty.
    :param to: the step to stop after, as `find_step` understands it; all if None.
    :return: the steps, without overlay.
    :raises UserError: *into* is not empty, or there is no step *to*.
    :raises VerdictError: a patch does not apply.
    """
    into = into.absolute()
    there = into.exists()
    if there and (not into.is_dir() or any(into.iterdir())):
        raise UserError(f"{into}: not an empty directory", hint="give one with --into")
    steps = make_steps(base, queue, None, to=to)
    try:
        with os_errors_as(InfraError, into):
            join_repo(into, f"iommuq/{base.spec.name}", base, [], steps[-1].commit)
            _inside(into, "reset", "--quiet", "--hard")
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        if there:
            into.mkdir()
        raise
    return steps


def _link_or_copy(source: str, target: str) -> None:
    # An object of this name has the same content.
    if not Path(target).exists():
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)


def join_repo(
    into: Path, branch: str, base: Base, others: Sequence[Base], commit: str | None = None
) -> None:
    """Make a repository with the objects of bases, and an empty work tree.

    :param branch: its branch, which starts at the tag ``iommuq-base``.
    :param base: the base that it starts from.
    :param others: further bases whose objects are copied.
    :param commit: the tip of the branch; the base if None.
    :raises InfraError: the disk is full, or not writable.
    """
    git_dir = into / ".git"
    with os_errors_as(InfraError, into):
        into.mkdir(parents=True, exist_ok=True)
        _inside(into, "init", "--quiet", into)
        shallow: set[str] = set()
        for each in dict.fromkeys(one.git_dir for one in (base, *others)):
            # Like `git clone --local`; a fetch would pack the objects again.
            shutil.copytree(
                each / "objects",
                git_dir / "objects",
                copy_function=_link_or_copy,
                dirs_exist_ok=True,
            )
            with contextlib.suppress(FileNotFoundError):
                # The base may have been fetched without its history.
                shallow |= set((each / "shallow").read_text(encoding="ascii").splitlines(True))
        if shallow:
            (git_dir / "shallow").write_text("".join(sorted(shallow)), encoding="ascii")
    start = commit or base.commit
    refs = f"create refs/heads/{branch} {start}\ncreate refs/tags/iommuq-base {base.commit}\n"
    _inside(into, "update-ref", "--stdin", stdin=refs)
    _inside(into, "symbolic-ref", "HEAD", f"refs/heads/{branch}")


def _inside(into: Path, *words: str | Path, stdin: str | None = None) -> Completed:
    git_dir = into / ".git"
    return git(
        *words,
        git_dir=git_dir,
        cwd=into,
        index=git_dir / "index",
        stdin=stdin,
        timeout=_LIMIT,
        watched=True,
    )
