# SPDX-License-Identifier: GPL-2.0-only
"""Parse C files of the kernel with tree-sitter; find functions, and those that a queue touches.

Loop macros (``for_each_*``) are replaced by ``while`` and blanks of the same length first.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

import tree_sitter_c
from tree_sitter import Language, Node, Parser

from iommuq.queue.hunks import Hunk, hunks
from iommuq.queue.steps import Step
from iommuq.system.git.objects import Objects

#: The names of loop macros.
_LOOP = re.compile(rb"(?:\w+_)?for_each(?:_\w+)?")
#: After the arguments of a loop a block or a statement begins; after a call, an operator.
_BODY = re.compile(rb"[{A-Za-z_]")
_WHILE = b"while"
#: Directories with C files that are not part of the kernel.
_NOT_KERNEL = ("Documentation/", "samples/", "scripts/", "tools/", "usr/")


@dataclass(frozen=True)
class Function:
    """A function definition.

    :ivar start: its first line, from 1.
    :ivar end: its last line.
    """

    name: str
    start: int
    end: int
    node: Node = field(repr=False, compare=False)

    @property
    def body(self) -> Node:
        """The node of its block."""
        body = self.node.child_by_field_name("body")
        assert body is not None
        return body


@dataclass(frozen=True)
class Source:
    """A parsed C file.

    :ivar functions: its definitions, in order; an ``#ifdef`` may give two of one name.
    :ivar loops: offsets of the loop macros, in bytes.
    """

    text: bytes
    functions: tuple[Function, ...]
    loops: frozenset[int]
    root: Node = field(repr=False, compare=False)

    def of(self, node: Node) -> bytes:
        """Return the text of a node in the file."""
        return self.text[node.start_byte : node.end_byte]

    def line(self, byte: int) -> int:
        """Return the line of the byte at an offset, from 1."""
        return self.text.count(b"\n", 0, byte) + 1

    def lines(self, start: int, end: int) -> tuple[int, int]:
        """Return the offsets where the line of *start* begins and the line of *end* ends."""
        return self.text.rfind(b"\n", 0, start) + 1, (self.text + b"\n").find(b"\n", end)


@cache
def _parser() -> Parser:
    return Parser(Language(tree_sitter_c.language()))


def descend(node: Node) -> Iterator[Node]:
    """Yield a node and all below it, in the order of the file."""
    # No recursion: expressions may be nested to any depth.
    waiting = [node]
    while waiting:
        found = waiting.pop()
        yield found
        waiting.extend(reversed(found.children))


def parse(text: bytes) -> Source:
    """Parse a file.  What cannot be parsed becomes an error node in the tree."""
    root = _parser().parse(text).root_node
    loops = frozenset(_loops(root, text))
    if loops:
        plain = bytearray(text)
        for start in loops:
            match = _LOOP.match(text, start)
            assert match is not None
            plain[start : match.end()] = _WHILE.ljust(match.end() - start)
        root = _parser().parse(bytes(plain)).root_node
    return Source(text, tuple(_functions(root, text)), loops, root)


def _loops(root: Node, text: bytes) -> Iterator[int]:
    """Yield the offsets of loop macros, found by tokens, as their nodes are unreliable."""
    # Not Node.parent, which takes a search from the root: the blocks around are counted here.
    tokens: list[tuple[Node, bool]] = []
    waiting = [(root, False)]
    while waiting:
        node, inside = waiting.pop()
        if not (children := node.children) and not node.is_missing and node.type != "comment":
            tokens.append((node, inside))
        inside = inside or node.type == "compound_statement"
        waiting.extend((child, inside) for child in reversed(children))
    after = _after_parentheses([token for token, _ in tokens])
    for number, (token, inside) in enumerate(tokens):
        if inside and _LOOP.fullmatch(text, token.start_byte, token.end_byte):
            end = after.get(number + 1)
            if end is not None and _BODY.match(text, end.start_byte):
                yield token.start_byte


def _after_parentheses(tokens: Sequence[Node]) -> dict[int, Node]:
    """Return the token after each pair of parentheses, by the number of the opening one."""
    found, opened = {}, []
    for number, token in enumerate(tokens[:-1]):
        if token.type == "(":
            opened.append(number)
        elif token.type == ")" and opened:
            found[opened.pop()] = tokens[number + 1]
    return found


def _functions(root: Node, text: bytes) -> Iterator[Function]:
    for node in descend(root):
        if node.type != "function_definition" or node.child_by_field_name("body") is None:
            continue
        name = _name(node, text)
        if name:
            yield Function(name, node.start_point[0] + 1, node.end_point[0] + 1, node)


def _name(node: Node, text: bytes) -> str:
    inner = node.child_by_field_name("declarator")
    while inner is not None and inner.type != "identifier":
        inner = inner.child_by_field_name("declarator")
    if inner is None:
        return ""
    return text[inner.start_byte : inner.end_byte].decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Touched:
    """A function that patches touch; *patches* are their labels, in the order of the queue."""

    path: str
    name: str
    patches: tuple[str, ...]


def is_kernel_source(path: str) -> bool:
    """Return whether a file is C of the kernel itself, not of a program in its tree."""
    return path.endswith(".c") and not path.startswith(_NOT_KERNEL)


def touched_functions(store: Objects, steps: Sequence[Step]) -> tuple[Touched, ...]:
    """Return the functions that the patches of a queue touch.

    :param steps: all steps of the queue, the baseline first.
    :return: in the order of the first touch; the last tree may lack some of them.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for before, step in itertools.pairwise(steps):
        for path, own in changes(store, before.commit, step.commit).items():
            text = store.read_file(step.commit, path) if is_kernel_source(path) else None
            if text is None:
                continue
            for function in parse(text).functions:
                if not any(_is_touched(function, hunk) for hunk in own):
                    continue
                labels = found.setdefault((path, function.name), [])
                if step.label not in labels:
                    labels.append(step.label)
    return tuple(Touched(path, name, tuple(labels)) for (path, name), labels in found.items())


def changes(store: Objects, before: str, after: str, *paths: str) -> dict[str, list[Hunk]]:
    """Return the hunks between two trees, without context, by path."""
    words = ("diff-tree", "-r", "-p", "-U0", "--no-renames", "--no-color", before, after)
    found: dict[str, list[Hunk]] = {}
    for hunk in hunks(store.git(*words, "--", *paths).output.encode()):
        found.setdefault(hunk.path, []).append(hunk)
    return found


def _is_touched(function: Function, hunk: Hunk) -> bool:
    # The lines around a pure removal must both be in the function.
    changed = range(hunk.new_start, hunk.new_start + (len(hunk.after) or 2))
    own = range(function.start, function.end + 1)
    inside = [line in own for line in (changed[0], changed[-1])]
    return any(inside) or function.start in changed if hunk.after else all(inside)
