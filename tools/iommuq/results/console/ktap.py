# SPDX-License-Identifier: GPL-2.0-only
"""Read KTAP and TAP out of a console log, whole or not.

One parser for KUnit and for kselftest programs.  It never raises, whatever the
log holds: what is wrong with the log becomes a problem, and what was planned but
has no result becomes an error.  Nothing that is missing or garbled ever passes.

Nesting is by indentation, as in Documentation/dev-tools/ktap.rst; the kernel's own
tools/testing/kunit/kunit_parser.py counts results against plans in place of that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import count, islice

from iommuq.results.console import ktaplines
from iommuq.results.console.ktaplines import Notes
from iommuq.results.store import Status
from iommuq.system.logtext import clean_line, split_stamp

#: Cases without a result that are listed one by one; a garbled plan may be of millions.
MISSING_CASES = 200
#: Problems that are kept.
MAX_PROBLEMS = 100


@dataclass(frozen=True)
class Case:
    """A test without subtests.

    :ivar name: names from the outermost suite inwards, joined with dots.
    :ivar message: the reason of a skip or an error, and diagnostics of the case.
    :ivar duration: seconds, or None where the log does not tell.
    :ivar crashed: the kernel died in it, or so it seems.
    :ivar first: number, from 1, of the first line that may belong to it.
    :ivar last: number of the last one.
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
    """All that a log tells.

    :ivar tests: the cases in the order of the log.
    :ivar problems: what is wrong with the log itself, one line each.
    """

    tests: tuple[Case, ...]
    problems: tuple[str, ...]

    def count(self, status: Status) -> int:
        """Return how many cases have *status*."""
        return sum(case.status is status for case in self.tests)


def parse(lines: Iterable[str]) -> Report:
    """Read the results out of a console log; never raises.

    ``not ok … # TODO``, and XFAIL however it comes, is a skip: the test failed as its
    author expected, which proves nothing.  TIMEOUT and ERROR are errors.
    """
    parser = _Parser()
    for number, line in enumerate(lines, 1):
        parser.feed(number, clean_line(line))
    parser.close()
    return Report(tuple(_unique(parser.cases)), tuple(parser.problems[:MAX_PROBLEMS]))


@dataclass
class _Group:
    """A test with subtests, from its header to its result line.

    :ivar first: number of its first line.
    :ivar seen: how many of its tests have a result.
    :ivar number: what the last of them gave as its number.
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
        """Whether there was nothing but the header."""
        return self.plan is None and self.seen == 0

    def count(self, number: int, name: str) -> None:
        """Count in one test."""
        self.seen += 1
        self.number = number
        self.numbers.add(number)
        self.last_name = name

    def missing(self) -> list[str]:
        """Return stand-in names, ``#3``, for tests that were planned and not seen."""
        lacking = (self.plan or 0) - self.seen
        if lacking <= 0:
            return []
        absent = (number for number in count(1) if number not in self.numbers)
        names = [f"#{number}" for number in islice(absent, min(lacking, MISSING_CASES))]
        if lacking > MISSING_CASES:
            names.append(f"#{next(absent)} to #{self.plan}")
        return names


class _Parser:
    """The state between two lines of a log."""

    def __init__(self) -> None:
        self.cases: list[Case] = []
        self.problems: list[str] = []
        self._line = 0
        # Groups that are open, the document itself first; empty before the first.
        self._stack: list[_Group] = []
        # Of the version line: whether printk stamped it, and what else was before it.
        self._stamped = False
        self._prefix = ""
        # The last result's line and time, and what came after it.
        self._mark = 0
        self._mark_time: float | None = None
        self._notes = Notes()
        # Whether what went on since has been reported as broken off.
        self._broken = False
        self._ended = False
        self._panicked = False

    def feed(self, number: int, line: str) -> None:
        """Take in one clean line."""
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
        """Take in the end of the log."""
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
        """Tell the first line of a KTAP document from headers of subtests in one."""
        before = version.string[: version.start()]
        if "#" in before:
            # run_kselftest.sh puts "# " before all that a program prints.
            return False
        if not self._stack:
            return True
        root = self._stack[0]
        at_root = len(self._stack) == 1
        if (stamp is not None) != self._stamped:
            # First tests of the kernel's, then a program's, on one console.
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
        """Return a line without the document's prefix, or None if it is none of its lines."""
        if (stamp is not None) != self._stamped:
            return None
        head, body = text[: len(self._prefix)], text[len(self._prefix) :]
        # A prefix of words may hold a time, so only its length is sure.
        return None if head.strip() and not self._prefix.strip() else body

    def _take(self, stamp: float | None, indent: int, text: str) -> None:
        """Take in one line of a document."""
        if match := ktaplines.VERSION.match(text):
            self._check_version(match)
            self._open(indent, "")
        elif match := ktaplines.SUBTEST.match(text):
            self._open(indent, match[1].strip())
        elif match := ktaplines.PLAN.match(text):
            self._plan(indent, int(match[1]), match[2] or "")
        elif match := ktaplines.RESULT.match(text):
            self._result(stamp, indent, match)
        else:
            self._notes.add(indent, text)

    def _check_version(self, version: re.Match[str]) -> None:
        if int(version[2]) not in ktaplines.VERSIONS[version[1]]:
            self._problem(f"{version[0]} is not known")

    def _open(self, indent: int, name: str) -> None:
        """Begin a group, or name the one that a version line has just begun."""
        top = self._stack[-1]
        if indent == 0:
            # The document repeats its own header.
            return
        if indent == top.indent and top.fresh and not top.name:
            top.name = name
            return
        while self._stack[-1].indent >= indent:
            self._lose()
        self._stack.append(_Group(indent, name, self._mark + 1))
        self._broken = False

    def _plan(self, indent: int, planned: int, comment: str) -> None:
        group = next((group for group in self._stack if group.indent == indent), None)
        if group is None or group.plan is not None:
            self._problem(f"a plan, 1..{planned}, that belongs to no test")
            return
        group.plan = planned
        # A kselftest program that cannot run says so in its plan.
        group.skip = ktaplines.skipped_plan(comment)

    def _result(self, stamp: float | None, indent: int, match: re.Match[str]) -> None:
        number = int(match[2])
        status, name, reason = ktaplines.outcome(match)
        inner = self._close_inner(indent, name)
        group = self._stack[-1]
        if number != group.number + 1:
            self._problem(f"{self._path()}: expected number {group.number + 1}, found {number}")
        group.count(number, name)
        if inner is None:
            group.cases.append(
                Case(
                    name,
                    status,
                    self._notes.message(reason),
                    self._duration(stamp),
                    first=self._mark + 1,
                    last=self._line,
                )
            )
        else:
            inner.name = name
            self._finish_group(inner, status, reason)
        self._reset(stamp)

    def _close_inner(self, indent: int, name: str) -> _Group | None:
        """Close all groups further in than *indent*.

        :return: the group that a result called *name* is of, if it is one's.
        """
        top = self._stack[-1]
        if indent > top.indent and len(self._stack) > 1 and not (top.name or top.seen):
            # Its header is further out than its tests; the kernel's parser, which counts
            # results against the plan, does not mind.
            top.indent = indent
        if indent > top.indent:
            # Its header was lost.
            self._stack.append(_Group(indent, "", self._mark + 1))
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
        """Return the seconds that a note tells, or else the time since the last result."""
        told = self._notes.duration
        if told is not None or stamp is None or self._mark_time is None:
            return told
        return max(0.0, round(stamp - self._mark_time, 6))

    def _finish_group(self, group: _Group, status: Status, reason: str) -> None:
        """Hand the cases of a group that has its result on to the one around it."""
        where = self._path(group)
        own = Case("", status, self._notes.message(reason), first=self._mark + 1, last=self._line)
        self._check_plan(group, where)
        failed = [case for case in group.cases if case.status is Status.FAIL]
        if not group.cases:
            if status is Status.PASS:
                self._problem(f"{where}: has no tests")
            group.cases.append(replace(own, first=group.first))
        elif status in (Status.FAIL, Status.ERROR) and not failed:
            # The suite's own set-up or clean-up failed.
            message = own.message or "failed, although none of its tests did"
            group.cases.append(replace(own, message=message))
        elif status is Status.PASS and failed:
            self._problem(f"{where}: is ok, although {failed[0].name} is not")
        self._hand_on(group)

    def _check_plan(self, group: _Group, where: str) -> None:
        """Compare a group that came to its end with its plan."""
        if group.plan is not None and group.seen != group.plan:
            self._problem(f"{where}: {group.plan} tests planned, {group.seen} seen")
        group.cases.extend(
            Case(
                name,
                Status.ERROR,
                "planned, but has no result",
                None,
                False,
                self._line,
                self._line,
            )
            for name in group.missing()
        )

    def _lose(self, *, at_end: bool = False) -> None:
        """Close the innermost group, which has no result.

        :param at_end: the log has ended, so something died, most likely.
        """
        group = self._stack.pop()
        outer = self._stack[-1]
        group.name = group.name or f"#{outer.number + 1}"
        self._problem(f"{self._path(group)}: has no result")
        outer.count(outer.number + 1, group.name)
        self._break_off(group, at_end)
        self._hand_on(group)

    def _break_off(self, group: _Group, at_end: bool) -> None:
        """Add an error for what ran when *group* broke off, and for what was to follow."""
        names = group.missing()
        if not self._broken:
            if self._notes.running is not None:
                names[:1] = [self._notes.running]
            # With all its tests there, it is its own end that is not known.
            name, *names = names or ["" if group.name else "#end"]
            how = "the log ends" if at_end else "the result is missing"
            if self._panicked:
                how = "the kernel died"
            how += f" in or after {group.last_name}" if group.last_name else " in the first test"
            message = self._notes.message(how)
            group.cases.append(
                Case(name, Status.ERROR, message, None, at_end, self._mark + 1, self._line)
            )
            self._broken = True
        group.cases.extend(
            Case(name, Status.ERROR, "was not run", None, False, self._line, self._line)
            for name in names
        )

    def _hand_on(self, group: _Group) -> None:
        """Move the cases of *group*, which is off the stack, to the group around it."""
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
        """Name the innermost group, or one that was just taken off the stack, in full."""
        groups = [*self._stack[1:], inner] if inner else self._stack[1:]
        return ".".join(group.name or "?" for group in groups) or "the log"

    def _problem(self, text: str) -> None:
        self.problems.append(f"line {self._line}: {text}")


def _unique(cases: Iterable[Case]) -> Iterable[Case]:
    """Number cases whose name came before, as parameters of a KUnit test may."""
    seen: dict[str, int] = {}
    for case in cases:
        seen[case.name] = seen.get(case.name, 0) + 1
        if seen[case.name] == 1:
            yield case
        else:
            yield replace(case, name=f"{case.name} ({seen[case.name]})")
