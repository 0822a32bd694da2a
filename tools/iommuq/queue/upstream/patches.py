# SPDX-License-Identifier: GPL-2.0-only
"""Find the patches of a queue in another tree, by content: a grade for each patch and hunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from iommuq.bases.sources import Base
from iommuq.queue.hunks import Hunk, hunks
from iommuq.queue.model import Patch, Queue
from iommuq.queue.steps import make_steps
from iommuq.queue.upstream.compare.judge import FileJudge, Grade, HunkVerdict
from iommuq.queue.upstream.compare.view import View, is_word
from iommuq.queue.upstream.targets import Target, TreeTarget
from iommuq.system.git.objects import Objects
from iommuq.system.temporary import temporary_folder

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
