# SPDX-License-Identifier: GPL-2.0-only
"""How much one statement is like another that may be the same, written differently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from iommuq.queue.upstream.compare.view import Scale, is_word

_COMPARISONS = {"==", "!=", "<", ">", "<=", ">=", "!"}
_COMMUTES = {"&&", "||", "==", "!=", "+", "|"}
_INCLUDE = ("#", "include")

Tokens = tuple[str, ...]


@dataclass(frozen=True)
class Likeness:
    """What came of a comparison.

    :ivar share: 1 for the same, 0 for nothing in common.
    :ivar how: ``same``, ``renamed``, ``words``, ``order``, ``contrary`` or ``alike``.
    :ivar names: names that stand for others, where they do.
    """

    share: float
    how: str
    names: tuple[tuple[str, str], ...] = ()


#: The same tokens in the same order.
SAME = Likeness(1.0, "same")


class Names:
    """What names of a patch are called in another tree, as far as that is known.

    :param scale: weighs them.
    :param free: tells whether a name of the patch may be a given other one there.
    """

    def __init__(self, scale: Scale, free: Callable[[str, str], bool]) -> None:
        self._scale = scale
        self._free = free
        self._known: dict[str, str] = {}

    def learn(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Take names for settled, unless they are so otherwise."""
        for ours, theirs in pairs:
            if ours not in self._known and theirs not in self._known.values():
                self._known[ours] = theirs

    def get(self, ours: str) -> str:
        """Return what a name is called there."""
        return self._known.get(ours, ours)

    def may(self, ours: str, theirs: str) -> bool:
        """Tell whether a name may be another one there."""
        if ours in self._known or theirs in self._known.values():
            return self._known.get(ours) == theirs
        return self._free(ours, theirs)

    def kinship(self, ours: str, theirs: str) -> float:
        """Return how much two names have in common, leaving out what many names have."""
        left, right = self._scale.rare_parts(ours), self._scale.rare_parts(theirs)
        return len(left & right) / len(left | right) if left & right else 0.0


def compare(ours: Tokens, theirs: Tokens, scale: Scale, names: Names) -> Likeness:
    """Compare a statement of a patch with one of another tree.

    Two that differ in nothing but an operator or a number are not nearly the same but
    contrary to each other.
    """
    if ours == theirs:
        return SAME
    if _INCLUDE in (ours[:2], theirs[:2]):
        # Another header is another header, however alike their names and places are.
        return Likeness(0.0, "contrary")
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
    """Return the likeness of statements that differ in names alone, each for one other.

    What they have in common must speak for it: a statement that is nothing but a name
    could be any other.
    """
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
    if len(set(found.values())) != len(found) or kept < 0.5 * whole:
        return None
    if not all(names.may(left, right) for left, right in found.items()):
        return None
    return Likeness(0.95, "renamed", tuple(found.items()))


def _overlap(own: Counter[str], other: Counter[str], scale: Scale, names: Names) -> float:
    """Return how much of what either says the two have in common."""

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
        # A name that is new to the tree may have another ending there.
        if is_word(ours) and scale.is_new(ours)
    )
    return (weigh(common) + akin) / whole
