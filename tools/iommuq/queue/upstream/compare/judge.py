# SPDX-License-Identifier: GPL-2.0-only
"""Judge whether a file of another tree has the changes of a patch.  In doubt it has not."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from iommuq.queue.hunks import Hunk
from iommuq.queue.upstream.compare.matching import FileMatch, Work, touches
from iommuq.queue.upstream.compare.view import Statement, squeeze

#: The least share of additions, and of removals, for a hunk to be present.
ENOUGH = 0.6
#: The least share for it to be partly present.
SOME = 0.3
# The largest share of a new function that may be missing.
_MISSING = 0.2
# The most lines around the matches in a difference.
_REACH = 12


class Grade(IntEnum):
    """How much of a change another tree has."""

    ABSENT = 0
    PARTLY = 1
    DRIFT = 2
    PRESENT = 3

    @property
    def words(self) -> str:
        """The grade in words."""
        return ("absent", "partly present", "present with drift", "present")[self]


@dataclass(frozen=True)
class HunkVerdict:
    """The result of one hunk.

    :ivar share: the share of it that is present, from 0 to 1.
    :ivar weight: of its statements; 0 if it changes only comments.
    :ivar path: the file where it was searched or found.
    :ivar lines: first and last line there; (0, 0) if nothing was found.
    :ivar difference: a diff from the result of the hunk to the target; empty if equal.
    :ivar moot: the target lacks the code that it changes.
    """

    hunk: Hunk
    grade: Grade
    share: float
    weight: float
    path: str
    lines: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()
    difference: tuple[str, ...] = ()
    moot: bool = False


class FileJudge(FileMatch):
    """Judges the hunks of one file; see `FileMatch` for its parameters."""

    def judge(self, hunks: Sequence[Hunk]) -> list[HunkVerdict]:
        """Judge all hunks of the file."""
        works = self.find(hunks)
        found = [self._verdict(work) for work in works]
        return [self._follow(work, each, found) for work, each in zip(works, found, strict=True)]

    def _follow(self, work: Work, own: HunkVerdict, found: Sequence[HunkVerdict]) -> HunkVerdict:
        """Give a hunk that adds an inlined function the best grade of the others."""
        lines = set(range(work.after_at, work.after_at + len(work.hunk.after)))
        scopes = {each.scope for each in self.lines[1].statements if touches(each, lines)}
        helpers = scopes & self.inlined.keys()
        if own.weight or not helpers:
            return own
        grade = max((each.grade for each in found if each.weight), default=Grade.ABSENT)
        notes = tuple(f"{name} is inlined in its callers" for name in sorted(helpers))
        return replace(own, grade=min(grade, Grade.DRIFT), notes=notes)

    def _verdict(self, work: Work) -> HunkVerdict:
        hunk, path = work.hunk, self.target.path
        weights = [
            sum(self.scale.statement(each.tokens) for each in side)
            for side in (work.added, work.removed)
        ]
        weight = sum(weights)
        exact = self._exact(hunk)
        if exact:
            return HunkVerdict(hunk, Grade.PRESENT, 1.0, weight, path, exact)
        if weight == 0:
            return self._judge_words(work)
        lines = self._span(work)
        earned = {id(ours): credit for ours, _, _, credit in work.matches}
        plus = sum(
            self.scale.statement(each.tokens) * earned.get(id(each), 0.0) for each in work.added
        )
        minus = sum(self.scale.statement(each.tokens) * self.gone(each) for each in work.removed)
        shares = [
            part / whole if whole else 1.0
            for part, whole in zip((plus, minus), weights, strict=True)
        ]
        share = (plus + minus) / weight
        notes = [*self._renames(work), *work.notes]
        grade = self._grade(work, shares, weights, notes)
        moot = grade is Grade.ABSENT and shares[1] > 0.9 and self._is_moot(work)
        if moot:
            notes.append("the code that it changes is removed")
        if grade is Grade.ABSENT:
            lines = (0, 0)
        difference = () if lines == (0, 0) else self._difference(work, lines)
        said = tuple(dict.fromkeys(notes))
        return HunkVerdict(hunk, grade, share, weight, path, lines, said, difference, moot)

    def _grade(
        self, work: Work, shares: Sequence[float], weights: Sequence[float], notes: list[str]
    ) -> Grade:
        plus, minus = shares
        if self._is_intact(work.hunk) and (not weights[0] or plus < 0.85):
            notes[:] = ["the code is unchanged from before the patch"]
            return Grade.ABSENT
        if not weights[0]:
            return self._grade_removal(work, minus, notes)
        if plus >= ENOUGH and minus >= ENOUGH and not work.contrary and self._is_sure(work):
            lacks = self._lacks(work)
            if not lacks:
                return Grade.DRIFT
            notes.append(f"missing: {' '.join(lacks[0].raw or lacks[0].tokens)}")
            return Grade.PARTLY
        if plus >= ENOUGH > minus:
            notes.append("the code that it removes is still there")
            return Grade.PARTLY
        # Only additions count: code may be removed for another reason.
        return Grade.PARTLY if plus >= SOME else Grade.ABSENT

    def _grade_removal(self, work: Work, minus: float, notes: list[str]) -> Grade:
        if minus < ENOUGH:
            notes.append("the code that it removes is still there")
            return Grade.PARTLY if minus >= SOME else Grade.ABSENT
        if not any(self.scale.is_telling(each.tokens) for each in work.removed):
            notes.append("too little code to judge")
            return Grade.PARTLY
        if not any(each.scope in self.target.scopes for each in work.removed + work.context):
            notes.append("the function is removed")
            return Grade.PARTLY
        around = [each for each in work.context if self.scale.statement(each.tokens) >= 1]
        left = [each for each in around if self.lines[2].totals[each.tokens]]
        if len(left) * 2 < len(around) or not around:
            notes.append("nothing to remove, but the code around it is removed too")
            return Grade.PARTLY
        other = self._instead(work)
        if other is not None:
            notes.append(f"line {other.first} replaces the code that it removes")
            return Grade.PARTLY
        notes.append("nothing to remove")
        return Grade.DRIFT

    def _instead(self, work: Work) -> Statement | None:
        """Return a new statement between the neighbours of one that a hunk removes."""
        target = self.lines[2].statements
        for each in work.removed:
            scope = self.before.in_scope(each.scope)
            at = next(number for number, other in enumerate(scope) if other is each)
            gone = [id(other) for other in work.removed]
            before = next((o for o in reversed(scope[:at]) if id(o) not in gone), None)
            after = next((o for o in scope[at:] if id(o) not in gone), None)
            keys = [(each.scope, end.tokens) for end in (before, after) if end is not None]
            ends = [[n for n, o in enumerate(target) if (o.scope, o.tokens) == key] for key in keys]
            if len(ends) == 2 and len(ends[0]) == len(ends[1]) == 1 and ends[1][0] - ends[0][0] > 1:
                return target[ends[0][0] + 1]
        return None

    def _is_moot(self, work: Work) -> bool:
        """Return whether the target has the function, but not the code around the change."""
        target = self.lines[2]
        scopes = {each.scope for each in work.removed}
        if not work.removed or not work.added or not scopes <= target.scopes:
            return False
        lines = [line for each in work.removed for line in (each.first, each.last)]
        near = [
            each
            for each in work.context
            if each.scope in scopes and min(lines) - 1 <= each.last and each.first <= max(lines) + 1
        ]
        return any(
            self.scale.statement(each.tokens) >= 2
            and target.counts[each.scope, each.tokens] < self.before.counts[each.scope, each.tokens]
            for each in near
        )

    def _lacks(self, work: Work) -> list[Statement]:
        """Return the unmatched additions, if in an old function or too many."""
        matched = {id(ours) for ours, _, _, _ in work.matches}
        lacks = [
            each
            for each in work.added
            if id(each) not in matched and self.scale.is_telling(each.tokens)
        ]
        old = [each for each in lacks if each.scope in self.before.scopes]
        weigh = self.scale.statement
        share = sum(weigh(each.tokens) for each in lacks)
        much = share > _MISSING * sum(weigh(each.tokens) for each in work.added)
        return old or (lacks if much else [])

    def _is_sure(self, work: Work) -> bool:
        """Return whether enough of the matches are more than similar."""
        sure = whole = 0.0
        for ours, _, likeness, _ in work.matches:
            weight = self.scale.statement(ours.tokens)
            whole += weight
            sure += weight * (likeness.how != "alike" or likeness.share > 0.85)
        return sure >= 0.4 * whole

    def _exact(self, hunk: Hunk) -> tuple[int, int] | None:
        """Return the lines where the target has the whole hunk, with its context."""
        before, after, target = self.lines
        if target.find(hunk.before) or before.find(hunk.after):
            return None
        places = target.find(hunk.after)
        if len(places) != len(after.find(hunk.after)):
            return None
        # Braces and blank lines are everywhere.
        telling = [line for line in map(squeeze, hunk.after) if len(line) > 3]
        if len(telling) < 2 or not places:
            return None
        return places[0], places[0] + len(hunk.after) - 1

    def _is_intact(self, hunk: Hunk) -> bool:
        """Return whether the target has the code from before the patch."""
        _, after, target = self.lines
        return bool(target.find(hunk.before)) and not after.find(hunk.before)

    def _judge_words(self, work: Work) -> HunkVerdict:
        """Judge a hunk that changes only comments and layout, by its lines."""
        hunk, target = work.hunk, self.lines[2]
        ours = [squeeze(hunk.after[number]) for number in hunk.added]
        ours = [line for line in ours if len(line) > 4]
        after = Counter(self.lines[1].lines)
        counts = Counter(target.lines)
        there = [line for line in ours if counts[line] >= after[line]]
        share = len(there) / len(ours) if ours else float(not self._is_intact(hunk))
        if not self._is_beside(hunk):
            share = min(share, ENOUGH - 0.01)
        grade = Grade.DRIFT if share >= ENOUGH else Grade.PARTLY if share >= SOME else Grade.ABSENT
        notes = ("only comments or blanks",)
        return HunkVerdict(hunk, grade, share, 0.0, target.path, (0, 0), notes)

    def _is_beside(self, hunk: Hunk) -> bool:
        """Return whether the additions have a neighbour of the hunk next to them."""
        if not hunk.added:
            return True
        first, last = hunk.added[0], hunk.added[-1]
        blocks = (hunk.after[max(0, first - 1) : last + 1], hunk.after[first : last + 2])
        return any(
            len(squeeze(edge)) > 3 and self.lines[2].find(block)
            for block, edge in zip(blocks, (blocks[0][0], blocks[1][-1]), strict=True)
        )

    def _span(self, work: Work) -> tuple[int, int]:
        """Return the lines of the target around most of the matches."""
        places = sorted((theirs.first, theirs.last) for _, theirs, _, _ in work.matches)
        if not places:
            scopes = {each.scope for each in (*work.removed, *work.added)} - {""}
            inside = [each for each in self.target.statements if each.scope in scopes]
            around = {each.tokens for each in work.context}
            places = [(each.first, each.last) for each in inside if each.tokens in around]
            return (min(places)[0], max(places)[1]) if places and not work.added else (0, 0)
        middle = places[len(places) // 2][0]
        reach = max(2 * len(work.hunk.after), 20)
        close = [place for place in places if abs(place[0] - middle) <= reach]
        return close[0][0], max(last for _, last in close)

    def _renames(self, work: Work) -> list[str]:
        notes = [
            f"{left} is named {right}"
            for _, _, likeness, _ in work.matches
            for left, right in likeness.names
        ]
        places = {(ours.scope, theirs.scope) for ours, theirs, _, _ in work.matches}
        notes += [
            f"{ours or 'file level'}: found in {theirs or 'file level'}"
            for ours, theirs in sorted(places)
            if ours != theirs
        ]
        called = {each.scope for each in work.added}
        notes += [
            f"{name} is inlined in its callers"
            for name, scopes in self.inlined.items()
            if called & scopes
        ]
        return notes

    def _difference(self, work: Work, lines: tuple[int, int]) -> tuple[str, ...]:
        """Return a diff from the result of the hunk to the target, without its header."""
        hunk = work.hunk
        ours = [line.decode("utf-8", "backslashreplace") for line in hunk.after]
        first, last = self._widen(hunk, lines)
        raw = self.lines[2].data.split(b"\n")[first - 1 : last]
        theirs = [line.decode("utf-8", "backslashreplace") for line in raw]
        return tuple(list(difflib.unified_diff(ours, theirs, lineterm="", n=1))[2:])

    def _widen(self, hunk: Hunk, lines: tuple[int, int]) -> tuple[int, int]:
        """Return lines of the target that begin and end like the hunk, if near enough."""
        target = self.lines[2].lines
        added = set(hunk.added)
        context = [
            squeeze(line)
            for number, line in enumerate(hunk.after)
            if number not in added and len(line.strip()) > 1
        ]
        first, last = lines
        for at in range(first - 1, max(0, first - _REACH), -1):
            if target[at - 1] in context[:2]:
                first = at
                break
        for at in range(last + 1, min(len(target), last + _REACH) + 1):
            if target[at - 1] in context[-2:]:
                last = at
                break
        return first, last
