# SPDX-License-Identifier: GPL-2.0-only
"""What of a queue is in another tree already: a graded verdict per patch and hunk.

There is no history to ask, so content is compared: what each patch does to the
queue's own tree, with what sets the other tree apart from it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from iommuq.bases.sources import Base
from iommuq.queue.hunks import Hunk, hunks
from iommuq.queue.model import Patch, Queue
from iommuq.queue.steps import make_steps
from iommuq.queue.upstream.compare.judge import FileJudge, Grade, HunkVerdict
from iommuq.queue.upstream.compare.view import View, is_word
from iommuq.queue.upstream.targets import Target, TreeTarget
from iommuq.system.git.objects import Store

# So much of a patch may be in hunks that are there in part only, if so much of it all is.
_LITTLE = 0.3
_MOSTLY = 0.7
# So much of a patch must be there for the rest to be told without what is moot.
_SETTLED = 0.6
# And so much of a hunk if it is in another file than the patch says.
_ELSEWHERE = 0.8
# Names that only this patch brings and that another tree has: worth a word.
_SPIRIT = 0.5
# Characters; shorter names, as dev_warn, may be there for other reasons.
_TELLING = 10


@dataclass(frozen=True)
class PatchVerdict:
    """What was found of one patch.

    :ivar notes: what is worth knowing, in words.
    """

    patch: Patch
    grade: Grade
    hunks: tuple[HunkVerdict, ...]
    notes: tuple[str, ...] = ()


def judge_queue(
    base: Base, queue: Queue, target: Target, patches: Sequence[Patch] | None = None
) -> list[PatchVerdict]:
    """Judge the patches of a queue.

    :param target: where to look for them.
    :param patches: some of them; None for all that are sent.
    :raises VerdictError: the queue does not apply to its own base.
    """
    steps = make_steps(base, queue, None)
    wanted = queue.sent if patches is None else patches
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="iommuq-upstream-") as folder:
        store = Store(base.git_dir, Path(folder))
        for before, after in pairwise(steps):
            patch = after.patch
            if patch is not None and any(patch.name == each.name for each in wanted):
                trees = [TreeTarget(store, step.tree) for step in (before, after)]
                verdicts.append(judge_patch(patch, trees[0], trees[1], target))
    return verdicts


def judge_patch(patch: Patch, before: Target, after: Target, target: Target) -> PatchVerdict:
    """Judge a patch.

    :param before: the tree that it is made for.
    :param after: that tree with the patch.
    :param target: where to look for it.
    """
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
    # A declaration says what is meant, but does nothing.
    declared = bool(parts) and all(each.hunk.path.endswith(".h") for each in parts)
    there = {name for name in there if len(name) >= _TELLING}
    many = len(there) >= _SPIRIT * len(brought)
    if grade < Grade.DRIFT and there and (declared or many):
        some = ", ".join(sorted(there)[:5])
        notes.append(f"in spirit only: {some} {'is' if len(there) == 1 else 'are'} there")
    return PatchVerdict(patch, grade, tuple(found), tuple(notes))


def _judge_file(
    before: View, after: View, group: Sequence[Hunk], tree: Target, target: Target
) -> tuple[list[HunkVerdict], View]:
    """Judge the hunks of a file in the file of that name, or in the one that it may be now."""
    data = target.read(before.path)
    here = View(before.path, data or b"")
    verdicts = FileJudge(before, after, here).judge(group)
    if data is None:
        missing = f"there is no {before.path}"
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
    """Tell whether a hunk that was found in another file is more than a likeness."""
    lines = [verdict.hunk.after[number] for number in verdict.hunk.added]
    if all(line.strip() in (b"", b"*/") or line.startswith(b"#include") for line in lines):
        return False  # Many files include the same header.
    added = b"\n".join(lines)
    brought = _names(View(view.path, added)) & names
    there = {name for name in brought if name in view.tokens}
    share = _ELSEWHERE if brought and 2 * len(there) >= len(brought) else 0.97
    return verdict.grade >= Grade.DRIFT and verdict.share >= share


def _grade(verdicts: Sequence[HunkVerdict]) -> Grade:
    """Return the grade of hunks taken together: present only if all that count are."""
    whole = sum(verdict.weight for verdict in verdicts)
    if not whole:
        return min((verdict.grade for verdict in verdicts), default=Grade.ABSENT)
    counted = [verdict for verdict in verdicts if verdict.weight]
    settled = [verdict for verdict in counted if not verdict.moot]
    sure = sum(verdict.weight for verdict in settled if verdict.grade >= Grade.DRIFT)
    if len(settled) < len(counted) and sure >= _SETTLED * whole:
        # The rest can be told without what cannot be; it is less than what was meant, though.
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
