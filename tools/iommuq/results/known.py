# SPDX-License-Identifier: GPL-2.0-only
"""Known failures: tests that may fail, each with a reason, a link and an expiry date.

Each base has a list, ``patches/<base>/known-failures.toml``; docs/proof.md explains the keys."""

from __future__ import annotations

import datetime
import os
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from iommuq.defaults import SUITES
from iommuq.queue.model import Queue, named_step
from iommuq.results.store import Result, Status, SuiteRun
from iommuq.system import tables
from iommuq.system.errors import EXIT_INFRA, EXIT_OK, EXIT_VERDICT, UserError
from iommuq.system.tables import Table, require

NAME = "known-failures.toml"


class Verdict(Enum):
    """What a result means, given the known failures."""

    OK = "ok"
    SKIPPED = "skipped"
    #: Failed, and is listed.
    KNOWN = "known"
    FAILED = "failed"
    #: Listed, but passes: remove the entry.
    UNEXPECTED_PASS = "unexpected pass"
    #: Listed, but the date is past.
    EXPIRED = "expired"
    #: Passed and failed on the same image.
    FLAKY = "flaky"
    #: The infrastructure failed.
    ERROR = "error"

    @property
    def fails(self) -> bool:
        """Whether it fails the run, as a verdict against the code or the list."""
        cls = type(self)
        return self in (cls.FAILED, cls.UNEXPECTED_PASS, cls.EXPIRED, cls.FLAKY)

    @property
    def word(self) -> str:
        """It in the words of the tables."""
        return {"ok": "pass", "failed": "FAIL"}.get(self.value, self.value)


def sum_up(name: str, verdicts: Collection[Verdict]) -> tuple[int, str]:
    """Return exit code and verdict of a run, the latter in one line.

    :param name: what was tested.
    """
    counts = Counter(verdicts)
    code, word = EXIT_OK, "PASS"
    if any(verdict.fails for verdict in counts):
        code, word = EXIT_VERDICT, "FAIL"
    elif counts[Verdict.ERROR]:
        code, word = EXIT_INFRA, "ERROR"
    parts = [f"{counts[each]} {each.word}" for each in Verdict if counts[each]]
    return code, f"{word}: {name}: {', '.join(parts) or 'no test'}"


@dataclass(frozen=True)
class _Failure(Table):
    tests: tuple[str, ...]
    archs: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None

    def __post_init__(self) -> None:
        require(self.tests, "tests is empty")
        for test in self.tests:
            suite, _, rest = test.partition(".")
            message = f"tests: {test!r} is of no suite; there are {', '.join(SUITES)}"
            require(suite in SUITES and rest, message)


@dataclass(frozen=True)
class _Reason(Table):
    text: str
    link: str
    expires: datetime.date
    failure: tuple[_Failure, ...]

    def __post_init__(self) -> None:
        require(self.text.strip(), "text is empty")
        require(self.link.strip(), "link is empty")
        require(self.failure, "no failure has this reason")


@dataclass(frozen=True)
class _Document(Table):
    reason: tuple[_Reason, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Tests that may fail for one reason.

    :ivar tests: names with the suite first; ``*`` stands for anything.
    :ivar archs: architectures of the guests; empty: all.
    :ivar steps: labels of the steps.
    """

    tests: tuple[str, ...]
    reason: str
    link: str
    expires: datetime.date
    archs: tuple[str, ...]
    steps: tuple[str, ...]

    def covers(self, test: str, arch: str, step: str) -> bool:
        """Return whether the entry allows a test to fail; see `KnownFailures.match`."""
        here = step in self.steps and (not self.archs or arch in self.archs)
        return here and any(_covers(pattern, test) for pattern in self.tests)


def _covers(pattern: str, test: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), test) is not None


@dataclass(frozen=True)
class KnownFailures:
    """The list of a base."""

    failures: tuple[Failure, ...] = ()

    def match(self, test: str, arch: str, step: str) -> Failure | None:
        """Return the first entry that allows a test to fail, if there is one.

        :param test: name with the suite first.
        :param arch: architecture of the guest.
        :param step: label of the step that was tested.
        """
        found = (failure for failure in self.failures if failure.covers(test, arch, step))
        return next(found, None)

    def of_no_test(self, suite: str, tests: Collection[str]) -> list[str]:
        """Return the listed names of a suite that match none of its tests.

        :param tests: all tests of that suite, without the name of the suite.
        """
        return [
            pattern
            for failure in self.failures
            for pattern in failure.tests
            if pattern.startswith(f"{suite}.")
            and not any(_covers(pattern, f"{suite}.{test}") for test in tests)
        ]


def load_known(queue: Queue) -> KnownFailures:
    """Read the list of a base; without a file it is empty.

    :raises UserError: it is malformed, or a step is not in the queue; file and entry are named.
    """
    path = queue.folder / NAME
    if not os.path.lexists(path):
        return KnownFailures()
    found = []
    for reason in tables.load_toml(_Document, path).reason:
        text, link = reason.text.strip(), reason.link.strip()
        for each in reason.failure:
            steps = _steps(queue, each, f"{path}: {each.tests[0]}")
            found.append(Failure(each.tests, text, link, reason.expires, each.archs, steps))
    return KnownFailures(tuple(found))


def _steps(queue: Queue, entry: _Failure, where: str) -> tuple[str, ...]:
    """Return the labels of the steps of an entry; *where* is file and entry."""

    def place(key: str, name: str) -> int:
        label = named_step(queue, name)
        if label is None:
            hint = f"there are {', '.join(queue.steps)}"
            raise UserError(f"{where}: {key}: no step {name!r} in the queue", hint=hint)
        return queue.steps.index(label)

    start = 0 if entry.since is None else place("since", entry.since)
    end = len(queue.steps) if entry.until is None else place("until", entry.until)
    if start >= end:
        raise UserError(f"{where}: until: no step before it may fail")
    return queue.steps[start:end]


def judge(result: Result, known: Failure | None, today: datetime.date) -> Verdict:
    """Return the verdict on a result.

    :param known: the entry that `KnownFailures.match` returned for it.
    :param today: the day to compare expiry dates with.
    """
    if result.status is Status.ERROR:
        return Verdict.ERROR
    if known is not None and today > known.expires:
        return Verdict.EXPIRED
    if result.status is Status.SKIP:
        return Verdict.SKIPPED
    if result.status is Status.PASS:
        return Verdict.OK if known is None else Verdict.UNEXPECTED_PASS
    return Verdict.FAILED if known is None else Verdict.KNOWN


def judge_run(run: SuiteRun, known: KnownFailures, arch: str) -> dict[str, Verdict]:
    """Return the verdicts on the results of a run, by test."""
    entries = excused(run, known, arch)
    today = datetime.date.today()
    return {result.test: judge(result, entries.get(result.test), today) for result in run.results}


def excused(run: SuiteRun, known: KnownFailures, arch: str) -> dict[str, Failure]:
    """Return the entries for the results of a run, by test."""
    found = {}
    for result in run.results:
        if entry := known.match(f"{run.suite}.{result.test}", arch, run.patch):
            found[result.test] = entry
    return found
