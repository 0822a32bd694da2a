# SPDX-License-Identifier: GPL-2.0-only
"""Made cases for the verdict on what is upstream: a patch, a tree, and the truth.

Each case takes one change of those between two versions of a file as the patch, and
makes trees in which the truth about it is known.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from iommuq.queue.model import Patch
from iommuq.queue.upstream.compare.judge import Grade
from iommuq.queue.upstream.patches import judge_patch

_WORD = re.compile(r"\b[A-Za-z_]\w{3,}\b")
_FLIPS = {"==": "!=", "!=": "==", "<=": ">", ">=": "<"}


@dataclass
class Memory:
    """A tree that is nothing but a few files."""

    files: Mapping[str, str]

    def read(self, path: str) -> bytes | None:
        """Return a file."""
        text = self.files.get(path)
        return None if text is None else text.encode()

    def candidates(self, path: str, names: Collection[str], *, missing: bool) -> list[str]:
        """Return the other files that have one of the names."""
        return [
            other
            for other, text in self.files.items()
            if other != path and (missing or set(_WORD.findall(text)) & set(names))
        ]


@dataclass(frozen=True)
class Case:
    """A patch, as the files before and after it, a tree, and whether the patch is in it.

    :ivar truth: at least `Grade.DRIFT` if it is there.
    """

    name: str
    before: Mapping[str, str]
    after: Mapping[str, str]
    target: Mapping[str, str]
    truth: Grade

    @property
    def is_there(self) -> bool:
        """Whether the patch is in the tree."""
        return self.truth >= Grade.DRIFT

    def judge(self) -> Grade:
        """Ask the code."""
        patch = make_patch(self.before, self.after)
        trees = [Memory(files) for files in (self.before, self.after, self.target)]
        return judge_patch(patch, *trees).grade


def make_patch(before: Mapping[str, str], after: Mapping[str, str]) -> Patch:
    """Return the patch from one set of files to another."""
    diff = ""
    for path in sorted({*before, *after}):
        old, new = before.get(path, ""), after.get(path, "")
        if old == new:
            continue
        names = (f"a/{path}" if old else "/dev/null", f"b/{path}" if new else "/dev/null")
        lines = difflib.unified_diff(old.splitlines(), new.splitlines(), *names, lineterm="")
        diff += f"diff --git a/{path} b/{path}\n" + "\n".join(lines) + "\n"
    return Patch(
        "A <a@b>", "0 +0000", "x", "x\n", diff.encode(), 1, (), "", Path("x"), "x", "", "x"
    )


@dataclass
class Measure:
    """What came of a set of cases."""

    there: int = 0
    not_there: int = 0
    false: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, cases: Iterable[Case]) -> Measure:
        """Judge cases and count."""
        measure = cls()
        for case in cases:
            grade = case.judge()
            if case.is_there:
                measure.there += 1
                if grade < Grade.DRIFT:
                    measure.missed.append(f"{case.name}: {grade.words}")
            else:
                measure.not_there += 1
                if grade >= Grade.DRIFT:
                    measure.false.append(f"{case.name}: {grade.words}")
        return measure

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f"false present: {len(self.false)} of {self.not_there}"
            f" ({len(self.false) / max(1, self.not_there):.1%}),"
            f" missed: {len(self.missed)} of {self.there}"
            f" ({len(self.missed) / max(1, self.there):.1%})"
        )


class Versions:
    """Two versions of a file, and the changes between them."""

    def __init__(self, path: str, old: str, new: str) -> None:
        self.path = path
        self.old = old.splitlines()
        self.new = new.splitlines()
        matcher = difflib.SequenceMatcher(None, self.old, self.new, autojunk=False)
        self.changes = [op[1:] for op in matcher.get_opcodes() if op[0] != "equal"]

    def text(self, numbers: Collection[int], edited: Mapping[int, list[str]] | None = None) -> str:
        """Return the old version with some of the changes.

        :param edited: what to put in place of what a change brings.
        """
        out: list[str] = []
        at = 0
        for number, (i1, i2, j1, j2) in enumerate(self.changes):
            out += self.old[at:i1]
            if number in numbers:
                out += (edited or {}).get(number, self.new[j1:j2])
            else:
                out += self.old[i1:i2]
            at = i2
        return "\n".join(out + self.old[at:]) + "\n"

    def brings(self, number: int) -> list[str]:
        """Return the lines that a change brings."""
        return self.new[self.changes[number][2] : self.changes[number][3]]

    def takes(self, number: int) -> list[str]:
        """Return the lines that a change takes away."""
        return self.old[self.changes[number][0] : self.changes[number][1]]

    def _is_whole(self, number: int) -> bool:
        """Tell whether what a change brings are statements, and no comment is in them."""
        first, end = self.changes[number][2:]
        text = "\n".join(self.new[first:end])
        before = next((line for line in reversed(self.new[:first]) if line.strip()), ";")
        if re.search(r"/\*|\*/|^\s*#", text, re.MULTILINE) or text.count("{") != text.count("}"):
            return False
        return before.rstrip().endswith((";", "}", "{"))

    def cases(self, number: int) -> Iterator[Case]:
        """Yield what can be made of one change."""
        everything = set(range(len(self.changes)))
        before, after = self.text(()), self.text({number})
        lines = self.brings(number)

        def case(name: str, target: str, truth: Grade) -> Case:
            old, new, there = ({self.path: text} for text in (before, after, target))
            return Case(f"{self.path} change {number} {name}", old, new, there, truth)

        def edited(new: list[str]) -> str:
            return self.text(everything, {number: new})

        yield case("alone", after, Grade.PRESENT)
        yield case("and others", self.text(everything), Grade.PRESENT)
        yield case("not there", before, Grade.ABSENT)
        yield case("only others", self.text(everything - {number}), Grade.ABSENT)
        code = [line for line in lines if _is_code(line)]
        if code:
            yield case("laid out anew", edited(_reflow(lines)), Grade.DRIFT)
        if code and self.path.endswith((".c", ".h")) and self._is_whole(number):
            yield case("as a comment", edited(["/*", *lines, "*/"]), Grade.ABSENT)
            yield case("under #if 0", edited(["#if 0", *lines, "#endif"]), Grade.ABSENT)
        known = set(_WORD.findall(before))
        names = {name for line in code for name in _WORD.findall(_bare(line))} - known
        later = "\n".join(self.new)
        if names and sum(len(_WORD.findall(_bare(line))) for line in code) > 3 * len(names):
            pattern = re.compile(rf"\b({'|'.join(sorted(names))})\b")
            yield case("renamed", pattern.sub(r"\1_x", later) + "\n", Grade.DRIFT)
        if len(code) >= 4 and not self.takes(number):
            half = [line for at, line in enumerate(lines) if at < len(lines) // 2]
            yield case("half of it", edited(half), Grade.PARTLY)
        flipped = _flip(lines)
        if flipped is not None and len(code) <= 6:
            yield case("contrary", edited(flipped), Grade.ABSENT)


def _bare(line: str) -> str:
    return re.sub(r'"(?:\\.|[^"\\])*"|/\*.*|//.*', "", line)


def _is_code(line: str) -> bool:
    text = _bare(line).strip()
    return bool(re.search(r"\w{3,}", text)) and not text.startswith("*")


def _reflow(lines: list[str]) -> list[str]:
    """Break lines after commas and indent by blanks, which means nothing in C."""
    if any(line.lstrip().startswith("#") or line.endswith("\\") for line in lines):
        return [line.replace("\t", "    ") for line in lines]
    out: list[str] = []
    for line in lines:
        if '"' in line or "*" in line.split(None, 1)[:1] or "/*" in line:
            out.append(line)
        else:
            out += re.sub(r", ", ",\n", line).replace("\t", "  ").split("\n")
    return out


def _flip(lines: list[str]) -> list[str] | None:
    """Turn the first condition into its contrary."""
    for at, line in enumerate(lines):
        if not re.match(r"\s*(?:if|while|return)\b", line):
            continue
        match = re.search(r"[=!<>]=", line)
        if match:
            new = line[: match.start()] + _FLIPS[match[0]] + line[match.end() :]
        elif re.search(r"!\w", line):
            new = re.sub(r"!(?=\w)", "", line, count=1)
        elif re.match(r"\s*if \(\w", line):
            new = re.sub(r"if \(", "if (!", line, count=1)
        else:
            continue
        return [*lines[:at], new, *lines[at + 1 :]]
    return None
