# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq runs``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import click

from iommuq.proof.matrix import fold
from iommuq.report import matrix
from iommuq.report.view import Tone, View, visible
from iommuq.results.runs.archive import Archive, Summary, pick
from iommuq.results.runs.compare import Comparison, VerdictChange
from iommuq.results.runs.compare import compare as compared
from iommuq.results.runs.model import CommandRun, State
from iommuq.system.errors import EXIT_INFRA, EXIT_OK, EXIT_VERDICT
from iommuq.system.progress import duration


@click.group()
def runs() -> None:
    """List the stored runs, show one, compare two.

    A RUN is an id or its beginning; last and last~1 are the newest one and the one
    before; or a FILE.json that `iommuq report --json` wrote.
    """


@runs.command("list")
@click.option(
    "-n", "number", type=click.IntRange(min=1), default=20, show_default=True, help="Runs."
)
@click.option("--all", "everything", is_flag=True, help="List all stored runs.")
def list_(number: int, everything: bool) -> None:
    """Print the runs, the newest first."""
    found = Archive().summaries(None if everything else number)
    if not found:
        print("There are no runs yet; `iommuq run` makes one.")
    for one in found:
        begun = time.strftime("%Y-%m-%d %H:%M", time.gmtime(one.started))
        took = "" if one.finished is None else duration(one.finished - one.started)
        print(f"{one.id:<24}  {begun}  {_outcome(one):<12}{took:>12}  {visible(one.command)}")


@runs.command()
@click.argument("run", default="last")
def show(run: str) -> int:
    """Print the results of a run, and exit with its exit code."""
    record = pick(run)
    view = View(record)
    for line in _about(record):
        print(line)
    print()
    if view.matrix.columns:
        matrix.show(fold(view.matrix))
        print()
    failures = [
        f"{judged.status.value:<6} {visible(cell.step)}: {visible(record.name(cell, test))}"
        + (f" ({visible(judged.note)})" if judged.note else "")
        for cell, test, judged in view.failures()
    ]
    splats = [
        f"splat  {visible(cell.step)}: {visible(splat.title)}"
        for cell in record.cells
        for splat in cell.splats
        if not splat.expected
    ]
    for line in _cut([*failures, *splats]):
        print(line)
    print(view.sentence)
    if view.tone is Tone.GOOD:
        return EXIT_OK
    return EXIT_VERDICT if view.tone is Tone.BAD else EXIT_INFRA


@runs.command()
@click.argument("a")
@click.argument("b", default="last")
def compare(a: str, b: str) -> int:
    """Print the changes from A to B: failures, passes, slow tests, warnings."""
    old, new = pick(a), pick(b)
    found = compared(old, new)
    print(f"from {old.id}  iommuq {visible(old.command)}")
    print(f"to   {new.id}  iommuq {visible(new.command)}")
    for record in (old, new):
        if record.state is not State.FINISHED:
            print(f"{record.id} is {record.state.value}: its results are incomplete")
    for line in _report(found):
        print(line)
    return EXIT_VERDICT if found.is_worse else EXIT_OK


#: Maximal lines of each list.
_LINES = 40
_WORDS = {0: "ok", 1: "failed", 2: "mistake", 3: "no verdict", 130: "interrupted"}


def _outcome(one: Summary) -> str:
    if one.state is not State.FINISHED:
        return one.state.value
    if one.exit_code is None:
        return "finished"  # recorded by an older iommuq
    return _WORDS.get(one.exit_code, f"exit {one.exit_code}")


def _about(record: CommandRun) -> Iterator[str]:
    yield f"Run {record.id}: iommuq {visible(record.command)}"
    begun = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(record.started))
    took = "" if record.seconds is None else f", took {duration(record.seconds)}"
    yield f"{begun}{took}, {record.state.value}"
    if record.head.title:
        yield visible(record.head.title)
    guests = Counter(f"{cell.guest} ({cell.accelerator})" for cell in record.cells if cell.guest)
    if guests:
        yield "ran on " + ", ".join(visible(guest) for guest in guests)


def _report(found: Comparison) -> Iterator[str]:
    slow = [
        f"{visible(one.step)} {visible(one.what)}: {duration(one.seconds)}, usually"
        f" {duration(one.usual)}".strip()
        for one in found.slow
    ]
    lists: tuple[tuple[str, Sequence[str]], ...] = (
        ("newly failing", list(_changes(found.failing))),
        ("newly passing", list(_changes(found.passing))),
        ("without a verdict now", list(_changes(found.lost))),
        ("missing now", list(_changes(found.gone))),
        ("newly slow", slow),
        ("warnings gained", [f"{visible(step)}: {visible(line)}" for step, line in found.gained]),
        ("warnings lost", [f"{visible(step)}: {visible(line)}" for step, line in found.vanished]),
    )
    for title, lines in lists:
        if lines:
            yield f"{len(lines)} {title}:"
            yield from (f"  {line}" for line in _cut(lines))
    if not any(lines for _, lines in lists):
        yield "Nothing changed."
    if found.alone:
        yield f"only in one of them: {', '.join(visible(step) for step in found.alone)}"
    if found.unjudged:
        yield f"{found.unjudged} times not judged: too few earlier runs"


def _changes(changes: Iterable[VerdictChange]) -> Iterator[str]:
    for one in changes:
        before = "missing" if one.before is None else one.before.value
        after = "" if one.after is None else f", is {one.after.value}"
        yield f"{visible(one.step)} {visible(one.test)}: was {before}{after}"


def _cut(lines: Sequence[str]) -> list[str]:
    if len(lines) <= _LINES:
        return list(lines)
    return [*lines[:_LINES], f"… {len(lines) - _LINES} more; `iommuq report` has all"]
