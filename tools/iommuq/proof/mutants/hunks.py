# SPDX-License-Identifier: GPL-2.0-only
"""Faults that are a patch's own: each hunk of it taken back, each line that it adds taken out.

They are made in the tree that has all patches.  What a later patch has changed again is
not there as this one left it, and is told apart: a hunk is *superseded* then.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from tree_sitter import Node

from iommuq.proof.mutants.faults import JUMPS, Edit, Mutant, sound
from iommuq.queue import hunks as unidiff
from iommuq.queue.csource import Source, descend, parse
from iommuq.queue.hunks import Hunk
from iommuq.queue.steps import Step
from iommuq.queue.touched import is_kernel_source
from iommuq.system.git.objects import Store

#: One hunk of a patch is taken back.
REVERT = "revert-hunk"
#: One statement that a patch adds is gone, or what it is conditional on.
DROP = "drop-line"
#: What the faults of this module are called.
OPERATORS = (REVERT, DROP)

#: Statements that consist of others.
_COMPOUND = ("if_statement", "for_statement", "while_statement", "do_statement", "switch_statement")
#: Parts of a statement that leave nothing in their place.
_PARTS = ("else_clause", "case_statement")
# Of C, no more than where a comment is: it ends no string, and no string ends it.
_COMMENT = re.compile(
    rb"""/\*.*?\*/|//[^\n]*|("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')""", re.DOTALL
)


@dataclass(frozen=True)
class Superseded:
    """A hunk whose lines a later patch has changed again.

    :ivar patch: the label of the patch that it is of.
    :ivar line: where it begins in the tree as that patch left it, from 1.
    """

    patch: str
    path: str
    line: int


@dataclass(frozen=True)
class HunkFaults:
    """What there is to take out of the patches of a queue.

    :ivar texts: the files that the patches change, as they are in the end.
    :ivar mutants: in the order of the patches.
    :ivar silent: how many hunks change comments and blanks alone.
    """

    texts: dict[str, bytes]
    mutants: tuple[Mutant, ...]
    superseded: tuple[Superseded, ...]
    silent: int


def hunk_faults(store: Store, steps: Sequence[Step]) -> HunkFaults:
    """Find what can be taken out of each patch of a queue.

    :param store: the objects of the base.
    :param steps: all steps of the queue, the baseline first.
    :return: faults of the last step's tree.
    """
    files = _Files(store, steps[-1])
    mutants: list[Mutant] = []
    superseded: list[Superseded] = []
    silent = 0
    for before, step in itertools.pairwise(steps):
        hunks = [each for each in _diff(store, before.commit, step.commit) if _is_code(each.path)]
        paths = list(dict.fromkeys(hunk.path for hunk in hunks))
        later = _by_path(_diff(store, step.commit, files.step.tree, *paths)) if paths else {}
        for path in paths:
            file = files.get(path)
            own = [hunk for hunk in hunks if hunk.path == path]
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
    return HunkFaults(files.texts, tuple(_numbered(mutants)), tuple(superseded), silent)


def _is_code(path: str) -> bool:
    """Tell whether a file is C of the kernel, headers included."""
    return is_kernel_source(path.removesuffix(".h") + ".c" if path.endswith(".h") else path)


def _diff(store: Store, before: str, after: str, *paths: str) -> Iterator[Hunk]:
    words = ["diff-tree", "-r", "-p", "-U0", "--no-renames", "--no-color", before, after]
    return unidiff.hunks(store.git(*words, "--", *paths).output.encode())


def _by_path(hunks: Iterator[Hunk]) -> dict[str, list[Hunk]]:
    found: dict[str, list[Hunk]] = {}
    for hunk in hunks:
        found.setdefault(hunk.path, []).append(hunk)
    return found


def _first(hunk: Hunk) -> int:
    return hunk.new_start + (not hunk.after)


def _place(hunk: Hunk, later: Sequence[Hunk]) -> int | None:
    """Return where a hunk begins once later ones are applied; None if they change its lines.

    :return: the first of its lines, from 1; if it has none, the one after the place where
        lines were taken out.
    """
    first = _first(hunk)
    last = first + len(hunk.after) - 1
    shift = 0
    for change in later:
        # A change that only adds has the line before it; from here on it is the one after.
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
    """Return the lines that hunks add and that are still there, by their numbers in the end."""
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
        # Where the definitions end: what a fault changes is looked at from one to the next.
        ends = [match.end() for match in re.finditer(rb"^}.*\n", text, re.MULTILINE)]
        self._parts = [0, *ends, len(text)]
        # Where each line begins; one more, for the end.
        ends = [match.end() for match in re.finditer(rb"\n", text)]
        self._begin = [0, *ends] if ends and ends[-1] == len(text) else [0, *ends, len(text)]

    @property
    def text(self) -> bytes:
        """All of it."""
        return self.source.text

    def span(self, first: int, count: int) -> tuple[int, int]:
        """Return the bytes of lines, from 1, the end of the last one included."""
        return self._begin[first - 1], self._begin[first - 1 + count]

    def function(self, first: int, last: int) -> str:
        """Return the name of the function that lines are in, or nothing."""
        for function in self.source.functions:
            if function.start <= last and function.end >= first:
                return function.name
        return ""

    def _code(self, mutant: Mutant) -> tuple[int, bytes, bytes]:
        """Return where the definition begins that a mutant is in, what it is, and was."""
        edit = mutant.edit
        start = self._parts[bisect.bisect_right(self._parts, edit.start) - 1]
        end = self._parts[bisect.bisect_left(self._parts, edit.end)]
        new = self.text[start : edit.start] + edit.new + self.text[edit.end : end]
        return start, _words(new), _words(self.text[start:end])

    def is_silent(self, mutant: Mutant) -> bool:
        """Tell whether a mutant differs in comments and blanks alone."""
        _, new, old = self._code(mutant)
        return new == old

    def is_new(self, mutant: Mutant, known: set[object]) -> bool:
        """Tell whether no mutant before gave the same code, and remember it."""
        start, new, old = self._code(mutant)
        if new == old or (start, new) in known:
            return False
        known.add((start, new))
        return True


@dataclass
class _Files:
    """The files of the last tree, read and parsed when they are asked for."""

    store: Store
    step: Step
    texts: dict[str, bytes] = field(default_factory=dict)
    _files: dict[str, _File | None] = field(default_factory=dict)

    def get(self, path: str) -> _File | None:
        """Return a file; None if it is gone."""
        if path not in self._files:
            text = self.store.read_file(self.step.tree, path)
            self._files[path] = None if text is None else _File(path, text)
            if text is not None:
                self.texts[path] = text
        return self._files[path]


def _words(text: bytes) -> bytes:
    """Return a file without comments, and with one blank for any number of them."""
    code = _COMMENT.sub(lambda match: match[1] or b" ", text)
    return b" ".join(code.split())


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace")


def _revert(file: _File, hunk: Hunk, line: int, label: str) -> Mutant:
    """Take a hunk back whose lines begin at *line*."""
    count = len(hunk.after)
    start, end = file.span(line, count)
    new = _fitted(list(hunk.before), count)
    text = b"".join(each + b"\n" for each in new)
    if not count and line > 1:
        above = file.text[file.span(line - 1, 1)[0] : start].rstrip(b"\n")
        joined = _joined([above, *hunk.before])
        if joined is not None:
            # At the end of the line above: those below stay where they are.
            start, end, text = start - 1, start - 1, joined[len(above) :]
    name = file.function(line, max(line, line + count - 1))
    before, after = _decode(b"\n".join(hunk.after)), _decode(b"\n".join(hunk.before))
    return Mutant(file.path, name, REVERT, line, before, after, Edit(start, end, text), 1, label)


def _fitted(lines: list[bytes], count: int) -> list[bytes]:
    """Return lines as *count* of them, where that can be: the compiler notes line numbers."""
    if len(lines) > count > 0:
        joined = _joined(lines[count - 1 :])
        return lines if joined is None else [*lines[: count - 1], joined]
    return lines + [b""] * (count - len(lines))


def _joined(lines: Sequence[bytes]) -> bytes | None:
    """Return lines as one, None if they would mean something else."""
    if any(each.lstrip().startswith(b"#") or b"//" in each for each in lines):
        return None
    return None if any(each.endswith(b"\\") for each in lines) else b" ".join(lines)


def _drops(file: _File, added: frozenset[int], label: str) -> Iterator[Mutant]:
    """Yield what takes out one statement of those that a patch adds."""
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
        start, end = file.source.lines(edit.start, edit.end)
        after = file.text[start : edit.start] + whole.new + file.text[edit.end : end]
        line = file.source.line(edit.start)
        name = file.function(line, line)
        before = _decode(file.text[start:end])
        yield Mutant(file.path, name, DROP, line, before, _decode(after), whole, 1, label)


def _without(source: Source, node: Node, added: frozenset[int]) -> Iterator[Edit]:
    """Yield what takes a statement out, or its condition."""
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
    """Tell whether a statement can be gone without a trace; a label wants one after it."""
    before = node.prev_named_sibling
    labelled = before is not None and before.type in ("labeled_statement", "case_statement")
    return node.parent is not None and node.parent.type == "compound_statement" and not labelled


def _initializers(root: Node, added: frozenset[int]) -> Iterator[Node]:
    """Yield the members that are set where an object is defined outside of every function."""
    for node in root.children:
        if node.type != "declaration" or node.has_error:
            continue
        if added.isdisjoint(range(node.start_point[0] + 1, node.end_point[0] + 2)):
            continue
        for part in descend(node):
            if part.type == "initializer_pair" and _is_added(part, added):
                yield part


def _numbered(mutants: Sequence[Mutant]) -> Iterator[Mutant]:
    """Yield mutants, with those that look alike told apart by a number."""
    seen: Counter[tuple[str, ...]] = Counter()
    for one in mutants:
        key = one.path, one.function, one.operator, one.before, one.after
        seen[key] += 1
        yield replace(one, number=seen[key])
