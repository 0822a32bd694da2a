# SPDX-License-Identifier: GPL-2.0-only
"""Follow all paths through a function, and collect what it returns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from tree_sitter import Node

from iommudrivers import values as v
from iommudrivers.expressions import Calls, Env, Expressions, State, join
from iommudrivers.program import NotUnderstood, Unit, part, parts
from iommudrivers.values import Value, Values
from iommuq.queue.csource import Function, descend

#: Rounds of a loop before its changed variables become unknown.
_ROUNDS = 12
_LONGEST = 70
#: Number of reported reasons why a pointer is NULL.
_CAUSES = 3


@dataclass
class _Loop:
    """The end of a loop or a switch, where its paths meet."""

    leave: State = None
    again: State = None


@dataclass
class _Exits:
    returned: list[Values] = field(default_factory=list)
    labels: dict[str, State] = field(default_factory=dict)


class Frame(Expressions):
    """A function call.

    :param engine: evaluates the calls in it.
    """

    def __init__(self, engine: Calls, unit: Unit, function: Function) -> None:
        super().__init__(engine, unit)
        self._function = function
        inner = function.node.child_by_field_name("declarator")
        self.shared = frozenset(self._shared())
        self._is_pointer = inner is not None and inner.type == "pointer_declarator"
        self._exits = _Exits()
        self._loops: list[_Loop] = []
        self._breaks: list[_Loop] = []

    def run(self, given: list[Values]) -> Values:
        """Return what the function may return.

        :param given: its arguments.
        """
        for _ in range(_ROUNDS):
            before = dict(self._exits.labels)
            self._exits.returned.clear()
            env: Env = dict(zip(self.parameters(), given, strict=False))
            try:
                self._run(self._function.body, env)
            except NotUnderstood:
                place = self.place(self._function.node)
                return v.anything(f"{self._function.name}() is not understood", place)
            if self._exits.labels == before:
                break
        else:
            self._exits.returned.append(v.anything(f"{self._function.name}() jumps too often"))
        for node in descend(self._function.body):
            if node.type == "ERROR":
                reason = f"{self._function.name}() is not understood"
                self._exits.returned.append(v.anything(reason, self.place(node)))
                break
        return v.merge(self._exits.returned)

    def _shared(self) -> Iterator[str]:
        """Yield the variables whose address is taken."""
        for node in descend(self._function.body):
            if node.type == "pointer_expression" and self.text(node).startswith("&"):
                argument = node.child_by_field_name("argument")
                if argument is not None and argument.type == "identifier":
                    name = self.text(argument)
                    if self.engine.object_of(self.unit, name, "") is None:
                        yield name

    def parameters(self) -> list[str]:
        """Return the names of its parameters; empty for a parameter without a name."""
        for node in descend(self._function.node):
            if node.type == "parameter_list":
                break
        else:
            return []
        names = []
        for each in node.named_children:
            if each.type == "parameter_declaration":
                inner = each.child_by_field_name("declarator")
                while inner is not None and inner.type != "identifier":
                    inner = inner.child_by_field_name("declarator")
                names.append(self.text(inner) if inner is not None else "")
        return names

    # Statements: each takes the environment before it, and returns the one after it.

    def _run(self, node: Node, env: State) -> State:
        if node.type == "labeled_statement":
            label = part(node, "label")
            env = join(env, self._exits.labels.get(self.text(label)))
            return self._run_all([each for each in node.named_children if each != label], env)
        if env is None:
            # Unreachable, except through a label below.
            return self._run_all(node.named_children, None) if _has_label(node) else None
        method = getattr(self, f"_run_{node.type}", None)
        if method is not None:
            state: State = method(node, env)
            return state
        if node.type.startswith("preproc_"):
            return env
        if node.type.endswith(("_expression", "identifier", "literal")):
            self.value(node, env)
        return env

    def _run_all(self, nodes: list[Node], env: State) -> State:
        for node in nodes:
            env = self._run(node, env)
        return env

    def _run_compound_statement(self, node: Node, env: Env) -> State:
        # A declaration in a block hides an outer variable of the same name.
        hidden = {name: env[name] for name in self._declared(node) if name in env}
        after = self._run_all(node.named_children, env)
        if after is not None:
            after |= hidden
        return after

    def _declared(self, block: Node) -> Iterator[str]:
        for each in block.named_children:
            if each.type == "declaration":
                for declarator in each.children_by_field_name("declarator"):
                    inner: Node | None = declarator
                    while inner is not None and inner.type != "identifier":
                        inner = inner.child_by_field_name("declarator")
                    if inner is not None:
                        yield self.text(inner)

    def _run_else_clause(self, node: Node, env: Env) -> State:
        return self._run_all(node.named_children, env)

    def _run_expression_statement(self, node: Node, env: Env) -> State:
        for each in node.named_children:
            if each.type == "call_expression":
                self.run_call(each, env)
                function = each.child_by_field_name("function")
                name = self.text(function) if function is not None else ""
                if name.isidentifier() and self.engine.returns_itself(self.unit, name):
                    reason = f"macro `{name}` returns from the function"
                    self._exits.returned.append(v.anything(reason, self.place(each)))
            else:
                self.value(each, env)
        return env

    def _run_declaration(self, node: Node, env: Env) -> State:
        for each in node.children_by_field_name("declarator"):
            inner: Node | None = each
            value = each.child_by_field_name("value") if each.type == "init_declarator" else None
            while inner is not None and inner.type != "identifier":
                inner = inner.child_by_field_name("declarator")
            if inner is not None:
                # Without an initialiser: it is set before its first use.
                found = self.value(value, env) if value is not None else v.NOTHING
                if value is not None and value.type == "initializer_list":
                    found = v.anything(f"`{self.text(inner)}`")
                is_array = each.type == "array_declarator"
                env[self.text(inner)] = v.anything(self.text(inner)) if is_array else found
        return env

    def _run_return_statement(self, node: Node, env: Env) -> State:
        values = [each for each in node.named_children if each.type != "comment"]
        if values:
            found = self.value(values[0], env)
            if self._is_pointer and found == frozenset({v.ZERO}):
                # Record the origin of the value.
                when = self.conditions[-1] if self.conditions else ""
                found = frozenset({Value(v.Kind.NULL, place=self.place(node), when=when)})
            self._exits.returned.append(found)
        return None

    def _run_goto_statement(self, node: Node, env: Env) -> State:
        label = self.text(node.named_children[0])
        if self.conditions:
            env = {name: self._under(found) for name, found in env.items()}
        self._exits.labels[label] = join(self._exits.labels.get(label), dict(env))
        return None

    def _under(self, found: Values) -> Values:
        """Return an error that was set before its condition, with that condition."""
        when = self.conditions[-1]
        return frozenset(
            replace(each, when=when)
            if each.kind is v.Kind.ERRNO and not (each.when or each.chain)
            else each
            for each in found
        )

    def _run_if_statement(self, node: Node, env: Env) -> State:
        condition, consequence = parts(node, "condition", "consequence")
        alternative = node.child_by_field_name("alternative")
        yes, no = self.branch(condition, env)
        words = self._why(condition, yes)
        self.conditions.append(words)
        after = self._run(consequence, yes)
        self.conditions[-1] = f"not: {words}"
        if alternative is not None:
            no = self._run(alternative, no)
        self.conditions.pop()
        return join(after, no)

    def _why(self, condition: Node, env: State) -> str:
        """Return the text of a condition, with the call that makes it true, if any."""
        words = self.text(condition).removeprefix("(").removesuffix(")")
        words = words if len(words) <= _LONGEST else f"{words[: _LONGEST - 1]}…"
        causes = []
        for node in descend(condition):
            if node.type == "identifier" and env is not None:
                for value in env.get(self.text(node), ()):
                    if value.kind in (v.Kind.NULL, v.Kind.ERRPTR):
                        causes.append(_cause(value))
        causes = sorted({cause for cause in causes if cause})
        if causes and len(causes) <= _CAUSES:
            return f"`{words}` after {' or '.join(causes)}"
        return f"`{words}`"

    def _run_while_statement(self, node: Node, env: Env) -> State:
        condition, body = parts(node, "condition", "body")
        is_macro = node.start_byte in self.unit.source.loops
        return self._loop(env, None if is_macro else condition, body, condition)

    def _run_for_statement(self, node: Node, env: Env) -> State:
        body = part(node, "body")
        initial, condition, update = (
            node.child_by_field_name(each) for each in ("initializer", "condition", "update")
        )
        if initial is not None:
            if initial.type == "declaration":
                self._run_declaration(initial, env)
            else:
                self.value(initial, env)
        return self._loop(env, condition, body, None, update)

    def _run_do_statement(self, node: Node, env: Env) -> State:
        condition, body = parts(node, "condition", "body")
        # The body once, then like another loop.
        loop = _Loop()
        self._loops.append(loop)
        self._breaks.append(loop)
        after = join(self._run(body, env), loop.again)
        self._loops.pop()
        self._breaks.pop()
        if after is None:
            return loop.leave
        return join(loop.leave, self._loop(after, condition, body, None))

    def _loop(
        self,
        env: Env,
        condition: Node | None,
        body: Node,
        macro: Node | None,
        update: Node | None = None,
    ) -> State:
        """Repeat a loop until the environment is stable.

        :param condition: None if there is none, or if it is a macro's.
        :param macro: the arguments of a macro, which may set each of them.
        """
        start: Env = dict(env)
        leave: State = None
        for turn in range(_ROUNDS):
            before = dict(start)
            loop = _Loop()
            self._loops.append(loop)
            self._breaks.append(loop)
            inside: State = dict(start)
            if macro is not None and condition is None:
                for node in descend(macro):
                    if node.type == "identifier" and inside is not None:
                        name = self.text(node)
                        if name in inside:
                            inside[name] = v.anything(f"`{name}`")
                leave = join(leave, dict(inside or {}))
            elif condition is not None:
                inside, out = self.branch(condition, dict(start))
                leave = join(leave, out)
            after = join(self._run(body, inside), loop.again)
            if update is not None and after is not None:
                self.value(update, after)
            leave = join(leave, loop.leave)
            self._loops.pop()
            self._breaks.pop()
            start = join(start, after) or start
            if start == before:
                break
            if turn == _ROUNDS - 2:
                start = {
                    name: found if found == before.get(name) else v.anything(f"`{name}`")
                    for name, found in start.items()
                }
        return leave

    def _run_switch_statement(self, node: Node, env: Env) -> State:
        condition, body = parts(node, "condition", "body")
        found = self.value(condition, env)
        words = self.text(condition)
        loop = _Loop()
        self._breaks.append(loop)
        cases = [each for each in body.named_children if each.type == "case_statement"]
        labels = [each.child_by_field_name("value") for each in cases]
        known = [self.value(each, env) if each is not None else v.NOTHING for each in labels]
        numbers = [each for each in found if v.is_exact(each)]
        state: State = None
        for case, label, values in zip(cases, labels, known, strict=True):
            if label is not None:
                enters = not found or bool(v.equal(found, values))
            else:
                # Not reachable if each possible value has its own label.
                sure = [one for one in known if len(one) == 1 and v.is_exact(next(iter(one)))]
                taken = [one for one in numbers if any(v.equal(frozenset({one}), x) for x in sure)]
                enters = not found or len(taken) < len(found)
            state = join(state, dict(env)) if enters else state
            value = self.text(label) if label is not None else "default"
            self.conditions.append(f"`{words}` is `{value}`")
            inner = [each for each in case.named_children if each != label]
            state = self._run_all(inner, state)
            self.conditions.pop()
        self._breaks.pop()
        has_default = any(label is None for label in labels)
        sure = [one for one in known if len(one) == 1 and v.is_exact(next(iter(one)))]
        covered = (
            bool(found)
            and len(numbers) == len(found)
            and all(any(v.equal(frozenset({one}), each) for each in sure) for one in numbers)
        )
        if not has_default and not covered:
            state = join(state, dict(env))
        return join(state, loop.leave)

    def _run_case_statement(self, node: Node, env: Env) -> State:
        return self._run_all(node.named_children, env)

    def _run_break_statement(self, _node: Node, env: Env) -> State:
        if self._breaks:
            self._breaks[-1].leave = join(self._breaks[-1].leave, dict(env))
        return None

    def _run_continue_statement(self, _node: Node, env: Env) -> State:
        if self._loops:
            self._loops[-1].again = join(self._loops[-1].again, dict(env))
        return None

    def _run_preproc_ifdef(self, node: Node, env: Env) -> State:
        """Follow both branches: both are valid configurations."""
        skip = [node.child_by_field_name(each) for each in ("name", "condition")]
        other = node.child_by_field_name("alternative")
        inner = [each for each in node.named_children if each not in skip and each != other]
        one = self._run_all(inner, dict(env))
        two = self._run(other, dict(env)) if other is not None else env
        return join(one, two)

    _run_preproc_if = _run_preproc_ifdef
    _run_preproc_elif = _run_preproc_ifdef

    def _run_preproc_else(self, node: Node, env: Env) -> State:
        return self._run_all(node.named_children, env)


def _cause(value: Value) -> str:
    """Return the call that returned NULL or an error; empty without one."""
    if value.kind is v.Kind.ERRPTR:
        return " → ".join(value.chain)
    if value.name:
        return " → ".join((*value.chain, f"{value.name}()"))
    if not value.chain:
        return ""
    _, _, further = value.when.partition(" after ")
    return " → ".join((*value.chain, *([further] if further else [])))


def _has_label(node: Node) -> bool:
    return any(each.type == "labeled_statement" for each in descend(node))
