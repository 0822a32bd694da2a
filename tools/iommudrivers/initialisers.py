# SPDX-License-Identifier: GPL-2.0-only
"""Read the fields in the initialiser of a structure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tree_sitter import Node

from iommudrivers.program import Program, Unit, Variable
from iommudrivers.values import Place
from iommuq.queue import csource

_OPEN = re.compile(r"[ \t]*#[ \t]*if(?:def|ndef)?\b(.*)")
_DEEPEST = 8


@dataclass(frozen=True)
class Setting:
    """A field and its value.

    :ivar text: the value, in one line.
    :ivar node: the value, a node of *unit*.
    :ivar condition: its ``#if``; empty if none.
    :ivar macro: its macro; empty if none.
    """

    name: str
    text: str
    node: Node
    unit: Unit
    place: Place
    condition: str = ""
    macro: str = ""


@dataclass(frozen=True)
class Fields:
    """The fields of a structure.

    :ivar unknown: parts of the initialiser that could not be read, each with its place.
    """

    settings: tuple[Setting, ...]
    unknown: tuple[str, ...] = ()

    def all(self, name: str) -> tuple[Setting, ...]:
        """Return the values of a field; two values are two branches of an ``#if``."""
        found = [each for each in self.settings if each.name == name]
        plain = [each for each in found if not each.condition]
        # The last one counts, as in C.
        return (*(each for each in found if each.condition), *plain[-1:])

    def get(self, name: str) -> Setting | None:
        """Return the value of a field, of two the first; None if it is not set."""
        found = self.all(name)
        return found[0] if found else None


class _MacroUnit(Unit):
    """The body of a macro, as part of an initialiser in its file."""

    def __init__(self, unit: Unit, body: bytes, line: int) -> None:
        self.path = unit.path
        self.text = unit.text
        self.source = csource.parse(b"static struct s x = {" + body + b"\n};\n")
        self._unit = unit
        self._line = line
        self.__dict__["functions"] = unit.functions
        self.__dict__["macros"] = unit.macros
        self.__dict__["includes"] = unit.includes
        self.__dict__["variables"] = unit.variables

    def variables_of_body(self) -> Node | None:
        """Return the list with the body; None if it cannot be parsed in one."""
        for node in csource.descend(self.source.root):
            if node.type == "initializer_list":
                return node
        return None

    def line(self, node: Node) -> int:
        """Return the line of a node."""
        return self._line + node.start_point[0]


def read_variable(program: Program, variable: Variable) -> Fields:
    """Return the fields of a variable."""
    return read_list(program, variable.unit, variable.node)


def read_list(program: Program, unit: Unit, node: Node) -> Fields:
    """Return the fields of an initialiser.

    :param node: a list in braces, or a compound literal or its address.
    """
    unknown: list[str] = []
    braces = braces_of(node)
    if braces is None:
        return Fields((), (f"`{unit.words(node)}`",))
    return Fields(tuple(_settings(program, unit, braces, unknown, 0)), tuple(unknown))


def braces_of(node: Node) -> Node | None:
    """Return the value if it is a list in braces; else None."""
    while node.type != "initializer_list":
        if node.type == "compound_literal_expression":
            inner = node.child_by_field_name("value")
        elif node.type == "pointer_expression":
            inner = node.child_by_field_name("argument")
        elif node.type == "parenthesized_expression" and node.named_children:
            inner = node.named_children[0]
        else:
            inner = None
        if inner is None:
            return None
        node = inner
    return node


def _settings(
    program: Program, unit: Unit, braces: Node, unknown: list[str], depth: int, macro: str = ""
) -> Iterator[Setting]:
    for each in braces.named_children:
        place = Place(unit.path, unit.line(each))
        if each.type == "comment":
            continue
        if each.type == "initializer_pair":
            value = each.child_by_field_name("value")
            designators = each.children_by_field_name("designator")
            if value is not None and len(designators) == 1:
                name = unit.of(designators[0]).removeprefix(".").strip()
                condition = "" if macro else _condition(unit, unit.line(braces), place.line)
                yield Setting(name, unit.words(value), value, unit, place, condition, macro)
                continue
        name = _macro_name(unit, each)
        found = program.macro(unit, name) if name and depth < _DEEPEST else None
        if found is not None and found[1].body:
            other, body = found
            expanded = _MacroUnit(other, body.body, body.line)
            inner = expanded.variables_of_body()
            if inner is not None:
                yield from _settings(program, expanded, inner, unknown, depth + 1, body.name)
                continue
        unknown.append(f"`{unit.words(each)[:60]}` ({place})")


def _macro_name(unit: Unit, node: Node) -> str:
    function = node.child_by_field_name("function") if node.type == "call_expression" else node
    return unit.of(function) if function is not None and function.type == "identifier" else ""


def _condition(unit: Unit, first: int, line: int) -> str:
    """Return the ``#if`` directives of a line of an initialiser."""
    stack: list[str] = []
    for text in unit.text.decode("utf-8", "replace").splitlines()[first - 1 : line - 1]:
        words = text.strip()
        if _OPEN.match(text):
            stack.append(" ".join(words.split()))
        elif re.match(r"#[ \t]*(?:else|elif)", words) and stack:
            stack[-1] = f"not {stack[-1]}"
        elif re.match(r"#[ \t]*endif", words) and stack:
            stack.pop()
    return ", ".join(stack)
