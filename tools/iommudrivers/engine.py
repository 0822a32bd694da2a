# SPDX-License-Identifier: GPL-2.0-only
"""The result of a call: from its source, from ``drivers.toml``, or unknown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from tree_sitter import Node

from iommudrivers import facts
from iommudrivers import values as v
from iommudrivers.expressions import Env, Expressions
from iommudrivers.flow import Frame
from iommudrivers.program import Definition, Program, Unit
from iommudrivers.values import Kind, Value, Values

#: Macros without source that set a variable in their arguments.
_SETTERS = re.compile(r"poll_timeout|get_user$|_irqsave$|local_irq_save|wait_event")
_ASSIGNS = re.compile(rb"[^=!<>]=[^=]")
_RETURNS = re.compile(rb"\breturn\b")
#: Maximal depth of nested calls.
_DEEPEST = 40
#: Maximal sets of arguments of a function; with more it is evaluated once for all.
_MOST = 16


class Engine:
    """Follows the calls of a program.

    :param types: types of the known domains, by the name of the object.
    """

    def __init__(self, program: Program, types: Mapping[str, int] | None = None) -> None:
        self.program = program
        self.types: dict[str, int] = dict(types or {})
        #: Variables that are or contain a domain: file and name -> object and member.
        self.objects: dict[tuple[str, str], tuple[str, str]] = {}
        self._known: dict[tuple[object, ...], Values] = {}
        self._contexts: dict[tuple[str, str, int], int] = {}
        self._stack: list[tuple[str, str, int]] = []

    def object_of(self, unit: Unit, name: str, member: str) -> Value | None:
        """Return the domain whose address ``&name`` or ``&name.member`` is, if it is one.

        ``&name`` of a structure with a domain is an object of unknown type.
        """
        found = self.objects.get((unit.path, name))
        if found is None and (variable := self.program.variable(unit, name)) is not None:
            found = self.objects.get((variable.unit.path, name))
        if found is None:
            return None
        key, inside = found
        if member == inside:
            return Value(Kind.OBJ, name=key)
        return Value(Kind.OBJ, name=key, member=inside) if not member else None

    def domain_type(self, value: Value) -> int | None:
        """Return the type of a domain."""
        return self.types.get(value.name) if value.kind is Kind.OBJ else None

    def returns(self, unit: Unit, name: str, given: Sequence[Values]) -> Values:
        """Return what a function returns, called from a file.

        :param given: its arguments; those that are missing may be anything.
        """
        definitions = self.program.functions(unit, name)
        if not definitions:
            return v.anything(f"{name}() is not among the sources")
        return v.merge(self._follow(each, given) for each in definitions)

    def special(
        self, frame: Expressions, name: str, arguments: Sequence[Node], env: Env
    ) -> Values | None:
        """Return the value of a common kernel macro or function; None if it is none."""
        if name == "IS_ENABLED":
            return v.BOOL
        if name in ("container_of", "container_of_const") and len(arguments) == 3:
            found = frame.value(arguments[0], env)
            member = frame.text(arguments[2])
            return frozenset(
                replace(each, member=member)
                if each.kind is Kind.OBJ and not each.member and member.isidentifier()
                else v.POINTER
                for each in found
            )
        if len(arguments) < 1:
            return None
        if name == "ERR_PTR":
            return v.to_pointer(frame.value(arguments[0], env))
        if name == "ERR_CAST":
            return v.error_pointers(frame.value(arguments[0], env))
        if name in ("PTR_ERR", "PTR_ERR_OR_ZERO"):
            or_zero = name == "PTR_ERR_OR_ZERO"
            return v.to_errno(frame.value(arguments[0], env), or_zero=or_zero)
        if name in ("IS_ERR", "IS_ERR_OR_NULL"):
            found = frame.value(arguments[0], env)
            bad = bool(v.error_pointers(found)) or (name != "IS_ERR" and bool(v.zero(found)))
            good = bool(v.other_pointers(found))
            pairs = ((1, bad), (0, good))
            return frozenset(Value(Kind.INT, number) for number, is_so in pairs if is_so)
        if name == "dev_err_probe" and len(arguments) > 1:
            return frame.value(arguments[1], env)
        return None

    def call(
        self, frame: Expressions, name: str, given: Sequence[Values], node: Node, env: Env
    ) -> Values:
        """Return the value of a call."""
        place = frame.place(node)
        if name in env:
            return v.anything(f"`{name}` is a pointer to a function", place)
        when = frame.conditions[-1] if frame.conditions else ""
        known = facts.result(name, place, when)
        if known is not None:
            return known
        if facts.load().get(name) == "callback":
            return v.merge((v.number(0), *self._called_back(frame, name, node)))
        definitions = self.program.functions(frame.unit, name)
        if definitions:
            found = v.merge(self._follow(each, given) for each in definitions)
            return frozenset(each.passed(name) for each in found)
        macro = self.program.macro(frame.unit, name)
        if macro is not None and macro[1].parameters is not None:
            return frame.expand(macro[0], macro[1], given)
        return v.anything(f"{name}() is not among the sources", place)

    def sets_arguments(self, unit: Unit, name: str) -> bool:
        """Tell whether a call is of a macro that may set its arguments."""
        if _SETTERS.search(name):
            return True
        body = self._macro_body(unit, name)
        return bool(_ASSIGNS.search(body))

    def returns_itself(self, unit: Unit, name: str) -> bool:
        """Tell whether a call is of a macro with a ``return``."""
        return bool(_RETURNS.search(self._macro_body(unit, name)))

    def _macro_body(self, unit: Unit, name: str) -> bytes:
        if self.program.functions(unit, name):
            return b""
        found = self.program.macro(unit, name)
        return found[1].body if found is not None else b""

    def _called_back(self, frame: Expressions, name: str, node: Node) -> Iterator[Values]:
        """Yield the results of the functions in the arguments of a call."""
        listed = node.child_by_field_name("arguments")
        found = False
        for each in listed.named_children if listed is not None else ():
            callback = frame.text(each).removeprefix("&")
            if each.type in ("identifier", "pointer_expression") and callback.isidentifier():
                for definition in self.program.functions(frame.unit, callback):
                    found = True
                    inside = self._follow(definition, ())
                    yield frozenset(one.passed(callback).passed(name) for one in inside)
        if not found:
            yield v.anything(f"{name}() calls what is not known", frame.place(node))

    def _follow(self, definition: Definition, given: Sequence[Values]) -> Values:
        unit, function = definition.unit, definition.function
        where = (unit.path, function.name, function.start)
        frame = Frame(self, unit, function)
        names = frame.parameters()
        arguments = [
            _exact(given[at] if at < len(given) else None, name) for at, name in enumerate(names)
        ]
        if self._contexts.get(where, 0) >= _MOST:
            arguments = [_exact(None, name) for name in names]
        key = (*where, *arguments)
        if key in self._known:
            return self._known[key]
        if where in self._stack or len(self._stack) >= _DEEPEST:
            return v.anything(f"{function.name}() calls itself")
        self._contexts[where] = self._contexts.get(where, 0) + 1
        self._stack.append(where)
        try:
            found = frame.run(arguments)
        except RecursionError:
            found = v.anything(f"{function.name}() is nested too deeply")
        finally:
            self._stack.pop()
        if _returns_truth(definition):
            found = v.as_condition(found) if found else found
        self._known[key] = found
        return found


def _exact(values: Values | None, name: str) -> Values:
    """Return the value of an argument in the function: a number, a domain, or unknown."""
    if values and len(values) <= 3 and all(v.is_exact(each) for each in values):
        return values
    return v.anything(f"argument `{name}`")


def _returns_truth(definition: Definition) -> bool:
    kind = definition.function.node.child_by_field_name("type")
    inner = definition.function.node.child_by_field_name("declarator")
    is_plain = inner is not None and inner.type == "function_declarator"
    return kind is not None and is_plain and definition.unit.of(kind) == "bool"
