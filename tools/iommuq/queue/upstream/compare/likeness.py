# SPDX-License-Identifier: GPL-2.0-only
"""Measure how similar two statements are."""

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
