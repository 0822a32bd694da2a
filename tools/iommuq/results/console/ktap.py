# SPDX-License-Identifier: GPL-2.0-only
"""Parse KTAP (Documentation/dev-tools/ktap.rst) and TAP in a console log, complete or not.

A fault of the log becomes a problem, a planned test without a result an error."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import count, islice

from iommuq.results.console import ktaplines
from iommuq.results.console.ktaplines import Notes
from iommuq.results.store import Status
from iommuq.system.logtext import clean_line, split_stamp

#: Largest number of cases without a result that are listed one by one, of all groups.
MISSING_CASES = 200
#: Largest number of groups in each other, and of characters of a name: each case has all names.
DEPTH, NAME = 8, 160
#: Largest number of problems in a report.
MAX_PROBLEMS = 100


@dataclass(frozen=True)
class Case:
    """A test without subtests.

    :ivar name: names from the outermost suite inwards, joined with dots.
    :ivar message: the reason of a skip or an error, and diagnostics of the case.
    :ivar duration: in seconds; None: unknown.
    :ivar crashed: the kernel probably died in it.
    :ivar first: number of the first line that may belong to it, from 1.
    :ivar last: number of the last line.
    """

    name: str
    status: Status
    message: str = ""
    duration: float | None = None
    crashed: bool = False
    first: int = 0
    last: int = 0


@dataclass(frozen=True)
class Report:
    """The content of a log: cases in its order, and faults of the log itself."""

    tests: tuple[Case, ...]
    problems: tuple[str, ...]

    def count(self, status: Status) -> int:
        """Return the number of cases with *status*."""
        return sum(case.status is status for case in self.tests)


def parse(lines: Iterable[str]) -> Report:
    """Return the results in a console log; raises nothing.

    ``not ok … # TODO`` and XFAIL are skips, TIMEOUT and ERROR are errors.
    """
    parser = _Parser()
    for number, line in enumerate(lines, 1):
        parser.feed(number, clean_line(line))
    parser.close()
    return Report(tuple(_unique(parser.cases)), tuple(parser.problems))


@dataclass
class _Group:
    """A test with subtests, from its header to its result line.

    :ivar first: number of its first line.
    :ivar seen: number of its tests with a result.
    :ivar number: the number in the last result.
    """

    indent: int
    name: str
    first: int
    plan: int | None = None
    skip: str | None = None
    seen: int = 0
    number: int = 0
    numbers: set[int] = field(default_factory=set)
    last_name: str = ""
    cases: list[Case] = field(default_factory=list)

    @property
    def fresh(self) -> bool:
        """Whether there was only the header."""
        return self.plan is None and self.seen == 0

    def count(self, number: int, name: str) -> None:
        """Count one test."""
        self.seen += 1
        self.number = number
        self.numbers.add(number)
        self.last_name = name

    def missing(self, most: int) -> list[str]:
        """Return names, ``#3``, for planned tests without a result.

        :param most: largest number that are listed one by one.
        """
        lacking = (self.plan or 0) - self.seen
        if lacking <= 0:
            return []
        absent = (number for number in count(1) if number not in self.numbers)
        names = [f"#{number}" for number in islice(absent, min(lacking, most))]
        if lacking > most:
            names.append(f"#{next(absent)} to #{self.plan}")
        return names


class _Parser:
    """The state between two lines of a log."""

    def __init__(self) -> None:
        self.cases: list[Case] = []
        self.problems: list[str] = []
        self._line = 0
        # The open groups, the document first; empty before the first document.
        self._stack: list[_Group] = []
        # Of the version line: whether it has a time stamp, and the text before it.
        self._stamped = False
        self._prefix = ""
        # The last result's line and time, and the notes after it.
        self._mark = 0
        self._mark_time: float | None = None
        self._notes = Notes()
        # Whether the case after the last result has been reported as lost.
        self._broken = False
        self._ended = False
        self._panicked = False
        # Number of cases without a result that may still be listed.
        self._left = MISSING_CASES

    def feed(self, number: int, line: str) -> None:
        """Process one clean line."""
        self._line = number
        if self._ended:
            return
        stamp, text = split_stamp(line)
        text = text.rstrip()
        if match := ktaplines.EXECUTOR.search(text):
            self._problem(f"kunit executor: {match[1]}")
        version = ktaplines.VERSION.search(text)
        if version is not None and self._starts_document(version, stamp):
            self._start(version, stamp)
        elif self._stack:
            body = self._body(stamp, text)
            bare = (text if body is None else body).lstrip()
            if ktaplines.END.match(bare):
                self._ended = True
                self._panicked = bare.startswith(ktaplines.PANIC)
            elif body is not None:
                indent = len(body[: len(body) - len(bare)].expandtabs(4))
                self._take(stamp, indent, bare)

    def close(self) -> None:
        """Process the end of the log."""
        if not self._stack:
            self._problem("no KTAP in the log")
            return
        group = self._stack[-1]
        complete = len(self._stack) == 1 and group.seen >= (group.plan or 0)
        if not complete and not self._ended and group.cases and group.cases[-1].last == self._line:
            message = "the log ends with this result, which may be cut short"
            group.cases[-1] = replace(group.cases[-1], status=Status.ERROR, message=message)
        self._finish_document()

    def _starts_document(self, version: re.Match[str], stamp: float | None) -> bool:
        """Return whether this is the first line of a document, not the header of a subtest."""
        before = version.string[: version.start()]
        if "#" in before:
            # run_kselftest.sh puts "# " before the output of a program.
            return False
        if not self._stack:
            return True
        root = self._stack[0]
        at_root = len(self._stack) == 1
        if (stamp is not None) != self._stamped:
            # Tests of the kernel, then of a program, on one console.
            return at_root and (root.plan is None or root.seen >= root.plan)
        return before == self._prefix and not (at_root and root.fresh)

    def _start(self, version: re.Match[str], stamp: float | None) -> None:
        if self._stack:
            self._finish_document()
        self._stamped = stamp is not None
        self._prefix = version.string[: version.start()]
        self._stack = [_Group(0, "", self._line)]
        self._reset(stamp)
        self._check_version(version)

    def _body(self, stamp: float | None, text: str) -> str | None:
        """Return a line without the document's prefix; None: not a line of the document."""
        if (stamp is not None) != self._stamped:
            return None
        head, body = text[: len(self._prefix)], text[len(self._prefix) :]
        # A prefix may contain a time, so only its length is constant.
        return None if head.strip() and not self._prefix.strip() else body

    def _take(self, stamp: float | None, indent: int, text: str) -> None:
        if match := ktaplines.VERSION.match(text):
            self._check_version(match)
            self._open(indent, "")
        elif match := ktaplines.SUBTEST.match(text):
            self._open(indent, match[1].strip()[:NAME])
        elif match := ktaplines.PLAN.match(text):
            self._plan(indent, int(match[1]), match[2] or "")
        elif match := ktaplines.RESULT.match(text):
            self._result(stamp, indent, match)
        else:
            self._notes.add(indent, text)

    def _check_version(self, version: re.Match[str]) -> None:
        if int(version[2]) not in ktaplines.VERSIONS[version[1]]:
            self._problem(f"{version[0]} is unknown")

    def _open(self, indent: int, name: str) -> None:
        """Begin a group, or name the group of the version line before."""
        top = self._stack[-1]
        if indent == 0:
            # The document repeats its header.
            return
        if indent == top.indent and top.fresh and not top.name:
            top.name = name
            return
        while self._stack[-1].indent >= indent:
            self._lose()
        self._push(_Group(indent, name, self._mark + 1))
        self._broken = False

    def _push(self, group: _Group) -> None:
        if len(self._stack) > DEPTH:
            self._problem(f"more than {DEPTH} groups in each other")
            self._lose()
        self._stack.append(group)

    def _plan(self, indent: int, planned: int, comment: str) -> None:
        group = next((group for group in self._stack if group.indent == indent), None)
        if group is None or group.plan is not None:
            self._problem(f"plan 1..{planned} belongs to no test")
            return
        group.plan = planned
        # A kselftest program that cannot run prints a plan with SKIP.
        group.skip = ktaplines.skipped_plan(comment)

    def _result(self, stamp: float | None, indent: int, match: re.Match[str]) -> None:
        number = int(match[2])
        status, name, reason = ktaplines.outcome(match)
        name = name[:NAME]
        inner = self._close_inner(indent, name)
        group = self._stack[-1]
        if number != group.number + 1:
            self._problem(f"{self._path()}: expected number {group.number + 1}, found {number}")
        group.count(number, name)
        if inner is None:
            message, duration = self._notes.message(reason), self._duration(stamp)
            lines = (self._mark + 1, self._line)
            group.cases.append(Case(name, status, message, duration, False, *lines))
        else:
            inner.name = name
            self._finish_group(inner, status, reason)
        self._reset(stamp)

    def _close_inner(self, indent: int, name: str) -> _Group | None:
        """Close all groups indented more than *indent*; return the group of the result *name*."""
        top = self._stack[-1]
        if indent > top.indent and len(self._stack) > 1 and not (top.name or top.seen):
            # Its header is indented less than its tests; kunit_parser.py accepts that, too.
            top.indent = indent
        if indent > top.indent:
            # Its header was lost.
            self._push(_Group(indent, "", self._mark + 1))
        while self._stack[-1].indent > indent:
            if self._stack[-2].indent <= indent and self._stack[-1].name in ("", name):
                return self._stack.pop()
            self._lose()
        return None

    def _reset(self, stamp: float | None) -> None:
        self._mark = self._line
        self._mark_time = stamp
        self._notes.clear()
        self._broken = False

    def _duration(self, stamp: float | None) -> float | None:
        """Return the duration in the notes, or else since the last result, in seconds."""
        told = self._notes.duration
        if told is not None or stamp is None or self._mark_time is None:
            return told
        return max(0.0, round(stamp - self._mark_time, 6))

    def _finish_group(self, group: _Group, status: Status, reason: str) -> None:
        """Move the cases of a group with a result to the group around it."""
        where = self._path(group)
        own = Case("", status, self._notes.message(reason), first=self._mark + 1, last=self._line)
        self._check_plan(group, where)
        failed = [case for case in group.cases if case.status is Status.FAIL]
        if not group.cases:
            if status is Status.PASS:
                self._problem(f"{where}: has no tests")
            group.cases.append(replace(own, first=group.first))
        elif status in (Status.FAIL, Status.ERROR) and not failed:
            # Setup or cleanup of the suite failed.
            message = own.message or "failed, although none of its tests did"
            group.cases.append(replace(own, message=message))
        elif status is Status.PASS and failed:
            self._problem(f"{where}: is ok, although {failed[0].name} is not")
        self._hand_on(group)

    def _check_plan(self, group: _Group, where: str) -> None:
        if group.plan is not None and group.seen != group.plan:
            self._problem(f"{where}: {group.plan} tests planned, {group.seen} seen")
        self._add_errors(group, self._missing(group), "planned, but has no result")

    def _missing(self, group: _Group) -> list[str]:
        names = group.missing(self._left)
        self._left = max(0, self._left - len(names))
        return names

    def _add_errors(self, group: _Group, names: Iterable[str], message: str) -> None:
        lines = (self._line, self._line)
        group.cases += [Case(n, Status.ERROR, message, None, False, *lines) for n in names]

    def _lose(self, *, at_end: bool = False) -> None:
        """Close the innermost group, which has no result."""
        group = self._stack.pop()
        outer = self._stack[-1]
        group.name = group.name or f"#{outer.number + 1}"
        self._problem(f"{self._path(group)}: has no result")
        outer.count(outer.number + 1, group.name)
        self._break_off(group, at_end)
        self._hand_on(group)

    def _break_off(self, group: _Group, at_end: bool) -> None:
        """Add errors for the case in which *group* broke off, and for those after it."""
        names = self._missing(group)
        if not self._broken:
            if self._notes.running is not None:
                names[:1] = [self._notes.running]
            # If no test is missing, the group itself has no result.
            name, *names = names or ["" if group.name else "#end"]
            how = "the log ends" if at_end else "the result is missing"
            if self._panicked:
                how = "the kernel died"
            how += f" in or after {group.last_name}" if group.last_name else " in the first test"
            message, lines = self._notes.message(how), (self._mark + 1, self._line)
            group.cases.append(Case(name, Status.ERROR, message, None, at_end, *lines))
            self._broken = True
            # The next group that is lost has none of these.
            self._notes.clear()
            self._mark = self._line
        self._add_errors(group, names, "was not run")

    def _hand_on(self, group: _Group) -> None:
        """Move the cases of a closed group to the group around it."""
        self._stack[-1].cases.extend(
            replace(case, name=f"{group.name}.{case.name}" if case.name else group.name)
            for case in group.cases
        )

    def _finish_document(self) -> None:
        while len(self._stack) > 1:
            self._lose(at_end=True)
        root = self._stack.pop()
        if root.plan is not None and root.seen < root.plan and not root.skip:
            self._problem(f"{root.plan} tests planned, {root.seen} seen")
            self._break_off(root, at_end=True)
        elif self._panicked and root.plan is None:
            self._break_off(root, at_end=True)
        else:
            self._check_plan(root, "the log")
        if not root.cases and root.skip is not None:
            skipped = Case("all", Status.SKIP, root.skip, None, False, root.first, self._line)
            root.cases.append(skipped)
        elif not root.cases:
            self._problem("no tests were run")
        self.cases.extend(root.cases)

    def _path(self, inner: _Group | None = None) -> str:
        """Return the full name of the innermost group, or of one just closed."""
        groups = [*self._stack[1:], inner] if inner else self._stack[1:]
        return ".".join(group.name or "?" for group in groups) or "the log"

    def _problem(self, text: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(f"line {self._line}: {text}")


def _unique(cases: Iterable[Case]) -> Iterable[Case]:
    """Number cases with the same name, such as parameters of a KUnit test."""
    seen: Counter[str] = Counter()
    for case in cases:
        seen[case.name] += 1
        number = seen[case.name]
        yield case if number == 1 else replace(case, name=f"{case.name} ({number})")
