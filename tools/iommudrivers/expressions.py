# SPDX-License-Identifier: GPL-2.0-only
"""The possible values of an expression of C, and the environment if it is true.

Only the local variables of a function are followed.  A field is `Kind.ANY`, except the type
of the domain that is attached.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from tree_sitter import Node

from iommudrivers import macros, operators
from iommudrivers import values as v
from iommudrivers.program import Macro, NotUnderstood, Program, Unit, is_constant, part, parts
from iommudrivers.values import Kind, Place, Value, Values

#: The values of variables; others are unknown.
Env = dict[str, Values]
#: An environment; None: unreachable.
State = Env | None

_ERRNO = re.compile(r"E[A-Z0-9]{2,}")
_NUMBER = re.compile(r"(0[xX][0-9a-fA-F]+|\d+)[uUlL]*")
_TRANSPARENT = frozenset(
    {
        *("likely", "unlikely", "READ_ONCE", "WARN_ON", "WARN_ON_ONCE", "WARN", "WARN_ONCE"),
        *("BUG_ON", "rcu_dereference", "rcu_dereference_protected", "rcu_access_pointer"),
        *("smp_load_acquire", "no_free_ptr"),
    }
)
_DEEPEST = 40


def join(one: State, other: State) -> State:
    """Return the environment where two paths meet."""
    if one is None or other is None:
        return other if one is None else one
    return {name: v.merge((one[name], other[name])) for name in one.keys() & other.keys()}


class Calls(Protocol):
    """Evaluates the calls in an expression; see `iommudrivers.engine.Engine`.

    :ivar program: the sources.
    """

    program: Program

    def object_of(self, unit: Unit, name: str, member: str) -> Value | None:
        """Return the domain whose address ``&name`` or ``&name.member`` is, if it is one."""

    def domain_type(self, value: Value) -> int | None:
        """Return the type of a domain."""

    def special(
        self, frame: Expressions, name: str, arguments: Sequence[Node], env: Env
    ) -> Values | None:
        """Return the value of a common kernel macro or function; None if it is none."""

    def call(
        self, frame: Expressions, name: str, given: Sequence[Values], node: Node, env: Env
    ) -> Values:
        """Return the value of a call."""

    def sets_arguments(self, unit: Unit, name: str) -> bool:
        """Tell whether a call is of a macro that may set its arguments."""

    def returns_itself(self, unit: Unit, name: str) -> bool:
        """Tell whether a call is of a macro with a ``return``."""


class Expressions:
    """The expressions of one function."""

    def __init__(self, engine: Calls, unit: Unit) -> None:
        self.engine = engine
        self.unit = unit
        #: Variables that are not followed: their address is taken.
        self.shared: frozenset[str] = frozenset()
        #: Conditions of the statement, the innermost last.
        self.conditions: list[str] = []
        self._macros = 0

    def place(self, node: Node) -> Place:
        """Return the line of a node."""
        return Place(self.unit.path, self.unit.line(node))

    def text(self, node: Node) -> str:
        """Return the text of a node in one line."""
        return self.unit.words(node)

    def value(self, node: Node | None, env: Env) -> Values:
        """Return the possible values of an expression; it may change *env*."""
        if node is None:
            return v.NOTHING
        method = getattr(self, f"_{node.type}", None)
        if method is not None:
            found: Values = method(node, env)
            return found
        return v.anything(f"`{self.text(node)}`", self.place(node))

    # Simple ones.

    def _number_literal(self, node: Node, _env: Env) -> Values:
        match = _NUMBER.fullmatch(self.text(node))
        if match is None:
            return v.anything(f"`{self.text(node)}`")
        return v.number(int(match[1], 16 if match[1][:2] in ("0x", "0X") else 10))

    def _true(self, _node: Node, _env: Env) -> Values:
        return v.number(1)

    def _false(self, _node: Node, _env: Env) -> Values:
        return v.number(0)

    def _null(self, _node: Node, _env: Env) -> Values:
        return v.number(0)

    def _string_literal(self, _node: Node, _env: Env) -> Values:
        return frozenset({v.POINTER})

    _concatenated_string = _string_literal
    _compound_literal_expression = _string_literal
    _sizeof_expression = lambda _self, _node, _env: v.COUNT  # noqa: E731

    def _identifier(self, node: Node, env: Env) -> Values:
        name = self.text(node)
        if name in self.shared:
            return v.anything(f"`{name}`, whose address is taken", self.place(node))
        if name in env:
            return env[name]
        if name in ("NULL", "false"):
            return v.number(0)
        if name == "true":
            return v.number(1)
        if is_constant(name):
            found = self.engine.program.macro(self.unit, name)
            if found is not None and found[1].parameters is None:
                return self.expand(found[0], found[1], ())
        return v.anything(f"`{name}`", self.place(node))

    def _parenthesized_expression(self, node: Node, env: Env) -> Values:
        inner = node.named_children
        return self.value(inner[0], env) if len(inner) == 1 else v.anything(self.text(node))

    def _cast_expression(self, node: Node, env: Env) -> Values:
        return self.value(node.child_by_field_name("value"), env)

    def _comma_expression(self, node: Node, env: Env) -> Values:
        self.value(node.child_by_field_name("left"), env)
        return self.value(node.child_by_field_name("right"), env)

    def _conditional_expression(self, node: Node, env: Env) -> Values:
        condition, alternative = parts(node, "condition", "alternative")
        consequence = node.child_by_field_name("consequence")
        yes, no = self.branch(condition, env)
        found = []
        for state, chosen in ((yes, consequence), (no, alternative)):
            if state is None:
                continue
            # gcc's `a ?: b`: the first is the condition itself.
            found.append(self.value(chosen or condition, state))
            if chosen is None:
                found[-1] = v.nonzero(found[-1])
        _settle(env, join(yes, no))
        return v.merge(found)

    def _subscript_expression(self, node: Node, env: Env) -> Values:
        for child in node.named_children:
            self.value(child, env)
        return v.anything(f"`{self.text(node)}`", self.place(node))

    # Pointers and fields.

    def _pointer_expression(self, node: Node, env: Env) -> Values:
        argument = part(node, "argument")
        if self.text(node).startswith("&"):
            return self._address(argument, env)
        self.value(argument, env)
        return v.anything(f"`{self.text(node)}`", self.place(node))

    def _address(self, node: Node, env: Env) -> Values:
        """Return the value of an address: a domain, or a pointer."""
        if node.type == "identifier":
            name = self.text(node)
            found = self.engine.object_of(self.unit, name, "")
            return frozenset({found or v.POINTER})
        if node.type == "field_expression":
            base, member = parts(node, "argument", "field")
            if base.type == "identifier" and self.text(base) not in env:
                found = self.engine.object_of(self.unit, self.text(base), self.text(member))
                if found:
                    return frozenset({found})
            for each in self.value(base, env):
                if each.kind is Kind.OBJ and each.member == self.text(member):
                    return frozenset({Value(Kind.OBJ, name=each.name)})
        return frozenset({v.POINTER})

    def _field_expression(self, node: Node, env: Env) -> Values:
        base, member = parts(node, "argument", "field")
        unknown = v.anything(f"`{self.text(node)}`", self.place(node))
        name = self.text(member)
        if base.type == "field_expression":
            # x->domain.type, where x contains the domain
            owner, inside = parts(base, "argument", "field")
            found = self.value(owner, env)
            kinds = {
                self.engine.domain_type(each)
                for each in found
                if each.kind is Kind.OBJ and each.member == self.text(inside) and each.member
            }
            if name == "type" and len(kinds) == len(found) == 1 and None not in kinds:
                (kind,) = kinds
                return v.number(kind or 0)
            return unknown
        found = self.value(base, env)
        if name == "type" and found:
            types = []
            for each in found:
                of = self.engine.domain_type(each) if not each.member else None
                if each.kind is not Kind.OBJ or of is None:
                    return unknown
                types.append(v.number(of))
            return v.merge(types)
        return unknown

    # Operators.

    def _unary_expression(self, node: Node, env: Env) -> Values:
        operator, argument = parts(node, "operator", "argument")
        sign = self.text(operator)
        if sign == "-" and argument.type == "identifier" and _ERRNO.fullmatch(self.text(argument)):
            return self._errno(self.text(argument), node)
        found = self.value(argument, env)
        if sign == "!":
            return frozenset(Value(Kind.INT, int(not each)) for each in v.truths(found))
        if found and all(each.kind is Kind.INT for each in found):
            how = {"-": lambda n: -n, "+": lambda n: n, "~": lambda n: ~n}.get(sign)
            if how is not None:
                return frozenset(Value(Kind.INT, how(each.number)) for each in found)
        return v.anything(f"`{self.text(node)}`", self.place(node))

    def _errno(self, name: str, node: Node) -> Values:
        when = self.conditions[-1] if self.conditions else ""
        return frozenset({Value(Kind.ERRNO, name=name, place=self.place(node), when=when)})

    def _update_expression(self, node: Node, env: Env) -> Values:
        argument = node.child_by_field_name("argument")
        if argument is not None and argument.type == "identifier":
            name = self.text(argument)
            if name in env:
                env[name] = v.COUNT if "++" in self.text(node) else v.anything(f"`{name}`")
                return env[name]
        return v.anything(f"`{self.text(node)}`", self.place(node))

    def _binary_expression(self, node: Node, env: Env) -> Values:
        left, operator, right = parts(node, "left", "operator", "right")
        sign = self.text(operator)
        if sign in ("&&", "||"):
            yes, no = self.branch(node, env)
            _settle(env, join(yes, no))
            both = {1: yes, 0: no}
            return frozenset(Value(Kind.INT, n) for n, state in both.items() if state is not None)
        one, two = self.value(left, env), self.value(right, env)
        if sign in operators.OPPOSITE:
            # The set on the left is empty if the variable is unknown.
            result = {1} if operators.compare(one, sign, two) else set()
            result |= {0} if operators.compare(one, operators.OPPOSITE[sign], two) else set()
            return frozenset(Value(Kind.INT, each) for each in result or {0, 1})
        numbers = [[each.number for each in side if each.kind is Kind.INT] for side in (one, two)]
        if len(numbers[0]) * len(numbers[1]) == len(one) * len(two) and one and two:
            found = {operators.compute(a, sign, b) for a in numbers[0] for b in numbers[1]}
            if None not in found and len(found) <= 8:
                return frozenset(Value(Kind.INT, each) for each in found if each is not None)
        return v.anything(f"`{self.text(node)}`", self.place(node))

    def _assignment_expression(self, node: Node, env: Env) -> Values:
        left, operator, right = parts(node, "left", "operator", "right")
        found = self.value(right, env)
        if self.text(operator) != "=":
            found = v.anything(f"`{self.text(node)}`", self.place(node))
        if left.type == "identifier":
            env[self.text(left)] = found
        else:
            self.value(left, env)
        return found

    # Calls.

    def _call_expression(self, node: Node, env: Env) -> Values:
        function, listed = parts(node, "function", "arguments")
        arguments = [each for each in listed.named_children if each.type != "comment"]
        name = self.text(function)
        if function.type != "identifier":
            for each in arguments:
                self.value(each, env)
            return v.anything(f"`{name}` is a pointer to a function", self.place(node))
        found = self.engine.special(self, name, arguments, env)
        if found is not None:
            return found
        if name in _TRANSPARENT and arguments:
            return self.value(arguments[0], env)
        given = [self.value(each, env) for each in arguments]
        result = self.engine.call(self, name, given, node, env)
        self._forget(name, arguments, env)
        return result

    def run_call(self, node: Node, env: Env) -> None:
        """Evaluate a call whose result is not used: it may change its arguments."""
        function, listed = parts(node, "function", "arguments")
        arguments = listed.named_children if listed is not None else []
        for each in arguments:
            self.value(each, env)
        if function is not None and function.type == "identifier":
            self._forget(self.text(function), arguments, env)

    def _forget(self, name: str, arguments: Sequence[Node], env: Env) -> None:
        """Forget the variables that a macro sets."""
        if not self.engine.sets_arguments(self.unit, name):
            return
        for each in arguments:
            if each.type == "identifier" and self.text(each) in env:
                words = self.text(each)
                env[words] = v.anything(f"`{words}`, set by {name}()", self.place(each))

    def expand(self, unit: Unit, macro: Macro, given: Sequence[Values]) -> Values:
        """Return the value of a macro with these arguments, if it is an expression."""
        unknown = v.anything(f"macro `{macro.name}`")
        if self._macros > _DEEPEST or not macro.body:
            return unknown
        node, text = macros.as_expression(macro.body)
        if node is None:
            return unknown
        inner = Expressions(self.engine, macros.Text(unit, text, macro.line))  # type: ignore[arg-type]
        inner._macros = self._macros + 1
        inner.conditions = self.conditions
        try:
            return inner.value(node, dict(zip(macro.parameters or (), given, strict=False)))
        except NotUnderstood:
            return unknown

    # Conditions.

    def branch(self, node: Node, env: Env) -> tuple[State, State]:
        """Return the environments if a condition is true, and if it is false."""
        if node.type == "parenthesized_expression" and len(node.named_children) == 1:
            return self.branch(node.named_children[0], env)
        if node.type == "unary_expression" and self.text(node).startswith("!"):
            return self.branch(part(node, "argument"), env)[::-1]
        if node.type == "binary_expression":
            return self._branch_binary(node, env)
        if node.type == "call_expression":
            function, listed = parts(node, "function", "arguments")
            arguments = [each for each in listed.named_children if each.type != "comment"]
            name = self.text(function)
            if name in _TRANSPARENT and arguments:
                return self.branch(arguments[0], env)
            if name in ("IS_ERR", "IS_ERR_OR_NULL") and len(arguments) == 1:
                found = self.value(arguments[0], env)
                yes, no = v.error_pointers(found), v.other_pointers(found)
                if name == "IS_ERR_OR_NULL":
                    yes, no = v.merge((yes, v.zero(found))), v.nonzero(no)
                return self._split(arguments[0], found, yes, no, env)
        found = self.value(node, env)
        target = node
        if node.type == "assignment_expression":
            left = node.child_by_field_name("left")
            target = left or node
        return self._split(target, found, v.nonzero(found), v.zero(found), env)

    def _branch_binary(self, node: Node, env: Env) -> tuple[State, State]:
        left, operator, right = parts(node, "left", "operator", "right")
        sign = self.text(operator)
        if sign in ("&&", "||"):
            yes, no = self.branch(left, env)
            go_on, done = (yes, no) if sign == "&&" else (no, yes)
            if go_on is None:
                return (None, done) if sign == "&&" else (done, None)
            second_yes, second_no = self.branch(right, go_on)
            if sign == "&&":
                return second_yes, join(done, second_no)
            return join(done, second_yes), second_no
        if sign not in operators.OPPOSITE:
            found = self.value(node, env)
            return self._split(node, found, v.nonzero(found), v.zero(found), env)
        one, two = self.value(left, env), self.value(right, env)
        while left.type == "parenthesized_expression" and len(left.named_children) == 1:
            left = left.named_children[0]
        if left.type == "assignment_expression":
            left = left.child_by_field_name("left") or left
        yes_set, no_set = (
            operators.compare(one, sign, two),
            operators.compare(one, operators.OPPOSITE[sign], two),
        )
        yes, no = self._split(left, one, yes_set, no_set, env)
        if right.type == "identifier" and self.text(right) in env:
            mirrored = operators.MIRRORED[sign]
            for state, how in ((yes, mirrored), (no, operators.OPPOSITE[mirrored])):
                if state is not None:
                    state[self.text(right)] = operators.compare(two, how, one) or two
        return yes, no

    def _split(
        self, target: Node, found: Values, yes: Values, no: Values, env: Env
    ) -> tuple[State, State]:
        if not found:
            return dict(env), dict(env)
        states: list[State] = []
        for left in (yes, no):
            if not left:
                states.append(None)
                continue
            state = dict(env)
            if target.type == "identifier" and self.text(target) in env:
                state[self.text(target)] = left
            states.append(state)
        return states[0], states[1]


def _settle(env: Env, state: State) -> None:
    """Copy the changes of an expression into another environment."""
    if state is not None:
        env.clear()
        env.update(state)
