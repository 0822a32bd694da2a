# SPDX-License-Identifier: GPL-2.0-only
"""The possible values of an expression, each with its origin in the source.

A set may contain impossible values, but no possible one is missing.  An unknown value is
`Kind.ANY`, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum


class Kind(Enum):
    """The kind of a value."""

    INT = "int"  # this number; 0 is also NULL
    ERRNO = "errno"  # a negative error
    ERRPTR = "errptr"  # an ERR_PTR()
    NULL = "null"  # NULL, returned by a function
    PTR = "ptr"  # a pointer that is none of these
    OBJ = "obj"  # the attached domain, or its container
    POSITIVE = "positive"
    COUNT = "count"  # not negative
    ANY = "any"


@dataclass(frozen=True)
class Place:
    """A line of the source."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True)
class Value:
    """One possible value of an expression.

    :ivar number: of an `Kind.INT`.
    :ivar name: of an error, ``ENOMEM``, or of the function that gave it; of an object its own;
        of `Kind.ANY` the reason why nothing is known.
    :ivar member: of an object that the domain is a member of, which one.
    :ivar place: its line in the source.
    :ivar chain: the functions that returned it, the outermost first.
    :ivar when: its condition, as text of the source.
    """

    kind: Kind
    number: int = 0
    name: str = ""
    member: str = ""
    place: Place | None = None
    chain: tuple[str, ...] = field(default=(), compare=False)
    when: str = field(default="", compare=False)

    def passed(self, function: str) -> Value:
        """Return the value as returned by *function*."""
        if self.kind in (Kind.INT, Kind.PTR, Kind.OBJ, Kind.POSITIVE, Kind.COUNT):
            return self
        return replace(self, chain=(function, *self.chain))


Values = frozenset[Value]

ZERO = Value(Kind.INT, 0)
POINTER = Value(Kind.PTR)
NOTHING: Values = frozenset()
BOOL: Values = frozenset({ZERO, Value(Kind.INT, 1)})
COUNT: Values = frozenset({Value(Kind.COUNT)})
_POSITIVE = Value(Kind.POSITIVE)

#: Kinds that differ only by their origin.
_ERRORS = (Kind.ERRNO, Kind.ERRPTR)
#: Limit of a set; a larger one becomes unknown.
_MOST = 60


def number(value: int) -> Values:
    """Return the set of one number."""
    return frozenset({Value(Kind.INT, value)})


def anything(reason: str, place: Place | None = None) -> Values:
    """Return the set of all values.

    :param reason: why the value is unknown.
    """
    return frozenset({Value(Kind.ANY, name=reason, place=place)})


def merge(sets: Iterable[Values]) -> Values:
    """Return the union; of equal values the one with the shortest path.

    The result must not depend on the order of a set.
    """

    def rank(value: Value) -> tuple[int, tuple[str, ...], bool, str]:
        return len(value.chain), value.chain, not value.when, value.when

    found: dict[Value, Value] = {}
    for values in sets:
        for value in values:
            old = found.get(value)
            if old is None or rank(value) < rank(old):
                found.pop(value, None)
                found[value] = value
    if len(found) > _MOST:
        plain = [value for value in found.values() if value.kind is not Kind.INT]
        if len(plain) <= _MOST:
            return frozenset((*plain, Value(Kind.ANY, name="too many numbers")))
    return frozenset(found.values())


def truths(values: Values) -> set[bool]:
    """Return the possible truth values of a set."""
    found: set[bool] = set()
    for value in values:
        if value.kind in (Kind.ANY, Kind.COUNT):
            return {True, False}
        found.add(value.kind is not Kind.NULL and value != ZERO)
    return found or {True, False}


def as_condition(values: Values) -> Values:
    """Return the possible values of ``!!values``."""
    return frozenset(Value(Kind.INT, int(each)) for each in truths(values))


def nonzero(values: Values) -> Values:
    """Return the values that are not 0."""
    return frozenset(
        _POSITIVE if value.kind is Kind.COUNT else value
        for value in values
        if value.kind is not Kind.NULL and value != ZERO
    )


def zero(values: Values) -> Values:
    """Return the values that may be 0."""
    left = set()
    for value in values:
        if value.kind is Kind.NULL or value == ZERO:
            left.add(value)
        elif value.kind in (Kind.ANY, Kind.COUNT):
            left.add(ZERO)
    return frozenset(left)


def negative(values: Values) -> Values:
    """Return the values that may be less than 0."""
    return frozenset(
        value
        for value in values
        if value.kind in (Kind.ERRNO, Kind.ANY) or (value.kind is Kind.INT and value.number < 0)
    )


def not_negative(values: Values) -> Values:
    """Return the values that may be 0 or more."""
    return frozenset(
        Value(Kind.COUNT) if value.kind is Kind.ANY else value
        for value in values
        if value.kind is not Kind.ERRNO and not (value.kind is Kind.INT and value.number < 0)
    )


def error_pointers(values: Values) -> Values:
    """Return the values for which ``IS_ERR()`` may be true."""
    return frozenset(value for value in values if value.kind in (Kind.ERRPTR, Kind.ANY))


def other_pointers(values: Values) -> Values:
    """Return the values for which ``IS_ERR()`` may be false."""
    left = set()
    for value in values:
        if value.kind is Kind.ANY:
            left |= {POINTER, ZERO}
        elif value.kind is not Kind.ERRPTR:
            left.add(value)
    return frozenset(left)


def equal(values: Values, others: Values) -> Values:
    """Return the *values* that may be equal to one of *others*."""
    return frozenset(value for value in values if any(may_equal(value, each) for each in others))


def unequal(values: Values, others: Values) -> Values:
    """Return the *values* that may differ from all *others*."""
    if len(others) != 1:
        return values
    (other,) = others
    if not is_exact(other):
        return values
    if other == ZERO:
        return nonzero(values)
    return frozenset(value for value in values if not (is_exact(value) and is_same(value, other)))


def is_exact(value: Value) -> bool:
    """Tell whether a value is exact, so that a comparison is certain."""
    return value.kind in (Kind.INT, Kind.NULL, Kind.OBJ) or (
        value.kind in _ERRORS and value.name[:1] == "E"
    )


def is_same(value: Value, other: Value) -> bool:
    """Tell whether two exact values are equal."""
    if {value.kind, other.kind} <= {Kind.NULL, Kind.INT}:
        return value.number == other.number
    if value.kind is not other.kind:
        return False
    return (value.name, value.member) == (other.name, other.member)


def may_equal(value: Value, other: Value) -> bool:
    """Tell whether two values may be equal."""
    if is_exact(value) and is_exact(other):
        return is_same(value, other)
    pair = (value, other)
    for one, two in (pair, pair[::-1]):
        if one.kind in (Kind.PTR, Kind.POSITIVE) and two in (ZERO,):
            return False
        if one.kind in (Kind.COUNT, Kind.POSITIVE) and two.kind is Kind.ERRNO:
            return False
    return True


def to_pointer(values: Values) -> Values:
    """Return ``ERR_PTR()`` of a set."""
    return frozenset(
        replace(value, kind=Kind.ERRPTR) if value.kind is Kind.ERRNO else value for value in values
    )


def to_errno(values: Values, *, or_zero: bool = False) -> Values:
    """Return ``PTR_ERR()`` of a set.

    :param or_zero: as ``PTR_ERR_OR_ZERO()`` does.
    """
    found = set()
    for value in values:
        if value.kind is Kind.ERRPTR:
            found.add(replace(value, kind=Kind.ERRNO))
        elif value.kind is Kind.ANY:
            found.add(value)
            if or_zero:
                found.add(ZERO)
        elif or_zero:
            found.add(ZERO)
    return frozenset(found)
