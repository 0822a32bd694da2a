# SPDX-License-Identifier: GPL-2.0-only
"""Sequences of operations on the simulated IOMMU that are simpler than a given one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

from iommuq.explore.operations import Operation, kinds


def size(operations: Sequence[Operation]) -> tuple[int, int]:
    """Return how many operations there are, and the sum of their values."""
    values = sum(
        value if isinstance(value := getattr(each, name.name), int) else bool(value)
        for each in operations
        for name in fields(each)
        if name.name != "kind"
    )
    return len(operations), values


def simpler(operations: Sequence[Operation]) -> Iterator[Sequence[Operation]]:
    """Yield sequences with one operation less, then with a simpler one."""
    for number in reversed(range(len(operations))):
        yield [*operations[:number], *operations[number + 1 :]]
    yield from _merged(operations)
    yield _renumbered(operations)
    for number, each in enumerate(operations):
        for simpler in _simpler_operation(each):
            yield [*operations[:number], simpler, *operations[number + 1 :]]


def _merged(operations: Sequence[Operation]) -> Iterator[Sequence[Operation]]:
    """Yield sequences in which one device does what another one did, too."""
    devices = [each.dev for each in operations if each.kind == "add"]
    for gone in devices:
        for other in devices:
            if other != gone:
                yield [
                    _with(each, "dev", other) if each.dev == gone else each
                    for each in operations
                    if each.dev != gone or each.kind != "add"
                ]


def _renumbered(operations: Sequence[Operation]) -> Sequence[Operation]:
    """Return the sequence with devices, groups and domains in the order of their first use."""
    names: dict[str, dict[int, int]] = {"dev": {}, "group": {}, "domain": {}}
    found = []
    for each in operations:
        changed = each
        for name, seen in names.items():
            used = name in kinds()[each.kind].fields
            number = seen.setdefault(getattr(each, name), len(seen)) if used else 0
            changed = _with(changed, name, number)
        found.append(changed)
    return found


def _simpler_operation(each: Operation) -> Iterator[Operation]:
    if each.fail_kind:
        yield replace(each, fail_kind="", fail_at=0, fail_errno="")
        if each.fail_at > 1:
            yield replace(each, fail_at=each.fail_at - 1)
    if each.fail_alloc:
        yield replace(each, fail_alloc=0)
    for name in ("a", "b", "c"):
        value = getattr(each, name)
        for bit in range(value.bit_length()):
            if value & 1 << bit:
                yield _with(each, name, value & ~(1 << bit))


def _with(each: Operation, name: str, value: int) -> Operation:
    changed: dict[str, Any] = {name: value}
    return replace(each, **changed)
