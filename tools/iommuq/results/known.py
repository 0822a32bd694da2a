# SPDX-License-Identifier: GPL-2.0-only
"""Known failures: tests that may fail, each with a reason, a link and an expiry date.

A list is a TOML file such as ``kunit/known-failures.toml``::

    [[failure]]
    test = "iommu_set_domain.blocked_refused"   # '*' stands for anything
    bases = ["6.12"]                # by default all
    archs = ["um"]                  # by default all
    from = "baseline"               # first step it may fail at; by default the first
    until = "resv-direct/0001"      # the step from which on it must pass
    reason = "why it fails, found by reading the test"
    link = "https://…"
    expires = 2027-06-01            # the last day that this counts
"""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from iommuq.results.store import Result, Run, Status
from iommuq.system.errors import UserError


class Verdict(Enum):
    """What a result means once known failures are taken into account."""

    OK = "ok"
    SKIPPED = "skipped"
    #: Failed, and is listed.
    KNOWN = "known"
    FAILED = "failed"
    #: Listed, but passes: the entry must go.
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
        return self in (
            Verdict.FAILED,
            Verdict.UNEXPECTED_PASS,
            Verdict.EXPIRED,
            Verdict.FLAKY,
        )


@dataclass(frozen=True)
class Step:
    """A step of a queue, as an entry may name it.

    :ivar label: ``baseline``, ``0001``.
    :ivar name: the patch's, ``resv-direct/0001-iommu-….patch``; empty for the baseline.
    """

    label: str
    name: str = ""

    def is_called(self, wanted: str) -> bool:
        """Tell whether *wanted* is the label, the file name, or its number in its section."""
        number = re.match(r".*?/?\d+(?=-|\.|$)", self.name)
        names = {self.label, self.name, self.name.removesuffix(".patch")} - {""}
        return wanted in names or (number is not None and wanted == number[0])


@dataclass(frozen=True)
class Failure:
    """One entry of a list.

    :ivar where: file and number of the entry, for messages.
    """

    test: str
    reason: str
    link: str
    expires: datetime.date
    bases: tuple[str, ...] = ()
    archs: tuple[str, ...] = ()
    start: str | None = None
    until: str | None = None
    where: str = ""

    def covers(self, test: str) -> bool:
        """Tell whether the entry is for *test*."""
        parts = (re.escape(part) for part in self.test.split("*"))
        return re.fullmatch(".*".join(parts), test) is not None


@dataclass(frozen=True)
class KnownFailures:
    """A whole list; an empty one knows no failures."""

    failures: tuple[Failure, ...] = ()

    def match(
        self, test: str, *, base: str, arch: str, steps: Sequence[Step], at: int
    ) -> Failure | None:
        """Return the first entry that allows a test to fail, if there is one.

        :param steps: all steps of the base's queue, in order.
        :param at: index in *steps* of the one that was tested.
        :raises UserError: an entry for this base names a step that does not exist.
        """
        for failure in self.failures:
            if failure.bases and base not in failure.bases:
                continue
            if failure.archs and arch not in failure.archs:
                continue
            if not failure.covers(test):
                continue
            start = 0 if failure.start is None else _index(failure, failure.start, steps, base)
            end = len(steps)
            if failure.until is not None:
                end = _index(failure, failure.until, steps, base)
            if start <= at < end:
                return failure
        return None


def _index(failure: Failure, wanted: str, steps: Sequence[Step], base: str) -> int:
    for index, step in enumerate(steps):
        if step.is_called(wanted):
            return index
    raise UserError(
        f"{failure.where}: no step {wanted!r} in the queue of {base}",
        hint="there are " + ", ".join(step.label for step in steps),
    )


def judge(result: Result, known: Failure | None, today: datetime.date) -> Verdict:
    """Say what a result means.

    :param known: the entry that `KnownFailures.match` found for it.
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


def judge_run(
    run: Run, known: KnownFailures, steps: Sequence[Step], arch: str
) -> dict[str, Verdict]:
    """Judge the results of a run against the list of known failures.

    :param steps: all steps of the base's queue, in order.
    """
    entries = excused(run, known, steps, arch)
    today = datetime.date.today()
    return {result.test: judge(result, entries.get(result.test), today) for result in run.results}


def excused(run: Run, known: KnownFailures, steps: Sequence[Step], arch: str) -> dict[str, Failure]:
    """Return the entries of the list that are for the tests of a run, by test.

    :param steps: all steps of the base's queue, in order.
    """
    at = next((number for number, step in enumerate(steps) if step.label == run.patch), -1)
    entries = {}
    for result in run.results:
        entry = known.match(result.test, base=run.base, arch=arch, steps=steps, at=at)
        if entry is not None:
            entries[result.test] = entry
    return entries


def load(path: Path) -> KnownFailures:
    """Read a list.

    :raises UserError: the file is missing or malformed, with the entry at fault.
    """
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}", hint="a list without entries is an empty file"
        ) from error
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    entries = data.pop("failure", [])
    if data or not isinstance(entries, list):
        raise UserError(f"{path}: {min(data, default='failure')!r} is not [[failure]]")
    failures: list[Failure] = []
    for number, entry in enumerate(entries, 1):
        failures.append(_entry(entry, f"{path}: failure {number}"))
    return KnownFailures(tuple(failures))


# Key in the file: type, and what to call that type.
_KEYS: Mapping[str, tuple[type, str]] = {
    "test": (str, "a name"),
    "reason": (str, "a text"),
    "link": (str, "an address"),
    "expires": (datetime.date, "a date, such as 2027-06-01"),
    "bases": (list, "a list of names"),
    "archs": (list, "a list of names"),
    "from": (str, "a step"),
    "until": (str, "a step"),
}


def _entry(entry: object, where: str) -> Failure:
    """Check one entry, and make it a `Failure`."""
    if not isinstance(entry, dict):
        raise UserError(f"{where}: not a table")
    fields: dict[str, Any] = dict(entry)
    if isinstance(fields.get("test"), str):
        where = f"{where} ({fields['test']})"
    for key in ("test", "reason", "link", "expires"):
        if key not in fields:
            raise UserError(f"{where}: has no {key}", hint="test, reason, link, expires are needed")
    for key, value in fields.items():
        if key not in _KEYS:
            raise UserError(f"{where}: {key!r} is not known", hint=f"there are {', '.join(_KEYS)}")
        wanted, words = _KEYS[key]
        good = isinstance(value, wanted) and bool(value)
        # A date with a time of day is a date to Python.
        good = good and not isinstance(value, datetime.datetime)
        if isinstance(value, list):
            good = good and all(isinstance(item, str) for item in value)
        elif isinstance(value, str):
            good = good and bool(value.strip())
        if not good:
            raise UserError(f"{where}: {key} must be {words}")
    return Failure(
        test=fields["test"],
        reason=fields["reason"].strip(),
        link=fields["link"].strip(),
        expires=fields["expires"],
        bases=tuple(fields.get("bases", ())),
        archs=tuple(fields.get("archs", ())),
        start=fields.get("from"),
        until=fields.get("until"),
        where=where,
    )
