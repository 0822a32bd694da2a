# SPDX-License-Identifier: GPL-2.0-only
"""A run as KTAP for kunit.py: the statuses, not the verdicts.

Suites are nested in steps and lanes if there are several.  kunit.py takes ERROR as a failure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from iommuq.report.view import visible
from iommuq.results.known import Verdict
from iommuq.results.runs.model import CommandRun, State, Test
from iommuq.results.store import Status

#: Lines of a message in the diagnostics.
_LINES = 40


@dataclass
class _Node:
    """A group of the document, or a test if it has one."""

    name: str
    test: Test | None = None
    missing: str = ""
    inner: dict[str, _Node] = field(default_factory=dict)

    @property
    def status(self) -> Status:
        """Status of the test; a group fails if a test does, and is skipped if all are."""
        if self.missing:
            return Status.ERROR
        if self.test is not None:
            return self.test.status
        found = {node.status for node in self.inner.values()}
        for status in (Status.FAIL, Status.ERROR, Status.PASS):
            if status in found:
                return status
        return Status.SKIP


def to_ktap(record: CommandRun) -> str:
    """Return a run as KTAP."""
    root = _Node("")
    steps, lanes = len(record.steps) > 1, len(record.lanes) > 1
    for cell in record.cells:
        words = [cell.step] * steps + [cell.lane] * lanes
        inside = root
        for word in words:
            inside = inside.inner.setdefault(word, _Node(word))
        if cell.failure:
            test = Test("builds", Status.FAIL, Verdict.FAILED, message=cell.failure)
            inside.inner["builds"] = _Node("builds", test)
        elif not cell.tests:
            name = f"has_results.{len(inside.inner)}"
            inside.inner[name] = _Node(name, missing="no results: the run was killed")
        for test in cell.tests:
            suite, _, case = test.name.partition(".")
            group = inside.inner.setdefault(suite, _Node(suite))
            # Names must be unique.
            key = case or suite
            while key in group.inner:
                key += "'"
            group.inner[key] = _Node(case or suite, test)
    if record.state is not State.FINISHED or record.head.error or not root.inner:
        name = "run_is_complete"
        root.inner[name] = _Node(name, missing="the run did not finish")
    return "\n".join(_document(list(root.inner.values()), "")) + "\n"


def _document(nodes: Sequence[_Node], indent: str) -> Iterator[str]:
    yield f"{indent}KTAP version 1"
    yield f"{indent}1..{len(nodes)}"
    yield from _results(nodes, indent)


def _results(nodes: Sequence[_Node], indent: str) -> Iterator[str]:
    for number, node in enumerate(nodes, 1):
        name = _name(node.name)
        if node.inner:
            deeper = indent + "    "
            yield f"{deeper}KTAP version 1"
            yield f"{deeper}# Subtest: {name}"
            yield f"{deeper}1..{len(node.inner)}"
            yield from _results(list(node.inner.values()), deeper)
        elif node.test is not None:
            yield from _notes(node.test, indent)
        yield f"{indent}{_result(node, number, name)}"


def _result(node: _Node, number: int, name: str) -> str:
    first = "" if node.test is None else node.test.message.strip().partition("\n")[0]
    reason = visible(node.missing or first).replace("#", "\\x23")
    match node.status:
        case Status.PASS:
            return f"ok {number} {name}"
        case Status.FAIL:
            return f"not ok {number} {name}"
        case Status.SKIP:
            return f"ok {number} {name} # SKIP {'' if node.inner else reason}".rstrip()
        case Status.ERROR:
            return f"not ok {number} {name} # ERROR {reason}".rstrip()


def _notes(test: Test, indent: str) -> Iterator[str]:
    lines = test.message.splitlines()
    if test.known is not None:
        lines.append(f"known failure until {test.known.expires}: {test.known.link}")
    if test.answer:
        lines.append(test.answer)
    if test.status is Status.PASS and not lines:
        return
    for line in lines[:_LINES]:
        yield f"{indent}# {visible(line.strip().lstrip('#').strip())}".rstrip()
    if len(lines) > _LINES:
        yield f"{indent}# … {len(lines) - _LINES} more lines"
    if test.log:
        yield f"{indent}# full log: {visible(test.log)}"


def _name(name: str) -> str:
    # A '#' would start a directive.
    return visible(name).replace("#", "\\x23").strip() or "unnamed"
