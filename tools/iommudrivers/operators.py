# SPDX-License-Identifier: GPL-2.0-only
"""The operators of C, on sets of values."""

from __future__ import annotations

from iommudrivers import values as v
from iommudrivers.values import Kind, Values

#: The comparison that is true where another is false.
OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
#: The same comparison with its sides exchanged.
MIRRORED = {"==": "==", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}


def compare(one: Values, sign: str, two: Values) -> Values:
    """Return the values of one side for which the comparison may be true."""
    if sign == "==":
        return v.equal(one, two)
    if sign == "!=":
        return v.unequal(one, two)
    if two == frozenset({v.ZERO}):
        if sign == "<":
            return v.negative(one)
        if sign == ">=":
            return v.not_negative(one)
        if sign == ">":
            return v.nonzero(v.not_negative(one))
        return v.merge((v.negative(one), v.zero(one)))
    left = set()
    for value in one:
        if (
            value.kind is not Kind.INT
            or any(other.kind is not Kind.INT for other in two)
            or any(compute(value.number, sign, other.number) for other in two)
        ):
            left.add(value)
    return frozenset(left)


def compute(one: int, sign: str, two: int) -> int | None:
    """Return the result of an operator; None if it is not known here."""
    if sign in ("<<", ">>") and not 0 <= two < 64:
        return None
    results = {
        "|": lambda: one | two,
        "&": lambda: one & two,
        "^": lambda: one ^ two,
        "+": lambda: one + two,
        "-": lambda: one - two,
        "*": lambda: one * two,
        "<<": lambda: one << two,
        ">>": lambda: one >> two,
        "<": lambda: int(one < two),
        ">": lambda: int(one > two),
        "<=": lambda: int(one <= two),
        ">=": lambda: int(one >= two),
    }
    return results[sign]() if sign in results else None
