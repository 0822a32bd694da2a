# SPDX-License-Identifier: GPL-2.0-only
"""The small faults: each is one edit of a file, at exact bytes that the parser found.

An edit of these never changes how many lines a file has, so that what the compiler notes
of lines elsewhere stays the same: a mutant that means the same gives the same kernel.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from tree_sitter import Node

from iommuq.queue.csource import Function, Source

_LOGIC: Mapping[str, str] = {"&&": "||", "||": "&&"}
_BOUNDS: Mapping[str, str] = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
_ERRNO = re.compile(rb"E[A-Z0-9]+")
#: What holds an error number until it is returned, by the kernel's habit.
_STATUS = (b"ret", b"rc", b"err", b"error", b"status")
#: What a ! may stand before without parentheses.
_ATOMS = ("identifier", "field_expression", "call_expression", "parenthesized_expression")
#: Statements that go somewhere else.
JUMPS = ("return_statement", "goto_statement", "break_statement", "continue_statement")
#: Statements that are looked into even where a part of them cannot be parsed.
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

    :ivar path: the file.
    :ivar operator: what kind of fault, a key of `OPERATORS`.
    :ivar line: the first line that differs, from 1.
    :ivar before: the lines it is in, as they are.
    :ivar after: the same lines with the fault.
    :ivar number: which of those that are alike in all of the above but the line, from 1.
    :ivar patch: the label of the patch that it is taken out of, if it is of one.
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
        """Return the file with the fault in it."""
        return text[: self.edit.start] + self.edit.new + text[self.edit.end :]

    @property
    def diff(self) -> tuple[str, ...]:
        """The lines that go and those that come, marked as in a diff."""
        old, new = (text.split("\n") if text else [] for text in (self.before, self.after))
        if len(old) != len(new):
            return (*(f"-{was}" for was in old), *(f"+{now}" for now in new))
        gone = [f"-{was}" for was, now in zip(old, new, strict=True) if was != now]
        come = [f"+{now}" for was, now in zip(old, new, strict=True) if was != now]
        return (*gone, *come)


@dataclass(frozen=True)
class Found:
    """What there is to try in a function.

    :ivar unparsed: lines where something could not be parsed and was left alone.
    """

    mutants: tuple[Mutant, ...]
    unparsed: tuple[int, ...]


def mutants_of(source: Source, path: str, function: Function) -> Found:
    """Return all mutants of a function, in the order of the file.

    :param path: its file.
    """
    unparsed: list[int] = []
    edits: dict[Edit, str] = {}
    for node in sound(function.body, unparsed):
        for operator, make in OPERATORS.items():
            for edit in make(source, node):
                old = source.text[edit.start : edit.end]
                new = edit.new + b"\n" * (old.count(b"\n") - edit.new.count(b"\n"))
                if new != old:
                    # The first operator that makes an edit gives it its name.
                    edits.setdefault(replace(edit, new=new), operator)
    ordered = sorted(edits.items(), key=lambda item: (item[0].start, item[0].end))
    seen: Counter[tuple[str, str, str]] = Counter()
    mutants = []
    for edit, operator in ordered:
        start, end = source.lines(edit.start, edit.end)
        before = _decode(source.text[start:end])
        after = _decode(source.text[start : edit.start] + edit.new + source.text[edit.end : end])
        seen[operator, before, after] += 1
        line = source.line(edit.start)
        number = seen[operator, before, after]
        mutant = Mutant(path, function.name, operator, line, before, after, edit, number)
        mutants.append(mutant)
    return Found(tuple(mutants), tuple(unparsed))


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace")


def sound(body: Node, unparsed: list[int]) -> Iterator[Node]:
    """Yield the nodes of a function that the parser has understood.

    What has an error in it is left out, and so is what stands next to one: it may be
    only a part of what the compiler sees there.  An outer statement is looked into all
    the same, as long as the error is not its own.
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
    """Return a part of a node, if there is one that could be parsed."""
    part = node.child_by_field_name(field_name)
    return None if part is None or part.has_error else part


def _operator(node: Node, among: Mapping[str, str]) -> Node | None:
    """Return the operator of a binary expression, if it is one of those wanted."""
    if node.type != "binary_expression":
        return None
    operator = _plain(node, "operator")
    return operator if operator is not None and operator.type in among else None


def _operands(node: Node, operator: str) -> list[Node]:
    """Return the operands of a chain of one operator; parentheses make another chain."""
    found: list[Node] = []
    waiting = [node]
    while waiting:
        part = waiting.pop()
        inner = _operator(part, _LOGIC)
        if inner is not None and inner.type == operator:
            sides = (part.child_by_field_name("right"), part.child_by_field_name("left"))
            waiting.extend(side for side in sides if side is not None)
        else:
            found.append(part)
    return found


def _chain(node: Node) -> list[Node]:
    """Return the operands of a chain of && or of || that ends at *node*; none if none does."""
    operator = _operator(node, _LOGIC)
    # A part of a chain is one too, and gives edits that the whole of it gave before.
    return [] if operator is None else _operands(node, operator.type)


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
    """Return what a statement or ``?:`` decides by, without the parentheses around it."""
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
    """Tell whether a statement comes after a label, or where an error was just seen."""
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
    """Tell whether a condition asks for an error, by the kernel's habits."""
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
    # A loop of its own, to declare the variable in one expression with what is there.
    outer = b"for (int mutant_first = 1, mutant_once = 1; mutant_once; mutant_once = 0) "
    if body.type == "compound_statement":
        head = source.text[node.start_byte : body.start_byte + 1]
        skip = b" if (mutant_first) { mutant_first = 0; continue; }"
        yield Edit(node.start_byte, body.start_byte + 1, outer + head + skip)
    else:
        head = source.text[node.start_byte : body.start_byte]
        skip = b"if (mutant_first) mutant_first = 0; else "
        yield Edit(node.start_byte, body.start_byte, outer + head + skip)


#: What each kind of fault is called, and what makes its edits for a node.
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
