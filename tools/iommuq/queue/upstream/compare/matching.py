# SPDX-License-Identifier: GPL-2.0-only
"""Match the statements that a patch adds with those in a file of another tree.

Statements that both trees have without the patch, such as error checks, are no evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from iommuq.queue.hunks import Hunk
from iommuq.queue.upstream.compare.view import Scale, Statement, View, is_word, words, write_out

_COMPARISONS = {"==", "!=", "<", ">", "<=", ">=", "!"}
_COMMUTES = {"&&", "||", "==", "!=", "+", "|"}
_INCLUDE = ("#", "include")

Tokens = tuple[str, ...]
#: The least credit of a match of similar statements.
_LIKE = 0.5
# The most lines between a match of a common statement and a match of a telling one.
_NEAR = 8
# The factor of a match in another function that both trees have.
_ELSEWHERE = 0.4
# The least number of statements that count as a moved block.
_BLOCK = 3


@dataclass(frozen=True)
class Likeness:
    """The result of a comparison.

    :ivar share: 1 for the same, 0 for nothing in common.
    :ivar how: ``same``, ``renamed``, ``words``, ``order``, ``contrary`` or ``alike``.
    :ivar names: pairs of a name and its new name.
    """

    share: float
    how: str
    names: tuple[tuple[str, str], ...] = ()


#: The same tokens in the same order.
SAME = Likeness(1.0, "same")


class Names:
    """The names of a patch that have another name in another tree.

    :param free: returns whether a name of the patch may have a given other name there.
    """

    def __init__(self, scale: Scale, free: Callable[[str, str], bool]) -> None:
        self._scale = scale
        self._free = free
        self._known: dict[str, str] = {}

    def learn(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Store pairs of names, unless one of the two is in a known pair."""
        for ours, theirs in pairs:
            if ours not in self._known and theirs not in self._known.values():
                self._known[ours] = theirs

    def get(self, ours: str) -> str:
        """Return the name in the other tree."""
        return self._known.get(ours, ours)

    def may(self, ours: str, theirs: str) -> bool:
        """Return whether a name may be *theirs* in the other tree."""
        if ours in self._known or theirs in self._known.values():
            return self._known.get(ours) == theirs
        return self._free(ours, theirs)

    def kinship(self, ours: str, theirs: str) -> float:
        """Return the share of rare parts that two names have in common, from 0 to 1."""
        left, right = self._scale.rare_parts(ours), self._scale.rare_parts(theirs)
        return len(left & right) / len(left | right) if left & right else 0.0


def compare(ours: Tokens, theirs: Tokens, scale: Scale, names: Names) -> Likeness:
    """Compare a statement of a patch with one of another tree.

    Two that differ only in an operator or a number are contrary, not similar.
    """
    if ours == theirs:
        return SAME
    if _INCLUDE in (ours[:2], theirs[:2]):
        return Likeness(0.0, "contrary")  # Headers of similar names have nothing in common.
    called = tuple(map(names.get, ours))
    if called == theirs:
        return Likeness(0.97, "renamed")
    ours = called
    if len(ours) == len(theirs):
        renamed = _renamed(ours, theirs, scale, names)
        if renamed is not None:
            return renamed
    own, other = Counter(ours), Counter(theirs)
    code = [_only(each, lambda token: not token.startswith('"')) for each in (own, other)]
    if code[0] == code[1] and own != other:
        return Likeness(0.6 + 0.35 * _overlap(own, other, scale, names), "words")
    if own == other:
        free = any(token in _COMMUTES for token in ours)
        return Likeness(0.85, "order") if free else Likeness(0.2, "contrary")
    words = [_only(each, is_word) for each in code]
    if words[0] == words[1]:
        return Likeness(0.1, "contrary")
    share = _overlap(own, other, scale, names)
    kinds = [_only(each, _COMPARISONS.__contains__) for each in code]
    if kinds[0].total() == kinds[1].total() and kinds[0] != kinds[1] and share > 0.5:
        return Likeness(0.1, "contrary")
    if share > 0.75 and kinds[0]["!"] != kinds[1]["!"]:
        return Likeness(0.1, "contrary")
    return Likeness(0.9 * share, "alike")


def _only(counts: Counter[str], wanted: Callable[[str], bool]) -> Counter[str]:
    return Counter({token: count for token, count in counts.items() if wanted(token)})


def _renamed(ours: Tokens, theirs: Tokens, scale: Scale, names: Names) -> Likeness | None:
    """Return the likeness of statements that differ only in names, each renamed to one other."""
    found: dict[str, str] = {}
    kept = whole = 0.0
    for left, right in zip(ours, theirs, strict=True):
        weight = scale.token(left)
        whole += weight
        if left == right:
            kept += weight
        elif not (is_word(left) and is_word(right)) or found.setdefault(left, right) != right:
            return None
        else:
            kept += weight * names.kinship(left, right)
    unique = len(set(found.values())) == len(found)
    if not unique or kept < 0.5 * whole or not all(names.may(*pair) for pair in found.items()):
        return None
    return Likeness(0.95, "renamed", tuple(found.items()))


def _overlap(own: Counter[str], other: Counter[str], scale: Scale, names: Names) -> float:
    """Return the weighted share of tokens that two statements have in common."""

    def weigh(counts: Counter[str]) -> float:
        return sum(scale.token(token) * count for token, count in counts.items())

    common = own & other
    whole = 0.65 * weigh(own) + 0.35 * weigh(other)
    if not whole:
        return 0.0
    left, right = own - common, other - common
    akin = sum(
        max((names.kinship(ours, theirs) for theirs in right if is_word(theirs)), default=0.0)
        * scale.token(ours)
        for ours in left
        # New names may be similar.
        if is_word(ours) and scale.is_new(ours)
    )
    return (weigh(common) + akin) / whole


@dataclass
class Work:
    """A hunk, and the matches of its statements.

    :ivar added: the statements that it adds, without those that it only moves.
    :ivar removed: the statements that it removes, without those that it only moves.
    :ivar after_at: its first line in the file after the patch, from 1.
    :ivar insert_at: the place of its first addition in the file before, between two lines.
    :ivar matches: added statement, statement of the target, likeness, credit.
    :ivar contrary: the target has the opposite of a statement that it adds.
    """

    hunk: Hunk
    added: list[Statement]
    removed: list[Statement]
    context: list[Statement]
    after_at: int
    insert_at: float
    matches: list[tuple[Statement, Statement, Likeness, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    contrary: bool = False


class FileMatch:
    """Finds the hunks of one file.

    :param before: the file before the patch; empty if the patch makes it.
    :param after: the file after the patch.
    :param target: the file to look in.
    :param origin: *target* in the tree before the patch, if its path is not that of *before*.
    """

    def __init__(self, before: View, after: View, target: View, origin: View | None = None) -> None:
        self.scale = Scale(before)
        self.lines = (before, after, target)
        self._after, self.inlined = write_out(after, before.scopes | target.tokens.keys())
        self.target, _ = write_out(target, before.scopes | after.tokens.keys())
        self.before = before
        self._old = before.counts + origin.counts if origin else before.counts
        self._old_scopes = before.scopes | (origin.scopes if origin else frozenset())
        self._names = Names(self.scale, self._may_rename)
        self._used: set[int] = set()
        self._novel = self._find_novel()
        # Indices that avoid comparing all with all.
        self._by_word: dict[str, list[int]] = {}
        self._by_text: dict[tuple[str, ...], list[int]] = {}
        self._by_names: dict[tuple[str, ...], list[int]] = {}
        for number in self._novel:
            tokens = self.target.statements[number].tokens
            self._by_text.setdefault(tokens, []).append(number)
            self._by_names.setdefault(_names(tokens), []).append(number)
            for word in words(tokens):
                self._by_word.setdefault(word, []).append(number)
        self._became: dict[str, frozenset[str]] = {}
        self._ours_free = self._old_scopes | self.target.scopes
        self._theirs_free = self._old_scopes | self._after.scopes

    def _find_novel(self) -> list[int]:
        """Return the indices of the target's statements that the tree before lacks."""
        left = Counter(self._old)
        novel = []
        for number, each in enumerate(self.target.statements):
            if left[each.scope, each.tokens] > 0:
                left[each.scope, each.tokens] -= 1
            else:
                novel.append(number)
        return novel

    def find(self, hunks: Sequence[Hunk]) -> list[Work]:
        """Look for all hunks of the file; a statement of the target matches at most once."""
        works = [self._prepare(hunk) for hunk in hunks]
        self._cancel(works)
        everything = [(work, each) for work in works for each in work.added]
        everything.sort(key=lambda pair: -self.scale.statement(pair[1].tokens))
        # Twice, as the first pass learns names.
        for telling in (True, True, False):
            for work, each in everything:
                known = any(ours is each for ours, _, _, _ in work.matches)
                if not known and self.scale.is_telling(each.tokens) == telling:
                    self._match(work, each, telling)
        for work in works:
            self._credit_moved(work)
        return works

    def _credit_moved(self, work: Work) -> None:
        """Raise the credit of a block that moved within its function."""
        moved = [
            number
            for number, (ours, theirs, _, _) in enumerate(work.matches)
            if ours.scope == theirs.scope
            and self.scale.is_telling(ours.tokens)
            and not self._is_in_order(work, theirs)
        ]
        for number in moved if len(moved) >= _BLOCK else ():
            ours, theirs, likeness, credit = work.matches[number]
            work.matches[number] = (ours, theirs, likeness, max(credit, 0.9 * likeness.share))

    def _prepare(self, hunk: Hunk) -> Work:
        before, after, _ = self.lines
        before_at = place(before, hunk.before, hunk.start)
        after_at = place(after, hunk.after, hunk.start)
        gone = {before_at + number for number in hunk.removed}
        come = {after_at + number for number in hunk.added}
        span = range(before_at, before_at + len(hunk.before))
        return Work(
            hunk,
            added=[each for each in self._after.statements if touches(each, come)],
            removed=[each for each in self.before.statements if touches(each, gone)],
            context=[
                each
                for each in self.before.statements
                if each.first in span and each.last in span and not touches(each, gone)
            ],
            after_at=after_at,
            insert_at=before_at + min(hunk.added, default=0) - 0.5,
        )

    @staticmethod
    def _cancel(works: Sequence[Work]) -> None:
        """Drop statements that are both removed and added in one function: they moved."""
        for work in works:
            for each in list(work.removed):
                key = (each.scope, each.tokens)
                for other in works:
                    twin = next((s for s in other.added if (s.scope, s.tokens) == key), None)
                    if twin is not None:
                        other.added.remove(twin)
                        work.removed.remove(each)
                        break

    def _match(self, work: Work, ours: Statement, telling: bool) -> None:
        """Find the best match in the target for a statement that the patch adds."""
        best: tuple[float, int, Likeness, str] | None = None
        contrary: Statement | None = None
        for number in self._candidates(ours.tokens):
            theirs = self.target.statements[number]
            factor = self._factor(work, ours, theirs, telling)
            if factor == 0:
                continue
            likeness = compare(ours.tokens, theirs.tokens, self.scale, self._names)
            if likeness.how == "contrary" and factor == 1.0:
                contrary = theirs
            if factor == 1.0 and not self._is_in_order(work, theirs):
                factor = 0.85 if likeness.how == "alike" else 0.55
            credit = likeness.share * factor
            if credit > (best[0] if best else 0.0):
                best = credit, number, likeness, theirs.scope
        if contrary is not None and not (best and best[0] > 0.9 and best[3] == ours.scope):
            work.contrary = True
            work.notes.append(f"line {contrary.first} contradicts it")
        if best is None:
            return
        credit, number, likeness, _ = best
        if credit < (_LIKE if likeness.how == "alike" else _ELSEWHERE * 0.9):
            return
        self._used.add(number)
        self._names.learn(likeness.names)
        theirs = self.target.statements[number]
        if telling and likeness.how in ("same", "renamed") and self._is_new(ours, theirs):
            self._names.learn([(ours.scope, theirs.scope)])
        work.matches.append((ours, theirs, likeness, credit))

    def _is_in_order(self, work: Work, theirs: Statement) -> bool:
        """Return whether a statement is between the context of the hunk, by unique statements."""
        changed: list[float] = [at for each in work.removed for at in (each.first, each.last)]
        if not changed:
            changed = [work.insert_at]
        for each in work.context:
            key = (each.scope, each.tokens)
            counts = (self.before.counts[key], self.target.counts[key])
            if each.scope != theirs.scope or counts != (1, 1):
                continue
            there = next(s for s in self.target.in_scope(each.scope) if s.tokens == each.tokens)
            if each.last < min(changed) and there.first > theirs.first:
                return False
            if each.first > max(changed) and there.first < theirs.first:
                return False
        return True

    def _candidates(self, tokens: tuple[str, ...]) -> list[int]:
        """Return the indices of the statements to compare with."""
        called = tuple(map(self._names.get, tokens))
        found = {*self._by_text.get(tokens, ()), *self._by_text.get(called, ())}
        # For `if (ret)`, which has only common words, and its contrary `if (!ret)`.
        found.update(self._by_names.get(_names(tokens), ()))
        for word in words(tokens) | words(called):
            found.update(self._by_word.get(word, ()))
        return sorted(found - self._used)

    def _is_new(self, ours: Statement, theirs: Statement) -> bool:
        """Return whether both statements are in new functions, which may be the same one."""
        return ours.scope not in self._ours_free and theirs.scope not in self._theirs_free

    def _factor(self, work: Work, ours: Statement, theirs: Statement, telling: bool) -> float:
        """Return the factor of a match for its place."""
        if self._names.get(ours.scope) == theirs.scope:
            return 1.0
        near = any(
            other.scope == theirs.scope and abs(other.first - theirs.first) <= _NEAR
            for _, other, _, _ in work.matches
        )
        if not telling and not near:
            return 0.0
        if ours.scope in self.before.scopes and ours.scope not in self.target.scopes:
            return 0.95 if theirs.scope in self._successors(ours.scope) else _ELSEWHERE
        if theirs.scope in self._old_scopes:
            # A function that the patch does not change, unless it adds a call to a new one.
            brought = ours.scope not in self.before.scopes
            called = (theirs.scope, ours.scope) in self._after.calls
            return 0.95 if brought and called and theirs.scope else _ELSEWHERE
        if self._is_new(ours, theirs) or (ours.scope, theirs.scope) in self.target.calls:
            return 0.95
        return _ELSEWHERE

    def _successors(self, scope: str) -> frozenset[str]:
        """Return the new functions with much of the text of a removed one."""
        if scope not in self._became:
            text = Counter(each.tokens for each in self.before.in_scope(scope))
            found: dict[str, float] = {}
            for number in self._novel:
                each = self.target.statements[number]
                if text[each.tokens] and each.scope and each.scope not in self._old_scopes:
                    weight = self.scale.statement(each.tokens)
                    found[each.scope] = found.get(each.scope, 0.0) + weight
            enough = 0.3 * sum(self.scale.statement(t) * n for t, n in text.items())
            best = sorted((name for name in found if found[name] >= enough), key=found.__getitem__)
            self._became[scope] = frozenset(best[-2:])
        return self._became[scope]

    def _may_rename(self, ours: str, theirs: str) -> bool:
        """Return whether the target may have another name: neither file has both names."""
        return self.target.tokens[ours] == 0 and self.lines[1].tokens[theirs] == 0

    def gone(self, each: Statement) -> float:
        """Return the probability that the target lacks a statement that the patch removes."""
        after, target = self.lines[1], self.lines[2]
        scopes = frozenset({each.scope})
        if each.scope not in target.scopes:
            scopes = self._successors(each.scope)
        if scopes:
            others = [other for scope in sorted(scopes) for other in self.target.in_scope(scope)]
            there = sum(target.counts[scope, each.tokens] for scope in scopes)
            if there > after.counts[each.scope, each.tokens]:
                return 0.0
        else:
            others = list(self.target.statements)
            if target.totals[each.tokens] > after.totals[each.tokens]:
                return 0.0 if self.scale.is_telling(each.tokens) else 0.5
        if not self.scale.is_telling(each.tokens) and each.scope in target.scopes:
            return 1.0
        kept = after.totals
        for other in others:
            if kept[other.tokens] or any(self.target.statements[n] is other for n in self._used):
                continue
            if not words(each.tokens).isdisjoint(words(other.tokens)):
                likeness = compare(each.tokens, other.tokens, self.scale, self._names)
                if likeness.share >= 0.75:
                    return 0.2
        return 1.0


def place(view: View, block: Sequence[bytes], near: int) -> int:
    """Return the line of the block nearest to line *near*, from 1."""
    return min(view.find(block), key=lambda at: abs(at - near), default=near)


def touches(each: Statement, lines: set[int]) -> bool:
    return any(line in lines for line in range(each.first, each.last + 1))


def _names(tokens: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(filter(is_word, tokens)))
