# SPDX-License-Identifier: GPL-2.0-only
"""The data of the sections of the HTML report, and the signs of verdicts in its table."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from iommuq.results.runs.model import CommandRun, Known, Test
from iommuq.system.progress import ranges


class Look(Enum):
    """A verdict in the table, with the name of the `Verdict`, or what it means at a step.

    :ivar code: its letter in the page's data.
    """

    OK = "o", "·", "passes"
    OK_ALONE = "p", "✓", "passes"
    FIXED = "f", "✓", "passes, and failed at the step before"
    FAILED = "x", "✕", "fails, and should not"
    EXPECTED = "e", "○", "fails here, a later step has the verdict"
    SKIPPED = "s", "–", "skipped"
    KNOWN = "k", "K", "known failure"
    UNEXPECTED_PASS = "u", "✓!", "passes, but is listed as failing"
    EXPIRED = "d", "K!", "listed as failing, but past its date"
    FLAKY = "y", "≈", "flaky: passed and failed on one kernel"
    ERROR = "r", "?", "no verdict: the infrastructure failed"
    NOT_RUN = "n", "", "not run"

    def __init__(self, code: str, sign: str, word: str) -> None:
        self.code = code
        self.sign = sign
        self.word = word


@dataclass(frozen=True)
class Row:
    """One row of the table; *number* is its index in the page's data."""

    number: int
    suite: str
    test: str
    looks: tuple[Look, ...]

    @property
    def steady(self) -> bool:
        """Whether it passes, or is skipped, at each step."""
        return len(set(self.looks)) == 1 and self.looks[0] in (Look.OK, Look.OK_ALONE, Look.SKIPPED)


#: Largest number of bars.
BARS = 80
#: Width of the drawing of the bars, scaled to the page.
WIDTH = 1000
#: An entry that expires in less days is marked.
SOON = 60


@dataclass(frozen=True)
class KnownRow:
    """A known failure, and the steps where it occurred.

    :ivar days: until it expires; negative: expired.
    """

    test: str
    known: Known
    steps: tuple[str, ...]
    days: int
    verdict: str

    @property
    def soon(self) -> bool:
        """Whether it expires soon."""
        return self.days < SOON


def known_failures(record: CommandRun, today: datetime.date) -> list[KnownRow]:
    """Return the entries that the run used, sorted by their expiry date."""
    seen: dict[tuple[str, Known], tuple[list[str], set[str]]] = {}
    for cell, test in record.tests():
        if test.known is not None:
            steps, verdicts = seen.setdefault((record.name(cell, test), test.known), ([], set()))
            steps.append(cell.step)
            verdicts.add(test.verdict.value)
    rows = [
        KnownRow(test, known, tuple(steps), _days(known.expires, today), ", ".join(sorted(words)))
        for (test, known), (steps, words) in seen.items()
    ]
    return sorted(rows, key=lambda row: row.days)


def _days(expires: str, today: datetime.date) -> int:
    try:
        return (datetime.date.fromisoformat(expires) - today).days
    except ValueError:
        return -1


@dataclass(frozen=True)
class Bar:
    """A step of the work and its duration.

    :ivar x: begin, as a part of `WIDTH`.
    :ivar width: length, as a part of `WIDTH`.
    :ivar kind: ``build``, ``run`` or ``other``.
    """

    title: str
    seconds: float
    x: float
    width: float
    depth: int
    kind: str
    outcome: str


def bars(record: CommandRun) -> list[Bar]:
    """Return bars for the longest steps of the work, in the order of their begin."""
    timings = [one for one in record.timings if one.seconds > 0]
    if not timings:
        return []
    whole = max(one.started + one.seconds for one in timings) or 1.0
    longest = sorted(timings, key=lambda one: -one.seconds)[:BARS]
    found = []
    for one in sorted(longest, key=lambda one: (one.started, one.depth)):
        x = round(WIDTH * one.started / whole, 2)
        width = max(1.5, round(WIDTH * one.seconds / whole, 2))
        kind = _kind(one.title)
        found.append(Bar(one.title, one.seconds, x, width, one.depth, kind, one.outcome))
    return found


def _kind(title: str) -> str:
    word = title.partition(" ")[0]
    if word in ("Building", "Configuring", "Checking"):
        return "build"
    return "run" if word in ("Running", "Booting", "Trying") else "other"


@dataclass(frozen=True)
class Scenario:
    """One scenario: its checks, each with a test or None for each machine."""

    name: str
    machines: tuple[str, ...]
    checks: tuple[tuple[str, tuple[Test | None, ...]], ...]


def firmware_tables(record: CommandRun) -> list[Scenario]:
    """Return the scenarios of the firmware lane, those with a failure first."""
    found: dict[str, dict[str, dict[str, Test]]] = {}
    for cell in record.cells:
        if cell.lane != "firmware":
            continue
        for test in cell.tests:
            machine, _, rest = test.name.partition(".")
            scenario, _, check = rest.partition(".")
            found.setdefault(scenario, {}).setdefault(check, {})[machine] = test
    scenarios = []
    for name, checks in found.items():
        machines = tuple(dict.fromkeys(machine for by in checks.values() for machine in by))
        rows = tuple(
            (check, tuple(by.get(machine) for machine in machines)) for check, by in checks.items()
        )
        scenarios.append(Scenario(name, machines, rows))
    return sorted(
        scenarios,
        key=lambda one: not any(t and t.verdict.fails for _, tests in one.checks for t in tests),
    )


@dataclass(frozen=True)
class Covered:
    """The coverage of a function or file: numbers of executed and of all lines and branches.

    :ivar touched: the queue changes it.
    :ivar missed: lines that were not executed, as ranges.
    """

    name: str
    touched: bool
    lines: tuple[int, int]
    branches: tuple[int, int]
    missed: str

    @property
    def share(self) -> int:
        """Executed lines, in percent."""
        return 100 * self.lines[0] // self.lines[1] if self.lines[1] else 100


def covered_files(data: Mapping[str, Any] | None) -> list[tuple[Covered, list[Covered]]]:
    """Return files and their functions, those that the queue touches; empty without coverage."""
    found = []
    try:
        for file in (data or {}).get("files", ()):
            if file["built"]:
                functions = [_covered(each, each["name"]) for each in file["functions"]]
                own = [each for each in functions if each.touched] or functions
                found.append((_covered({**file, "touched": False}, file["file"]), own))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        # Data from a file is not trusted.
        return []
    return found


def _covered(entry: Mapping[str, Any], name: str) -> Covered:
    return Covered(
        str(name),
        bool(entry["touched"]),
        (int(entry["lines_executed"]), int(entry["lines"])),
        (int(entry["branches_executed"]), int(entry["branches"])),
        ", ".join(ranges(sorted(int(line) for line in entry.get("missed", ())), "–")),
    )


@dataclass(frozen=True)
class Mutants:
    """The results of mutants.

    :ivar counts: by fate.
    :ivar functions: name, and numbers of mutants in the order of *counts*.
    :ivar survivors: place, original and changed code.
    """

    counts: tuple[tuple[str, int], ...]
    functions: tuple[tuple[str, tuple[int, ...]], ...]
    survivors: tuple[tuple[str, str, str], ...]


def mutant_rows(data: Mapping[str, Any] | None) -> Mutants | None:
    """Return the results of mutants; None without mutants."""
    if not data:
        return None
    try:
        fates = tuple((str(fate), int(count)) for fate, count in data["counts"].items())
        table: dict[str, dict[str, int]] = {}
        survivors = []
        for mutant in data["mutants"]:
            if mutant["fate"] is None:
                continue
            row = table.setdefault(str(mutant["function"]), {})
            row[mutant["fate"]] = row.get(mutant["fate"], 0) + 1
            if mutant["fate"] == "survived":
                where = f"{mutant['file']}:{mutant['line']} {mutant['function']}"
                survivors.append((where, str(mutant["before"]), str(mutant["after"])))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        return None
    rows = tuple(
        (name, tuple(row.get(fate, 0) for fate, _ in fates)) for name, row in table.items()
    )
    return Mutants(fates, rows, tuple(survivors))
