# SPDX-License-Identifier: GPL-2.0-only
"""Faults of a patch: each of its hunks reverted, each of its added lines removed.

They are made in the tree with all patches.  A hunk that a later patch changes is superseded.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from tree_sitter import Node

from iommuq.proof.mutants.faults import JUMPS, Edit, Mutant, decode, make_mutant, numbered, sound
from iommuq.queue.csource import Source, changes, descend, is_kernel_source, parse
from iommuq.queue.hunks import Hunk
from iommuq.queue.steps import Step
from iommuq.system.git.objects import Objects

#: One hunk of a patch is reverted.
REVERT = "revert-hunk"
#: One statement that a patch adds is removed, or its condition.
DROP = "drop-line"
OPERATORS = (REVERT, DROP)

_COMPOUND = ("if_statement", "for_statement", "while_statement", "do_statement", "switch_statement")
#: Parts of a statement that need no replacement.
_PARTS = ("else_clause", "case_statement")
# A comment, or a string or character, where no comment can begin.
_COMMENT = re.compile(
    rb"""/\*.*?\*/|//[^\n]*|("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')""", re.DOTALL
)


@dataclass(frozen=True)
class Superseded:
    """A hunk of a patch whose lines a later patch changes.

    :ivar line: its first line in the tree after its patch, from 1.
    """

    patch: str
    path: str
    line: int


@dataclass(frozen=True)
class HunkFaults:
    """The faults of all patches of a queue.

    :ivar texts: the files that the patches change, in the last tree.
    :ivar mutants: in the order of the patches.
    :ivar silent: the number of hunks that change only comments and blanks.
    """

    texts: dict[str, bytes]
    mutants: tuple[Mutant, ...]
    superseded: tuple[Superseded, ...]
    silent: int


def hunk_faults(store: Objects, steps: Sequence[Step]) -> HunkFaults:
    """Find the hunks and lines to remove from each patch, in the tree of the last step.

    :param steps: all steps of the queue, the baseline first.
    """
    files = _Files(store, steps[-1])
    mutants: list[Mutant] = []
    superseded: list[Superseded] = []
    silent = 0
    for before, step in itertools.pairwise(steps):
        hunks = changes(store, before.commit, step.commit)
        hunks = {path: own for path, own in hunks.items() if _is_code(path)}
        later = changes(store, step.commit, files.step.tree, *hunks) if hunks else {}
        for path, own in hunks.items():
            file = files.get(path)
            if file is None:
                superseded += [Superseded(step.label, path, _first(hunk)) for hunk in own]
                continue
            known: set[object] = set()
            for hunk in own:
                line = _place(hunk, later.get(path, ()))
                if line is None:
                    superseded.append(Superseded(step.label, path, _first(hunk)))
                    continue
                mutant = _revert(file, hunk, line, step.label)
                if file.is_silent(mutant):
                    silent += 1
                elif file.is_new(mutant, known):
                    mutants.append(mutant)
            added = _added(own, later.get(path, ()))
            mutants += [one for one in _drops(file, added, step.label) if file.is_new(one, known)]
    return HunkFaults(files.texts, tuple(numbered(mutants)), tuple(superseded), silent)


def _is_code(path: str) -> bool:
    """Return whether a file is C of the kernel, including headers."""
    return is_kernel_source(path.removesuffix(".h") + ".c" if path.endswith(".h") else path)


def _first(hunk: Hunk) -> int:
    return hunk.new_start + (not hunk.after)


def _place(hunk: Hunk, later: Sequence[Hunk]) -> int | None:
    """Return the first line of a hunk (from 1) after *later*; None if they change its lines."""
    first = _first(hunk)
    last = first + len(hunk.after) - 1
    shift = 0
    for change in later:
        # The line of a pure addition is the one before it.
        start = change.start + (not change.before)
        end = change.start + len(change.before) - 1 if change.before else change.start
        if hunk.after:
            inside = start <= last and end >= first
            if not change.before:
                inside = first < start <= last
        elif change.before:
            inside = start < first <= end
        else:
            inside = start == first
        if inside:
            return None
        if end < first:
            shift += len(change.after) - len(change.before)
    return first + shift


def _added(hunks: Sequence[Hunk], later: Sequence[Hunk]) -> frozenset[int]:
    """Return the added lines that later hunks keep, by their numbers in the last tree."""
    found = set()
    for hunk in hunks:
        for number in range(len(hunk.after)):
            one = replace(hunk, after=(b"",), new_start=hunk.new_start + number)
            line = _place(one, later)
            if line is not None:
                found.add(line)
    return frozenset(found)


class _File:
    """A file of the last tree."""

    def __init__(self, path: str, text: bytes) -> None:
        self.path = path
        self.source = parse(text)
        self.text = text
        # The ends of the definitions: mutants are compared by definition.
        ends = [match.end() for match in re.finditer(rb"^}.*\n", text, re.MULTILINE)]
        self._parts = [0, *ends, len(text)]
        # The begin of each line, and the end.
        ends = [match.end() for match in re.finditer(rb"\n", text)]
        self._begin = [0, *ends] if ends and ends[-1] == len(text) else [0, *ends, len(text)]

    def span(self, first: int, count: int) -> tuple[int, int]:
        """Return the range of bytes of *count* lines from line *first*, with line ends."""
        return self._begin[first - 1], self._begin[first - 1 + count]

    def function(self, first: int, last: int) -> str:
        """Return the name of the function that lines are in, or an empty string."""
        found = (f.name for f in self.source.functions if f.start <= last and f.end >= first)
        return next(found, "")

    def _code(self, mutant: Mutant) -> tuple[int, bytes, bytes]:
        """Return the start of a mutant's definition, and its code with and without the fault."""
        edit = mutant.edit
        start = self._parts[bisect.bisect_right(self._parts, edit.start) - 1]
        end = self._parts[bisect.bisect_left(self._parts, edit.end)]
        new = self.text[start : edit.start] + edit.new + self.text[edit.end : end]
        return start, _words(new), _words(self.text[start:end])

    def is_silent(self, mutant: Mutant) -> bool:
        """Return whether a mutant changes only comments and blanks."""
        _, new, old = self._code(mutant)
        return new == old

    def is_new(self, mutant: Mutant, known: set[object]) -> bool:
        """Return whether the code of a mutant is not in *known*, and add it."""
        start, new, old = self._code(mutant)
        if new == old or (start, new) in known:
            return False
        known.add((start, new))
        return True


@dataclass
class _Files:
    """The files of the last tree, read and parsed on demand."""

    store: Objects
    step: Step
    texts: dict[str, bytes] = field(default_factory=dict)
    _files: dict[str, _File | None] = field(default_factory=dict)

    def get(self, path: str) -> _File | None:
        """Return a file; None if the tree lacks it."""
        if path not in self._files:
            text = self.store.read_file(self.step.tree, path)
            self._files[path] = None if text is None else _File(path, text)
            if text is not None:
                self.texts[path] = text
        return self._files[path]


def _words(text: bytes) -> bytes:
    """Return code without comments, and with each run of blanks as one."""
    code = _COMMENT.sub(lambda match: match[1] or b" ", text)
    return b" ".join(code.split())


def _revert(file: _File, hunk: Hunk, line: int, label: str) -> Mutant:
    """Return the mutant that reverts a hunk whose first line is *line*."""
    count = len(hunk.after)
    start, end = file.span(line, count)
    new = _fitted(list(hunk.before), count)
    text = b"".join(each + b"\n" for each in new)
    if not count and line > 1:
        above = file.text[file.span(line - 1, 1)[0] : start].rstrip(b"\n")
        joined = _joined([above, *hunk.before])
        if joined is not None:
            # Appended to the line above, to keep line numbers.
            start, end, text = start - 1, start - 1, joined[len(above) :]
    name = file.function(line, max(line, line + count - 1))
    before, after = decode(b"\n".join(hunk.after)), decode(b"\n".join(hunk.before))
    return Mutant(file.path, name, REVERT, line, before, after, Edit(start, end, text), 1, label)


def _fitted(lines: list[bytes], count: int) -> list[bytes]:
    """Return lines as *count* lines if possible, to keep line numbers."""
    if len(lines) > count > 0:
        joined = _joined(lines[count - 1 :])
        return lines if joined is None else [*lines[: count - 1], joined]
    return lines + [b""] * (count - len(lines))


def _joined(lines: Sequence[bytes]) -> bytes | None:
    """Return lines as one; None if that would change their meaning."""
    if any(each.lstrip().startswith(b"#") or b"//" in each for each in lines):
        return None
    return None if any(each.endswith(b"\\") for each in lines) else b" ".join(lines)


def _drops(file: _File, added: frozenset[int], label: str) -> Iterator[Mutant]:
    """Yield the mutants that remove one statement that a patch adds."""
    edits: dict[Edit, None] = {}
    for function in file.source.functions:
        if added.isdisjoint(range(function.start, function.end + 1)):
            continue
        for node in sound(function.body, []):
            edits |= dict.fromkeys(_without(file.source, node, added))
    for node in _initializers(file.source.root, added):
        comma = node.next_sibling
        stop = comma.end_byte if comma is not None and comma.type == "," else node.end_byte
        edits[Edit(node.start_byte, stop, b"")] = None
    for edit in sorted(edits, key=lambda each: (each.start, each.end)):
        old = file.text[edit.start : edit.end]
        whole = replace(edit, new=edit.new + b"\n" * old.count(b"\n"))
        line = file.source.line(edit.start)
        yield make_mutant(file.source, file.path, file.function(line, line), DROP, whole, label)


def _without(source: Source, node: Node, added: frozenset[int]) -> Iterator[Edit]:
    """Yield the edits that remove a statement, or its condition."""
    if _is_added(node, added):
        has_effect = node.type == "expression_statement" and node.named_children
        if has_effect or node.type in JUMPS or node.type in _COMPOUND:
            yield Edit(node.start_byte, node.end_byte, b"" if _is_in_block(node) else b";")
        elif node.type in _PARTS:
            yield Edit(node.start_byte, node.end_byte, b"")
    if node.type == "if_statement" and node.child_by_field_name("alternative") is None:
        body, condition = (node.child_by_field_name(each) for each in ("consequence", "condition"))
        if body is None or condition is None or condition.has_error:
            return
        head = range(node.start_point[0] + 1, condition.end_point[0] + 2)
        if added.issuperset(head) and source.text[condition.end_byte : body.start_byte].isspace():
            yield Edit(node.start_byte, body.start_byte, b"")


def _is_added(node: Node, added: frozenset[int]) -> bool:
    return added.issuperset(range(node.start_point[0] + 1, node.end_point[0] + 2))


def _is_in_block(node: Node) -> bool:
    """Return whether a statement needs no ; in its place, as it would after a label."""
    before = node.prev_named_sibling
    labelled = before is not None and before.type in ("labeled_statement", "case_statement")
    return node.parent is not None and node.parent.type == "compound_statement" and not labelled


def _initializers(root: Node, added: frozenset[int]) -> Iterator[Node]:
    """Yield the added members in initializers outside of functions."""
    for node in root.children:
        if node.type != "declaration" or node.has_error:
            continue
        if added.isdisjoint(range(node.start_point[0] + 1, node.end_point[0] + 2)):
            continue
        for part in descend(node):
            if part.type == "initializer_pair" and _is_added(part, added):
                yield part
