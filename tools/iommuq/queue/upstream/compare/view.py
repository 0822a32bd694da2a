# SPDX-License-Identifier: GPL-2.0-only
"""A file for comparison: its statements, their counts and weights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

from iommuq.queue.upstream.compare.statements import Statement, significant, split

_LOG = re.compile(r"(?:dev|pr|netdev|pci)_(?:warn|err|info|dbg|notice|crit)|printk")
_WORD = re.compile(r"[A-Za-z_]\w*")
# Words that are common in every file.
_COMMON = frozenset(
    re.findall(
        r"\w+",
        """if else for while do switch case default break continue return goto static inline
        const struct union enum int unsigned long short char void bool true false NULL sizeof
        extern u8 u16 u32 u64 ret err dev i out""",
    )
)


@dataclass(frozen=True)
class View:
    """A file: its path and its content."""

    path: str
    data: bytes

    @cached_property
    def statements(self) -> tuple[Statement, ...]:
        """All statements, in order."""
        return tuple(split(self.path, self.data))

    @cached_property
    def lines(self) -> tuple[bytes, ...]:
        """Its lines, each run of blanks as one."""
        return tuple(map(squeeze, self.data.split(b"\n")))

    @cached_property
    def scopes(self) -> frozenset[str]:
        """The names of its functions and structures."""
        return frozenset(each.scope for each in self.statements)

    @cached_property
    def counts(self) -> Counter[tuple[str, tuple[str, ...]]]:
        """The number of each statement in each scope."""
        return Counter((each.scope, each.tokens) for each in self.statements)

    @cached_property
    def totals(self) -> Counter[tuple[str, ...]]:
        """The number of each statement."""
        return Counter(each.tokens for each in self.statements)

    @cached_property
    def tokens(self) -> Counter[str]:
        """The number of each token."""
        return Counter(token for each in self.statements for token in each.tokens)

    @cached_property
    def calls(self) -> frozenset[tuple[str, str]]:
        """Pairs of a scope and a word that is used in it."""
        pairs = ((each.scope, token) for each in self.statements for token in each.tokens)
        return frozenset(pair for pair in pairs if is_word(pair[1]))

    def in_scope(self, scope: str) -> list[Statement]:
        """Return the statements of a function."""
        return [each for each in self.statements if each.scope == scope]

    def find(self, block: Sequence[bytes]) -> list[int]:
        """Return the lines, from 1, where a block of lines begins."""
        wanted = tuple(map(squeeze, block))
        if not any(wanted):
            return []
        return [
            at + 1
            for at in range(len(self.lines) - len(wanted) + 1)
            if self.lines[at] == wanted[0] and self.lines[at : at + len(wanted)] == wanted
        ]


def squeeze(line: bytes) -> bytes:
    """Return a line with each run of blanks as one."""
    return b" ".join(line.split())


@cache
def is_word(token: str) -> bool:
    """Return whether a token is a name or a keyword."""
    return _WORD.fullmatch(token) is not None


@cache
def words(tokens: tuple[str, ...]) -> frozenset[str]:
    """Return the words of a statement that are not common in every file."""
    return frozenset(token for token in tokens if is_word(token)) - _COMMON


class Scale:
    """Weighs tokens: the rarer a token is in the file, the more it weighs."""

    def __init__(self, before: View) -> None:
        self._counts = before.tokens
        self._parts = Counter(part for token in before.tokens for part in set(token.split("_")))
        self._rare: dict[str, frozenset[str]] = {}
        self._known: dict[tuple[str, ...], float] = {}

    def token(self, token: str) -> float:
        """Return the weight of a token."""
        if token.startswith('"'):
            return 0.3 if token[1:].isalpha() else 0.1
        if not is_word(token):
            return 0.2 if not token[0].isdigit() or token in "01" else 1.0
        if token in _COMMON:
            return 0.3
        count = self._counts[token]
        return 4.0 if count == 0 else 3.0 if count <= 2 else 2.0 if count <= 10 else 1.0

    def is_new(self, token: str) -> bool:
        """Return whether the file before the patch lacks a token."""
        return self._counts[token] == 0

    def rare_parts(self, name: str) -> frozenset[str]:
        """Return the parts of a name that are in few names of the file."""
        if name not in self._rare:
            parts = name.split("_")
            self._rare[name] = frozenset(p for p in parts if p and self._parts[p] <= 4)
        return self._rare[name]

    def statement(self, tokens: tuple[str, ...]) -> float:
        """Return the weight of a statement."""
        if tokens not in self._known:
            # Log messages are often reworded.
            factor = 0.3 if _LOG.match(tokens[0]) else 1.0
            self._known[tokens] = factor * sum(map(self.token, tokens))
        return self._known[tokens]

    def is_telling(self, tokens: tuple[str, ...]) -> bool:
        """Return whether a statement is rare enough to be recognized in any place."""
        return self.statement(tokens) >= 3.5 and any(
            self.token(token) >= 3.0 for token in tokens if is_word(token)
        )


def write_out(view: View, known: frozenset[str]) -> tuple[View, dict[str, set[str]]]:
    """Inline the functions that only return an expression.

    :param known: functions to keep.
    :return: the changed file, and for each inlined function the scopes of its callers.
    """
    bodies: dict[str, tuple[list[str], tuple[str, ...]]] = {}
    for scope in view.scopes - known - {""}:
        inside = view.in_scope(scope)
        if len(inside) == 2 and inside[1].raw[:1] == ("return",) and scope in inside[0].raw:
            bodies[scope] = (_parameters(inside[0].raw), inside[1].raw[1:])
    if not bodies:
        return view, {}
    used: dict[str, set[str]] = {}
    statements = []
    for each in view.statements:
        raw = each.raw
        for name in [name for name in bodies if name in raw and name != each.scope]:
            raw = _expand(raw, name, *bodies[name])
            used.setdefault(name, set()).add(each.scope)
        statements.append(
            replace(each, raw=raw, tokens=significant(raw)) if raw != each.raw else each
        )
    if not used:
        return view, {}
    other = View(view.path, view.data)
    # Preset the cached_property.
    other.__dict__["statements"] = tuple(each for each in statements if each.scope not in used)
    return other, used


def _arguments(raw: Sequence[str], at: int) -> tuple[list[tuple[str, ...]], int]:
    """Return the arguments in the bracket at *at*, and the place of its closing bracket."""
    depth = 0
    found: list[list[str]] = [[]]
    for end in range(at, len(raw)):
        token = raw[end]
        depth += (token in "([") - (token in ")]")
        if depth == 0:
            return [tuple(each) for each in found if each], end
        if token == "," and depth == 1:
            found.append([])
        elif end > at:
            found[-1].append(token)
    return [], len(raw) - 1


def _parameters(raw: Sequence[str]) -> list[str]:
    arguments, _ = _arguments(raw, raw.index("(")) if "(" in raw else ([], 0)
    return [next((token for token in reversed(each) if is_word(token)), "") for each in arguments]


def _expand(
    raw: tuple[str, ...], name: str, parameters: list[str], body: tuple[str, ...]
) -> tuple[str, ...]:
    out: list[str] = []
    at = 0
    while at < len(raw):
        if raw[at] == name and raw[at + 1 : at + 2] == ("(",):
            arguments, end = _arguments(raw, at + 1)
            values = dict(zip(parameters, arguments, strict=False))
            out.append("(")
            for token in body:
                out += values.get(token, (token,))
            out.append(")")
            at = end + 1
        else:
            out.append(raw[at])
            at += 1
    return tuple(out)
