# SPDX-License-Identifier: GPL-2.0-only
"""Find the patches of a queue in another tree, by content: a grade for each patch and hunk.

The tree is a commit, or a directory with unpacked sources.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Protocol

from iommuq.bases.sources import Base
from iommuq.queue.hunks import Hunk, hunks
from iommuq.queue.model import Patch, Queue
from iommuq.queue.steps import make_steps
from iommuq.queue.upstream.compare.judge import FileJudge, Grade, HunkVerdict
from iommuq.queue.upstream.compare.view import View, is_word
from iommuq.system.errors import UserError
from iommuq.system.git.command import NO_REPOSITORY, git, is_safe_path
from iommuq.system.git.objects import Objects, open_repository
from iommuq.system.progress import one_line
from iommuq.system.temporary import temporary_folder

#: The most files to search for a change that is not in its own file.
_MOST = 4
#: The most names to search for.
_MOST_NAMES = 12
# A patch counts as present if partly present hunks are at most _LITTLE of its weight, and
# _MOSTLY of it was found.
_LITTLE = 0.3
_MOSTLY = 0.7
# The least share of a patch that must be present for moot hunks to be ignored.
_SETTLED = 0.6
# The least share of a hunk to count in another file.
_ELSEWHERE = 0.8
# The least share of a patch's new names that is worth a note.
_SPIRIT = 0.5
# The least length of a name for that note: shorter ones, as dev_warn, are common.
_TELLING = 10
#: Lines of a difference that are shown.
_SHOWN = 24


class Target(Protocol):
    """A tree that files can be read from."""

    def read(self, path: str) -> bytes | None:
        """Return the content of a file, None if there is no such file."""

    def candidates(self, path: str, names: Collection[str], *, missing: bool) -> list[str]:
        """Return files that may have a change expected in *path*.

        :param names: the names that the change adds.
        :param missing: *path* does not exist, so it may have moved.
        """


class TreeTarget:
    """A tree in a repository; *tree* is the id of a tree or a commit."""

    def __init__(self, store: Objects, tree: str) -> None:
        self._store = store
        self._tree = tree
        self._files: dict[str, bytes | None] = {}

    @cached_property
    def _paths(self) -> list[str]:
        words = ("ls-tree", "-r", "-z", "--name-only", "--full-tree", self._tree)
        return self._store.git(*words).output.split("\0")

    def read(self, path: str) -> bytes | None:
        """Return the content of a file, None if there is no such file."""
        if path not in self._files:
            self._files[path] = self._store.read_file(self._tree, path)
        return self._files[path]

    def candidates(self, path: str, names: Collection[str], *, missing: bool) -> list[str]:
        """Return files that may hold what another file was expected to."""
        words = ("grep", "-lw", "-F", *_patterns(names), self._tree, "--", _around(path))
        listing = self._store.git(*words, check=False).output if _patterns(names) else ""
        prefix = f"{self._tree}:"
        hits = [line.removeprefix(prefix) for line in listing.splitlines()]
        name = f"/{PurePosixPath(path).name}"
        same_name = [other for other in self._paths if other.endswith(name)] if missing else []
        return _rank(path, hits, same_name)


class FolderTarget:
    """A directory with unpacked sources.

    :raises UserError: it is not a kernel tree.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        if not any((folder / name).exists() for name in ("Makefile", "drivers", "include")):
            raise UserError(f"{folder}: not a kernel tree", hint="no Makefile and no drivers/")

    def read(self, path: str) -> bytes | None:
        """Return the content of a file, None if there is no such file."""
        if not is_safe_path(path):
            return None
        try:
            return (self._folder / path).read_bytes()
        except OSError:
            return None

    def candidates(self, path: str, names: Collection[str], *, missing: bool) -> list[str]:
        """Return files that may hold what another file was expected to."""
        near: list[str] = []
        if missing:
            found = (self._folder / _around(path)).rglob(PurePosixPath(path).name)
            near = [str(each.relative_to(self._folder)) for each in found]
        hits = []
        if _patterns(names):
            done = git(
                *("grep", "--no-index", "-lw", "-F", *_patterns(names), "--", _around(path)),
                git_dir=NO_REPOSITORY,
                cwd=self._folder,
                check=False,
            )
            hits = done.output.splitlines()
        return _rank(path, hits, near)


def find_commit(repository: Path, ref: str) -> tuple[Path, str]:
    """Return the git directory of a repository, and the id of a commit in it.

    :param repository: its work tree, or a bare repository.
    :raises UserError: it is not a repository, or has no such commit.
    """
    if not repository.is_dir():
        raise UserError(f"{repository}: no such directory")
    root = repository.absolute()
    git_dir = root / ".git" if (root / ".git").exists() else root
    if git_dir.is_file():  # a linked work tree
        pointer = git_dir.read_text(encoding="utf-8", errors="replace")
        git_dir = root / pointer.removeprefix("gitdir:").strip()
    if not (git_dir / "HEAD").exists():
        raise UserError(f"{repository} is not a git repository")
    commit = open_repository(git_dir).find(ref)
    if not commit:
        raise UserError(f"{repository} has no {ref!r}")
    return git_dir, commit


def _patterns(names: Collection[str]) -> list[str]:
    # Long names are rarely the same by chance.
    chosen = sorted((name for name in names if re.fullmatch(r"\w{5,}", name)), key=len)
    return [word for name in chosen[-_MOST_NAMES:] for word in ("-e", name)]


def _around(path: str) -> str:
    """Return the directory to search for a change that *path* lacks."""
    parent = PurePosixPath(path).parent
    return str(parent.parent) if len(parent.parts) > 2 else str(parent)


def _is_source(name: str) -> bool:
    return name.endswith((".c", ".h", ".S", ".rs")) or name.startswith(("Kconfig", "Makefile"))


def _rank(path: str, hits: Collection[str], namesakes: Collection[str]) -> list[str]:
    """Return the most likely files: the sources nearest to *path*."""
    ours = PurePosixPath(path).parts

    def distance(other: str) -> tuple[bool, int, str]:
        parts = PurePosixPath(other).parts
        common = sum(1 for left, right in zip(ours, parts, strict=False) if left == right)
        return (
            PurePosixPath(other).suffix != PurePosixPath(path).suffix,
            len(ours) + len(parts) - 2 * common,
            other,
        )

    found = {other for other in (*hits, *namesakes) if other != path and _is_source(other)}
    return sorted(found, key=distance)[:_MOST]


@dataclass(frozen=True)
class PatchVerdict:
    """The result of one patch."""

    patch: Patch
    grade: Grade
    hunks: tuple[HunkVerdict, ...]
    notes: tuple[str, ...] = ()


def judge_queue(
    base: Base, queue: Queue, target: Target, patches: Sequence[Patch] | None = None
) -> list[PatchVerdict]:
    """Look for the patches of a queue in *target*.

    :param patches: the patches to look for; None for all that are sent.
    :raises VerdictError: the queue does not apply to its own base.
    """
    steps = make_steps(base, queue, None)
    wanted = queue.sent if patches is None else patches
    verdicts = []
    with temporary_folder("upstream") as folder:
        store = Objects(base.git_dir, folder)
        for before, after in pairwise(steps):
            patch = after.patch
            if patch is not None and any(patch.name == each.name for each in wanted):
                trees = [TreeTarget(store, step.tree) for step in (before, after)]
                verdicts.append(judge_patch(patch, trees[0], trees[1], target))
    return verdicts


def judge_patch(patch: Patch, before: Target, after: Target, target: Target) -> PatchVerdict:
    """Look in *target* for a patch; *before* and *after* are its own trees."""
    by_path: dict[str, list[Hunk]] = {}
    for hunk in hunks(patch.diff):
        by_path.setdefault(hunk.path, []).append(hunk)
    found: list[HunkVerdict] = []
    brought: set[str] = set()
    there: set[str] = set()
    for path, group in by_path.items():
        views = [View(path, tree.read(path) or b"") for tree in (before, after)]
        names = _names(views[1]) - _names(views[0])
        verdicts, looked_in = _judge_file(views[0], views[1], group, before, target)
        found += verdicts
        brought |= names
        there |= {name for name in names if name in looked_in.tokens}
    grade = _grade(found)
    notes = []
    parts = [each for each in found if each.weight and each.grade >= Grade.DRIFT]
    # Declarations alone have no effect.
    declared = bool(parts) and all(each.hunk.path.endswith(".h") for each in parts)
    there = {name for name in there if len(name) >= _TELLING}
    many = len(there) >= _SPIRIT * len(brought)
    if grade < Grade.DRIFT and there and (declared or many):
        some = ", ".join(sorted(there)[:5])
        notes.append(f"another form: the tree has {some}")
    return PatchVerdict(patch, grade, tuple(found), tuple(notes))


def _judge_file(
    before: View, after: View, group: Sequence[Hunk], tree: Target, target: Target
) -> tuple[list[HunkVerdict], View]:
    """Look for the hunks of a file in the file of that name, then in candidates."""
    data = target.read(before.path)
    here = View(before.path, data or b"")
    verdicts = FileJudge(before, after, here).judge(group)
    if data is None:
        missing = f"no file {before.path}"
        verdicts = [
            HunkVerdict(v.hunk, Grade.ABSENT, 0.0, v.weight or 1.0, before.path, notes=(missing,))
            for v in verdicts
        ]
    if _grade(verdicts) >= Grade.DRIFT:
        return verdicts, here
    names = _names(after) - _names(before)
    for path in target.candidates(before.path, names, missing=data is None):
        view, origin = (View(path, each.read(path) or b"") for each in (target, tree))
        others = FileJudge(before, after, view, origin).judge(group)
        merged = [
            other if other.grade > own.grade and _is_sure(other, names, view) else own
            for own, other in zip(verdicts, others, strict=True)
        ]
        if merged != verdicts:
            verdicts, here = merged, view if data is None else here
    return verdicts, here


def _is_sure(verdict: HunkVerdict, names: set[str], view: View) -> bool:
    """Return whether a hunk found in another file is more than similar code."""
    lines = [verdict.hunk.after[number] for number in verdict.hunk.added]
    if all(line.strip() in (b"", b"*/") or line.startswith(b"#include") for line in lines):
        return False  # Many files include the same header.
    added = b"\n".join(lines)
    brought = _names(View(view.path, added)) & names
    there = {name for name in brought if name in view.tokens}
    share = _ELSEWHERE if brought and 2 * len(there) >= len(brought) else 0.97
    return verdict.grade >= Grade.DRIFT and verdict.share >= share


def _grade(verdicts: Sequence[HunkVerdict]) -> Grade:
    """Return the grade of hunks together: present only if all with a weight are."""
    whole = sum(verdict.weight for verdict in verdicts)
    if not whole:
        return min((verdict.grade for verdict in verdicts), default=Grade.ABSENT)
    counted = [verdict for verdict in verdicts if verdict.weight]
    settled = [verdict for verdict in counted if not verdict.moot]
    sure = sum(verdict.weight for verdict in settled if verdict.grade >= Grade.DRIFT)
    if len(settled) < len(counted) and sure >= _SETTLED * whole:
        # Without the moot hunks it is at best present with drift.
        return min(_grade(settled), Grade.DRIFT)
    lowest = min(verdict.grade for verdict in counted)
    if lowest >= Grade.DRIFT:
        return min(verdict.grade for verdict in verdicts if verdict.grade >= Grade.DRIFT)
    share = sum(verdict.weight * verdict.share for verdict in counted) / whole
    little = sum(verdict.weight for verdict in counted if verdict.grade is Grade.PARTLY) / whole
    if lowest is Grade.PARTLY and little <= _LITTLE and share >= _MOSTLY:
        return Grade.DRIFT
    if any(verdict.grade >= Grade.DRIFT for verdict in counted):
        return Grade.PARTLY
    partly = any(verdict.grade is Grade.PARTLY for verdict in counted)
    return Grade.PARTLY if partly and share >= 0.2 else Grade.ABSENT


def _names(view: View) -> set[str]:
    return {token for token in view.tokens if is_word(token)}


def as_text(verdicts: Sequence[PatchVerdict], title: str) -> str:
    """Return the verdicts as text; *title* names the other tree."""
    lines = [f"Against {one_line(title)}:"]
    for verdict in verdicts:
        label = f"{verdict.patch.label} {one_line(verdict.patch.subject)}"
        lines.append(f"{verdict.grade.words:<19} {label}")
        lines += [f"    {one_line(note)}" for note in verdict.notes]
        for hunk in verdict.hunks:
            lines += _hunk(hunk)
    return "\n".join(lines)


def _hunk(verdict: HunkVerdict) -> Iterator[str]:
    first, last = verdict.lines
    found = f" -> {verdict.path}:{first}-{last}" if first else ""
    where = f"{verdict.hunk.path}, hunk {verdict.hunk.number}"
    yield f"    {verdict.grade.words:<19} {verdict.share:4.0%}  {one_line(where + found)}"
    for note in verdict.notes:
        yield f"        {one_line(note)}"
    if verdict.grade in (Grade.PARTLY, Grade.DRIFT):
        for line in verdict.difference[:_SHOWN]:
            yield "        | " + line.expandtabs(8).translate(_CONTROL).rstrip()
        if len(verdict.difference) > _SHOWN:
            yield f"        | … {len(verdict.difference) - _SHOWN} more lines"


_CONTROL = dict.fromkeys((*range(32), *range(127, 160)), " ")


def as_json(verdicts: Sequence[PatchVerdict], title: str) -> str:
    """Return the verdicts as JSON."""
    patches = [
        {
            "patch": verdict.patch.name,
            "subject": verdict.patch.subject,
            "verdict": verdict.grade.words,
            "notes": list(verdict.notes),
            "hunks": [
                {
                    "file": hunk.hunk.path,
                    "number": hunk.hunk.number,
                    "header": hunk.hunk.header,
                    "verdict": hunk.grade.words,
                    "share": round(hunk.share, 3),
                    "found": None
                    if not hunk.lines[0]
                    else {"file": hunk.path, "first": hunk.lines[0], "last": hunk.lines[1]},
                    "notes": list(hunk.notes),
                    "difference": list(hunk.difference),
                }
                for hunk in verdict.hunks
            ],
        }
        for verdict in verdicts
    ]
    return json.dumps({"against": title, "patches": patches}, indent=2)
