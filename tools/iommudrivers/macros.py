# SPDX-License-Identifier: GPL-2.0-only
"""Parse the body of a macro as part of its file."""

from __future__ import annotations

from tree_sitter import Node

from iommudrivers.program import Unit
from iommuq.queue import csource


class Text:
    """The body of a macro, with the names and the line of its file."""

    def __init__(self, unit: Unit, text: bytes, line: int) -> None:
        self._unit = unit
        self._text = text
        self._line = line

    def __getattr__(self, name: str) -> object:
        return getattr(self._unit, name)

    def of(self, node: Node) -> str:
        """Return the text of a node."""
        return self._text[node.start_byte : node.end_byte].decode("utf-8", "backslashreplace")

    def words(self, node: Node) -> str:
        """Return the text of a node in one line."""
        return " ".join(self.of(node).split())

    def line(self, _node: Node) -> int:
        """Return the first line of the macro."""
        return self._line


def as_expression(body: bytes) -> tuple[Node | None, bytes]:
    """Return the node of the body of a macro; None if it is no expression."""
    text = b"int f(void) { return (" + body + b"); }"
    source = csource.parse(text)
    if not source.functions or source.root.has_error:
        return None, text
    for node in csource.descend(source.functions[0].body):
        if node.type == "return_statement" and node.named_children:
            return node.named_children[0], text
    return None, text
