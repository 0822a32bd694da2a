# SPDX-License-Identifier: GPL-2.0-only
"""The small faults: each is one edit of a file, at a node of the parser.

Edits keep the number of lines, so that an equivalent mutant gives the same kernel.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from tree_sitter import Node

from iommuq.queue.csource import Function, Source

_LOGIC: Mapping[str, str] = {"&&": "||", "||": "&&"}
_BOUNDS: Mapping[str, str] = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
_ERRNO = re.compile(rb"E[A-Z0-9]+")
#: Usual names of variables that hold an error number.
_STATUS = (b"ret", b"rc", b"err", b"error", b"status")
#: Expressions that need no parentheses after a !.
_ATOMS = ("identifier", "field_expression", "call_expression", "parenthesized_expression")
JUMPS = ("return_statement", "goto_statement", "break_statement", "continue_statement")
#: Statements that are searched even if a part of them cannot be parsed.
_OUTER = (
    "compound_statement", "if_statement", "else_clause", "while_statement", "for_statement",
    "do_statement", "switch_statement", "case_statement", "labeled_statement",
    "preproc_if", "preproc_ifdef", "preproc_else", "preproc_elif",
)  # fmt: skip


@dataclass(frozen=True)
class Edit:
    """A replacement of the bytes from *start* up to *end*."""

    start: int
    end: int
    new: bytes


@dataclass(frozen=True)
class Mutant:
    """One fault in one place.

    :ivar operator: the kind of fault, a key of `OPERATORS`.
    :ivar line: the first line that differs, from 1.
    :ivar before: the lines without the fault.
    :ivar after: the same lines with the fault.
    :ivar number: numbers the mutants that differ only in their line, from 1.
    :ivar patch: the label of the patch that it removes a part of; or empty.
    """

    path: str
    function: str
    operator: str
    line: int
    before: str
    after: str
    edit: Edit = field(repr=False)
    number: int = 1
    patch: str = ""

    def apply(self, text: bytes) -> bytes:
        """Return the file with the fault."""
        return text[: self.edit.start] + self.edit.new + text[self.edit.end :]

    @property
    def diff(self) -> tuple[str, ...]:
        """The removed and the added lines, marked as in a diff."""
        old, new = (text.split("\n") if text else [] for text in (self.before, self.after))
        if len(old) == len(new):
            pairs = [(was, now) for was, now in zip(old, new, strict=True) if was != now]
            old, new = [was for was, _ in pairs], [now for _, now in pairs]
        return (*(f"-{was}" for was in old), *(f"+{now}" for now in new))


@dataclass(frozen=True)
class Found:
    """The mutants of a function, and the lines that could not be parsed."""

    mutants: tuple[Mutant, ...]
    unparsed: tuple[int, ...]


def mutants_of(source: Source, path: str, function: Function) -> Found:
    """Return all mutants of a function of the file *path*, in order."""
    unparsed: list[int] = []
    edits: dict[Edit, str] = {}
    for node in sound(function.body, unparsed):
        for operator, make in OPERATORS.items():
            for edit in make(source, node):
                old = source.text[edit.start : edit.end]
                new = edit.new + b"\n" * (old.count(b"\n") - edit.new.count(b"\n"))
                if new != old:
                    # An edit belongs to the first operator that makes it.
                    edits.setdefault(replace(edit, new=new), operator)
    ordered = sorted(edits.items(), key=lambda item: (item[0].start, item[0].end))
    mutants = [make_mutant(source, path, function.name, name, edit) for edit, name in ordered]
    return Found(tuple(numbered(mutants)), tuple(unparsed))


def make_mutant(
    source: Source, path: str, function: str, operator: str, edit: Edit, patch: str = ""
) -> Mutant:
    """Return the mutant of an edit, with the whole lines around it."""
    start, end = source.lines(edit.start, edit.end)
    before = decode(source.text[start:end])
    after = decode(source.text[start : edit.start] + edit.new + source.text[edit.end : end])
    line = source.line(edit.start)
    return Mutant(path, function, operator, line, before, after, edit, patch=patch)


def numbered(mutants: Iterable[Mutant]) -> Iterator[Mutant]:
    """Yield mutants, and number those that differ only in their line."""
    seen: Counter[tuple[str, ...]] = Counter()
    for one in mutants:
        key = one.path, one.function, one.operator, one.before, one.after
        seen[key] += 1
        yield replace(one, number=seen[key])


def decode(text: bytes) -> str:
    """Return source code as text."""
    return text.decode("utf-8", "backslashreplace")


def sound(body: Node, unparsed: list[int]) -> Iterator[Node]:
    """Yield the nodes of a function without errors and without neighbours with errors.

    An outer statement is searched unless the error is its own.
    """
    waiting = [body]
    while waiting:
        node = waiting.pop()
        bad = [child.is_error or child.is_missing for child in node.children]
        if node.has_error and (node.type not in _OUTER or node.is_error):
            unparsed.append(node.start_point[0] + 1)
            continue
        unparsed += [
            child.start_point[0] + 1
            for child, is_bad in zip(node.children, bad, strict=True)
            if is_bad
        ]
        if not any(bad):
            yield node
        elif node.type != "compound_statement":
            continue
        near = [any(bad[max(0, number - 1) : number + 2]) for number in range(len(bad))]
        kept = [child for child, skip in zip(node.children, near, strict=True) if not skip]
        waiting.extend(reversed(kept))


def _plain(node: Node, field_name: str) -> Node | None:
    """Return a part of a node; None if it is missing or has an error."""
    part = node.child_by_field_name(field_name)
    return None if part is None or part.has_error else part


def _operator(node: Node, among: Mapping[str, str]) -> Node | None:
    """Return the operator of a binary expression, if it is in *among*."""
    if node.type != "binary_expression":
        return None
    operator = _plain(node, "operator")
    return operator if operator is not None and operator.type in among else None


def _chain(node: Node) -> list[Node]:
    """Return the operands of a chain of && or of || at *node*; empty if there is none."""
    operator = _operator(node, _LOGIC)
    found: list[Node] = []
    waiting = [] if operator is None else [node]
    while waiting:
        part = waiting.pop()
        inner = _operator(part, _LOGIC)
        if inner is not None and operator is not None and inner.type == operator.type:
            sides = (part.child_by_field_name("right"), part.child_by_field_name("left"))
            waiting.extend(side for side in sides if side is not None)
        else:
            found.append(part)
    return found


def _drop_condition(_source: Source, node: Node) -> Iterator[Edit]:
    operands = _chain(node)
    for number, operand in enumerate(operands):
        if number == 0:
            yield Edit(operand.start_byte, operands[1].start_byte, b"")
        else:
            yield Edit(operands[number - 1].end_byte, operand.end_byte, b"")


def _swap_logic(_source: Source, node: Node) -> Iterator[Edit]:
    operator = _operator(node, _LOGIC)
    if operator is not None:
        yield Edit(operator.start_byte, operator.end_byte, _LOGIC[operator.type].encode())


def _negate(source: Source, node: Node) -> Iterator[Edit]:
    conditions = _chain(node)
    condition = _condition(source, node)
    if condition is not None:
        conditions.append(condition)
    for part in conditions:
        text = source.of(part)
        inner = part.child_by_field_name("argument")
        if part.type == "unary_expression" and text.startswith(b"!") and inner is not None:
            new = source.of(inner)
        elif part.type in _ATOMS:
            new = b"!" + text
        else:
            new = b"!(" + text + b")"
        yield Edit(part.start_byte, part.end_byte, new)


def _condition(source: Source, node: Node) -> Node | None:
    """Return the condition of a statement or of ``?:``, without parentheses."""
    if node.start_byte in source.loops:
        return None
    condition = _plain(node, "condition")
    if node.type == "switch_statement" or condition is None:
        return None
    if condition.type == "parenthesized_expression":
        inner = [child for child in condition.named_children if child.type != "comment"]
        return inner[0] if len(inner) == 1 else None
    return condition


def _skip_put_back(source: Source, node: Node) -> Iterator[Edit]:
    expression = node.named_children[0] if node.named_children else None
    if node.type != "expression_statement" or expression is None:
        return
    if expression.type == "call_expression" and _is_error_path(source, node):
        yield Edit(node.start_byte, node.end_byte, b";")


def _is_error_path(source: Source, node: Node) -> bool:
    """Return whether a statement comes after a label, or in the branch of an error."""
    while (parent := node.parent) is not None and parent.type != "function_definition":
        if parent.type == "labeled_statement":
            return True
        if parent.type == "if_statement" and node == parent.child_by_field_name("consequence"):
            condition = _condition(source, parent)
            if condition is not None and _is_error(source, condition):
                return True
        before = node.prev_named_sibling
        while before is not None and parent.type == "compound_statement":
            if before.type == "labeled_statement":
                return True
            before = before.prev_named_sibling
        node = parent
    return False


def _is_error(source: Source, condition: Node) -> bool:
    """Return whether a condition looks like a check for an error."""
    if condition.type == "unary_expression":
        return source.of(condition).startswith(b"!")
    if condition.type == "binary_expression":
        left = condition.child_by_field_name("left")
        return left is not None and source.of(left) in _STATUS
    text = source.of(condition)
    return text in _STATUS or text.startswith((b"IS_ERR(", b"IS_ERR_OR_NULL("))


def _skip_statement(_source: Source, node: Node) -> Iterator[Edit]:
    has_effect = node.type == "expression_statement" and node.named_children
    if has_effect or node.type in JUMPS:
        yield Edit(node.start_byte, node.end_byte, b";")


def _wrong_errno(source: Source, node: Node) -> Iterator[Edit]:
    if node.type == "return_statement" and len(node.named_children) == 1:
        value = node.named_children[0]
        if source.of(value) in _STATUS:
            yield Edit(value.start_byte, value.end_byte, b"0")
    argument = _plain(node, "argument")
    if node.type != "unary_expression" or argument is None or argument.type != "identifier":
        return
    name = source.of(argument)
    if source.of(node).startswith(b"-") and _ERRNO.fullmatch(name):
        other = b"EINVAL" if name == b"EPERM" else b"EPERM"
        yield Edit(argument.start_byte, argument.end_byte, other)
        yield Edit(node.start_byte, node.end_byte, b"0")


def _off_by_one(_source: Source, node: Node) -> Iterator[Edit]:
    operator = _operator(node, _BOUNDS)
    if operator is not None:
        yield Edit(operator.start_byte, operator.end_byte, _BOUNDS[operator.type].encode())


def _skip_first(source: Source, node: Node) -> Iterator[Edit]:
    if node.type != "for_statement" and node.start_byte not in source.loops:
        return
    body = node.child_by_field_name("body")
    if body is None or node.type not in ("for_statement", "while_statement"):
        return
    # An outer loop, to declare the variable in the same statement.
    outer = b"for (int mutant_first = 1, mutant_once = 1; mutant_once; mutant_once = 0) "
    end, skip = body.start_byte, b"if (mutant_first) mutant_first = 0; else "
    if body.type == "compound_statement":
        end, skip = end + 1, b" if (mutant_first) { mutant_first = 0; continue; }"
    yield Edit(node.start_byte, end, outer + source.text[node.start_byte : end] + skip)


#: The kinds of faults, and the functions that make their edits for a node.
OPERATORS: Mapping[str, Callable[[Source, Node], Iterator[Edit]]] = {
    "drop-condition": _drop_condition,
    "swap-logic": _swap_logic,
    "negate": _negate,
    "skip-put-back": _skip_put_back,
    "skip-statement": _skip_statement,
    "wrong-errno": _wrong_errno,
    "off-by-one": _off_by_one,
    "skip-first": _skip_first,
}
