# SPDX-License-Identifier: GPL-2.0-only
"""Find splats in a console log (WARN, Oops, KASAN, …) by the rules in ``splats.toml``."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from iommuq.results.console.ktap import Case, Report
from iommuq.results.store import Status
from iommuq.system.errors import InfraError
from iommuq.system.logtext import clean_line, split_stamp

RULES = Path(__file__).with_name("splats.toml")
#: Largest number of lines of a report.
MAX_LINES = 200
#: Largest number of splats that the tests of a log may announce.
MAX_EXPECTED = 100

# First and last line of a report of WARN_ON, BUG_ON and UBSAN.
_CUT_HERE = re.compile(r"-+\[ cut here \]-+")
_END_TRACE = re.compile(r"---\[ end (?:trace|Kernel panic)")
# Last line of a report of KASAN and lockdep.
_RULER = re.compile(r"={20,}$")
_RESULT = re.compile(r"\s*(?:not )?ok \d+ |\s*# Subtest: |K?TAP version \d+$")
# A test announces a splat: kunit_info(test, "expects splat: WARNING: set_domain_nofail\n").
_EXPECTS = re.compile(r"\s*# (?:\S+: )?expects splat: ([^:]{1,80})(?:: (\S.*))?$")


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
    :ivar title: the line that names the problem, without time stamp.
    :ivar start_line: number of its first line, from 1.
    :ivar text: the whole report.
    """

    kind: str
    title: str
    start_line: int
    text: str


@dataclass(frozen=True)
class Expected:
    """A splat that a test announces.

    :ivar kind: as in the rules.
    :ivar part: text that the report must contain; empty: any.
    :ivar line: number of the line that announces it, from 1.
    """

    kind: str
    part: str
    line: int

    def covers(self, splat: Splat) -> bool:
        """Return whether *splat* is the announced one."""
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
            f"{path}: {reason}", hint="without splat rules no splat is found"
        ) from error
    if not isinstance(entries, list) or not entries:
        raise InfraError(f"{path}: has no [[rule]]", hint="restore it from the repository")
    rules = []
    for number, entry in enumerate(entries, 1):
        try:
            rules.append(Rule(**{**entry, "regex": re.compile(entry["regex"])}))
        except (KeyError, TypeError, re.error) as error:
            raise InfraError(f"{path}: rule {number}: {error}") from error
    return tuple(rules)


_default_rules = cache(load_rules)


def find(lines: Iterable[str], rules: Sequence[Rule] | None = None) -> list[Splat]:
    """Return the splats of a console log, in its order.

    :param lines: all lines of the log.
    :param rules: by default those of `RULES`.
    :raises InfraError: as for `load_rules`.
    """
    finder = _Finder(_default_rules() if rules is None else rules)
    for number, line in enumerate(lines, 1):
        finder.feed(number, split_stamp(clean_line(line))[1])
    finder.close()
    return finder.splats


def expected(lines: Iterable[str]) -> list[Expected]:
    """Return the splats that the tests of a log announce.

    A test prints ``# expects splat: KIND`` or ``# expects splat: KIND: PART``: the kind of a
    rule, and a part of the report.
    """
    found: list[Expected] = []
    for number, line in enumerate(lines, 1):
        # Most lines have no such words, and need no cleaning.
        if "expects splat" not in line or len(found) == MAX_EXPECTED:
            continue
        if match := _EXPECTS.match(split_stamp(clean_line(line))[1].rstrip()):
            found.append(Expected(match[1], match[2] or "", number))
    return found


class _Finder:
    """The state between two lines of a log."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.splats: list[Splat] = []
        self._rules = rules
        # The open report: its lines, and its rule if known.
        self._lines: list[str] = []
        self._start = 0
        self._rule: Rule | None = None
        self._title = ""
        self._cut = False

    def feed(self, number: int, text: str) -> None:
        """Process one line without time stamp."""
        rule = next((rule for rule in self._rules if rule.regex.match(text)), None)
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

    def _is_part(self, rule: Rule) -> bool:
        # "refcount_t: underflow" precedes the WARNING, "kernel BUG at" the Oops of a report.
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
        """End the open report, if there is one."""
        if self._lines:
            # Without a rule the log ends after "cut here".
            kind = "unknown" if self._rule is None else self._rule.kind
            text = "\n".join(self._lines)
            self.splats.append(Splat(kind, self._title.strip("- "), self._start, text))
        self._lines, self._rule, self._cut = [], None, False


def attribute(report: Report, splats: Iterable[Splat]) -> list[tuple[Splat, Case | None]]:
    """Return each splat with the case during which it occurred; None: outside of all cases.

    :param report: from `iommuq.results.console.ktap.parse`, of the same lines.
    """
    found = list(splats)
    owners = owners_of(report, (splat.start_line for splat in found))
    return [(splat, owners.get(splat.start_line)) for splat in found]


def owners_of(report: Report, lines: Iterable[int]) -> dict[int, Case]:
    """Return the first case that each line belongs to, if there is one."""
    owners: dict[int, Case] = {}
    left = sorted(set(lines))
    for case in report.tests:
        first, after = bisect_left(left, case.first), bisect_right(left, case.last)
        if first < after:
            owners.update(dict.fromkeys(left[first:after], case))
            del left[first:after]
    return owners


def fail_cases(
    report: Report, splats: Iterable[Splat], expected: Sequence[Expected] = ()
) -> tuple[Report, tuple[Splat, ...]]:
    """Fail the cases with an unexpected splat, or without an expected one.

    A case in which the kernel died with a splat fails: it is no error of the guest.

    :param expected: from `expected`, of the lines of the report; each stands for one splat.
    :return: the report with these cases failed, and the splats outside of all cases.
    """
    loose = []
    titles: dict[str, list[str]] = {}
    owners = owners_of(report, (promise.line for promise in expected))
    awaited = {
        promise: owners[promise.line].name
        for promise in expected
        if promise.line in owners and owners[promise.line].status is not Status.SKIP
    }
    came = set()
    for splat, case in attribute(report, splats):
        name = None if case is None else case.name
        promises = [
            promise
            for promise, of in awaited.items()
            if of == name and promise not in came and promise.covers(splat)
        ]
        if promises:
            # The most exact one: a splat that others need is not taken from them.
            came.add(max(promises, key=lambda promise: len(promise.part)))
            continue
        if name is None:
            loose.append(splat)
        else:
            titles.setdefault(name, []).append(f"{splat.kind}: {splat.title}")
    for promise, name in awaited.items():
        if promise not in came:
            titles.setdefault(name, []).append(f"expected splat did not come: {promise}")
    tests = []
    for case in report.tests:
        if case.name in titles:
            message = "\n".join([*titles[case.name], *filter(None, [case.message])])
            case = replace(case, status=Status.FAIL, message=message)
        tests.append(case)
    return replace(report, tests=tuple(tests)), tuple(loose)


def blamed_on(
    report: Report, splats: Iterable[Splat], expected: Sequence[Expected] = ()
) -> tuple[dict[str, str], tuple[Splat, ...]]:
    """Return what `fail_cases` says of the cases that it fails, whatever their own status is.

    :return: by case the message, and the splats outside of all cases.
    """
    after, loose = fail_cases(report, splats, expected)
    pairs = zip(report.tests, after.tests, strict=True)
    return {new.name: new.message for old, new in pairs if new is not old}, loose
