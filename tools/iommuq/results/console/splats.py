# SPDX-License-Identifier: GPL-2.0-only
"""Find the reports of a broken kernel in its console log: WARN, Oops, KASAN and so on.

The rules are data, ``splats.toml``.  Without them nothing would be found, and
every kernel would look sound; so a missing or damaged rules file is an error.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from iommuq.results.console.ktap import Case, Report
from iommuq.results.store import Status
from iommuq.system.errors import InfraError
from iommuq.system.logtext import clean_line, split_stamp

RULES = Path(__file__).with_name("splats.toml")
#: Lines of a report that are kept; a stall on many processors prints without end.
MAX_LINES = 200

# WARN_ON, BUG_ON and UBSAN begin and end with these.  What is between is one report.
_CUT_HERE = re.compile(r"-+\[ cut here \]-+")
_END_TRACE = re.compile(r"---\[ end (?:trace|Kernel panic)")
# KASAN and lockdep rule their reports off.
_RULER = re.compile(r"={20,}$")
_RESULT = re.compile(r"\s*(?:not )?ok \d+ |\s*# Subtest: |K?TAP version \d+$")
# What a test prints, as a diagnostic line of its own, before it provokes the kernel:
# kunit_info(test, "expects splat: WARNING: set_domain_nofail\n").
_EXPECTS = re.compile(r"\s*# (?:\S+: )?expects splat: ([^:]+)(?:: (\S.*?))?\s*$")


@dataclass(frozen=True)
class Rule:
    """One line of the rules file; see the comment in it."""

    kind: str
    regex: re.Pattern[str]
    example: str
    continues: bool = False
    lone: bool = False


@dataclass(frozen=True)
class Splat:
    """One report of a broken kernel.

    :ivar kind: as in the rules.
    :ivar title: the line that tells what it is, without its time stamp.
    :ivar start_line: number, from 1, of its first line.
    :ivar text: the whole report.
    """

    kind: str
    title: str
    start_line: int
    text: str


@dataclass(frozen=True)
class Expected:
    """A splat that a test says it will provoke.

    :ivar kind: as in the rules.
    :ivar part: what the report must contain; empty for any of its kind.
    :ivar line: number, from 1, of the line that says so.
    """

    kind: str
    part: str
    line: int

    def covers(self, splat: Splat) -> bool:
        """Tell whether *splat* is the one."""
        return splat.kind == self.kind and self.part in splat.text

    def __str__(self) -> str:
        return f"{self.kind}: {self.part}" if self.part else self.kind


def load_rules(path: Path = RULES) -> tuple[Rule, ...]:
    """Read a rules file.

    :raises InfraError: it is missing, empty or malformed.
    """
    try:
        entries = tomllib.loads(path.read_text("utf-8")).get("rule")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InfraError(
            f"{path}: {reason}", hint="without splat rules every kernel looks sound"
        ) from error
    if not isinstance(entries, list) or not entries:
        raise InfraError(f"{path}: has no [[rule]]", hint="put it back from the repository")
    rules = []
    for number, entry in enumerate(entries, 1):
        try:
            rule = Rule(**{**entry, "regex": re.compile(entry["regex"])})
        except (KeyError, TypeError, re.error) as error:
            raise InfraError(f"{path}: rule {number}: {error}") from error
        rules.append(rule)
    return tuple(rules)


@cache
def _default_rules() -> tuple[Rule, ...]:
    return load_rules()


def find(lines: Iterable[str], rules: Sequence[Rule] | None = None) -> list[Splat]:
    """Return the splats of a console log, in its order.

    :param lines: all lines of the log, the first being number 1.
    :param rules: by default those that come with iommuq.
    :raises InfraError: as for `load_rules`.
    """
    finder = _Finder(_default_rules() if rules is None else rules)
    for number, line in enumerate(lines, 1):
        finder.feed(number, split_stamp(clean_line(line))[1])
    finder.close()
    return finder.splats


def expected(lines: Iterable[str]) -> list[Expected]:
    """Return what the tests of a log say that they will provoke.

    A test says so in a diagnostic line, ``# expects splat: KIND`` or ``# expects splat:
    KIND: PART``, KIND being one of the rules' and PART a piece of the report.
    """
    found = []
    for number, line in enumerate(lines, 1):
        match = _EXPECTS.match(split_stamp(clean_line(line))[1])
        if match is not None:
            found.append(Expected(match[1], match[2] or "", number))
    return found


class _Finder:
    """The state between two lines of a log."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.splats: list[Splat] = []
        self._rules = rules
        # The report that we are in: its rule, if known yet, and its lines.
        self._lines: list[str] = []
        self._start = 0
        self._rule: Rule | None = None
        self._title = ""
        self._cut = False

    def feed(self, number: int, text: str) -> None:
        """Take in one line, without its time stamp."""
        rule = self._match(text)
        if _CUT_HERE.match(text):
            self._open(number, text, None)
            self._cut = True
        elif self._lines and self._cut and rule is not None and self._rule is None:
            self._rule, self._title = rule, text
            self._lines.append(text)
        elif rule is not None and not (self._lines and (rule.continues or self._is_part(rule))):
            self._open(number, text, rule)
        elif self._lines:
            self._continue(text)

    def _match(self, text: str) -> Rule | None:
        return next((rule for rule in self._rules if rule.regex.match(text)), None)

    def _is_part(self, rule: Rule) -> bool:
        """Tell whether a line that has a rule of its own belongs to the open report.

        After "refcount_t: underflow" comes the WARNING of the very same report, and
        after "kernel BUG at" the Oops; but KASAN may come amid anything.
        """
        return self._cut and rule.kind in ("WARNING", "Oops", "BUG")

    def _open(self, number: int, text: str, rule: Rule | None) -> None:
        self.close()
        self._start, self._lines = number, [text]
        self._rule, self._title = rule, text
        if rule is not None and rule.lone:
            self.close()

    def _continue(self, text: str) -> None:
        if _RESULT.match(text):
            self.close()
            return
        if len(self._lines) < MAX_LINES:
            self._lines.append(text)
        if _END_TRACE.match(text) or (_RULER.match(text) and not self._cut):
            self.close()

    def close(self) -> None:
        """End the report that is open, if one is."""
        if self._lines:
            # Without a rule the log was cut after "cut here".
            kind = "unknown" if self._rule is None else self._rule.kind
            text = "\n".join(self._lines)
            self.splats.append(Splat(kind, self._title.strip("- "), self._start, text))
        self._lines, self._rule, self._cut = [], None, False


def attribute(report: Report, splats: Iterable[Splat]) -> list[tuple[Splat, Case | None]]:
    """Say which case each splat fell in.

    :param report: what `iommuq.results.console.ktap.parse` made of the same lines.
    :return: the splats, each with its case, or None outside of all cases.
    """
    return [
        (splat, next((c for c in report.tests if c.first <= splat.start_line <= c.last), None))
        for splat in splats
    ]


def fail_cases(
    report: Report, splats: Iterable[Splat], expected: Sequence[Expected] = ()
) -> tuple[Report, tuple[Splat, ...]]:
    """Fail the cases that a splat fell in, unless they said it would.

    A case that the kernel died in with a splat has failed, too: it is the code that
    broke, and not the guest.  So has one whose splat did not come.

    :param expected: what `expected` found in the lines of the report.
    :return: the report with these cases failed, and the splats that fell in none.
    """
    loose = []
    titles: dict[str, list[str]] = {}
    awaited = {
        promise: case.name
        for case in report.tests
        for promise in expected
        if case.first <= promise.line <= case.last and case.status is not Status.SKIP
    }
    came = set()
    for splat, case in attribute(report, splats):
        name = None if case is None else case.name
        promises = [p for p, of in awaited.items() if of == name and p.covers(splat)]
        came.update(promises)
        if promises:
            continue
        if name is None:
            loose.append(splat)
        else:
            titles.setdefault(name, []).append(f"{splat.kind}: {splat.title}")
    for promise, name in awaited.items():
        if promise not in came:
            titles.setdefault(name, []).append(f"expected splat did not come: {promise}")
    tests = tuple(
        replace(
            case,
            status=Status.FAIL,
            message="\n".join([*titles[case.name], *filter(None, [case.message])]),
        )
        if case.name in titles
        else case
        for case in report.tests
    )
    return replace(report, tests=tests), tuple(loose)
