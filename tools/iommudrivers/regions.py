# SPDX-License-Identifier: GPL-2.0-only
"""The types of reserved regions that a driver can report.

These are the enumerators ``IOMMU_RESV_*`` that the callback, or a function called from it,
uses as a value.  For a copied region, those of all regions made in the driver count.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from tree_sitter import Node

from iommudrivers.model import Region
from iommudrivers.program import Definition, Program, Unit
from iommudrivers.values import Place
from iommuq.queue.csource import descend

_PREFIX = "IOMMU_RESV_"
#: Calls that copy a region with its type.
_COPIES = ("kmemdup",)
#: Calls that make a region; the type is an argument.
_MAKES = ("iommu_alloc_resv_region",)
_ORDER = ("DIRECT", "DIRECT_RELAXABLE", "RESERVED", "MSI", "SW_MSI")


def find(program: Program, unit: Unit, callback: str) -> tuple[tuple[Region, ...], tuple[str, ...]]:
    """Return the types that a callback can report, and the calls that are unknown.

    :param unit: the file that names the callback.
    """
    found: dict[tuple[str, Place], Region] = {}
    unknown: dict[str, None] = {}
    seen: set[tuple[str, str, int]] = set()
    waiting: deque[tuple[Definition, tuple[str, ...]]] = deque()
    starts = program.functions(unit, callback)
    if not starts:
        return (), (f"{callback}() is not among the sources",)
    waiting.extend((each, (callback,)) for each in starts)
    while waiting:
        definition, chain = waiting.popleft()
        other, function = definition.unit, definition.function
        key = (other.path, function.name, function.start)
        if key in seen:
            continue
        seen.add(key)
        for node in _uses(other, function.body):
            _note(found, other, node, chain)
        for call in _calls(function.body):
            name = other.of(call)
            if call.type != "identifier":
                unknown[
                    f"`{other.words(call)}` is a pointer to a function "
                    f"({Place(other.path, other.line(call))})"
                ] = None
                continue
            if name in _COPIES:
                for region in _made_elsewhere(unit, chain):
                    found.setdefault((region.kind, region.place), region)
            waiting.extend((each, (*chain, name)) for each in program.functions(other, name))
    regions = sorted(found.values(), key=_rank)
    return tuple(regions), tuple(unknown)


def _rank(region: Region) -> tuple[int, str, str, int]:
    known = _ORDER.index(region.kind) if region.kind in _ORDER else len(_ORDER)
    return known, region.kind, region.place.path, region.place.line


def _note(
    found: dict[tuple[str, Place], Region], unit: Unit, node: Node, chain: tuple[str, ...]
) -> None:
    kind = unit.of(node).removeprefix(_PREFIX)
    place = Place(unit.path, unit.line(node))
    found.setdefault((kind, place), Region(kind, place, chain))


def _uses(unit: Unit, body: Node) -> Iterator[Node]:
    """Yield the enumerators that a function uses as a value."""
    for node in descend(body):
        if node.type != "identifier" or not unit.of(node).startswith(_PREFIX):
            continue
        if not _is_compared(unit, node):
            yield node


def _is_compared(unit: Unit, node: Node) -> bool:
    parent = node.parent
    while parent is not None and parent.type == "parenthesized_expression":
        node, parent = parent, parent.parent
    if parent is None:
        return False
    if parent.type == "binary_expression":
        operator = parent.child_by_field_name("operator")
        return operator is not None and unit.of(operator) in ("==", "!=", "<", ">", "<=", ">=")
    return parent.type == "case_statement" and parent.child_by_field_name("value") == node


def _calls(body: Node) -> Iterator[Node]:
    for node in descend(body):
        if node.type == "call_expression":
            function = node.child_by_field_name("function")
            if function is not None and function.type in ("identifier", "field_expression"):
                yield function


def _made_elsewhere(unit: Unit, chain: tuple[str, ...]) -> Iterator[Region]:
    """Yield the regions that any function in the file of the driver makes."""
    for function in unit.source.functions:
        for call in _calls(function.body):
            if unit.of(call) not in _MAKES or call.parent is None:
                continue
            for node in descend(call.parent):
                name = unit.of(node)
                if node.type == "identifier" and name.startswith(_PREFIX):
                    place = Place(unit.path, unit.line(node))
                    kind = name.removeprefix(_PREFIX)
                    yield Region(kind, place, (*chain, f"made by {function.name}"))
