# SPDX-License-Identifier: GPL-2.0-only
"""One exploration in some processes, each with a guest, and its output."""

from __future__ import annotations

import datetime
import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from iommuq.explore import store
from iommuq.explore.campaign import Outcome, Plan, explore
from iommuq.explore.exceptions import load as load_exceptions
from iommuq.explore.finds import Find, load
from iommuq.explore.image import Subject
from iommuq.explore.play import AnyFind, replay
from iommuq.explore.rules import all_rules, choose
from iommuq.system import progress, run
from iommuq.system.errors import EXIT_OK, EXIT_VERDICT, InfraError, UserError
from iommuq.system.files import new_log
from iommuq.system.logtext import escape

#: Version of the JSON form.
FORMAT = 1
#: Seconds that a process may take longer than it explores: to build, and to shorten a find.
_GRACE = 3600.0


@dataclass(frozen=True)
class Wanted:
    """What the user has asked for.

    :ivar seconds: how long to explore.
    :ivar jobs: processes, each with a guest of its own.
    :ivar without: rules, or groups of rules, that are left out.
    :ivar empty: neither use nor keep earlier finds and examples.
    :ivar only: patterns of the signatures that are looked for, also of known ones; empty for all.
    """

    base: str
    at: str | None
    seconds: float
    seed: int
    jobs: int = 1
    without: tuple[str, ...] = ()
    empty: bool = False
    only: tuple[str, ...] = ()


Emit = Callable[[dict[str, Any]], None]


def plan_of(wanted: Wanted) -> Plan:
    """Open and build what is to be explored.

    :raises UserError: a name is unknown, or an entry of the list of exceptions has expired.
    :raises VerdictError: the step does not build.
    """
    rules = choose(wanted.without)
    subject = Subject.open(wanted.base, wanted.at)
    folder = subject.workspace.base.spec.folder
    exceptions = load_exceptions(folder, frozenset(rule.name for rule in all_rules()))
    if wanted.only:
        exceptions = replace(exceptions, known=())
    for reason in exceptions.expired(datetime.datetime.now(tz=datetime.UTC).date()):
        raise UserError(
            f"{folder / 'explore.toml'}: an entry has expired: {reason[:80]}",
            hint="look whether its reason still holds, and change the date or remove it",
        )
    kernel = subject.build()
    own = store.folder(wanted.base)
    return Plan(
        kernel,
        rules,
        exceptions,
        wanted.seconds,
        wanted.seed,
        None if wanted.empty else own / "examples",
        new_log(f"explore-{wanted.base}-{subject.step.label}"),
        wanted.base,
        subject.step.label,
        only=wanted.only,
        first=() if wanted.empty else tuple(store.kept(wanted.base)),
    )


def run_one(wanted: Wanted, plan: Plan, outcome: Outcome, emit: Emit) -> None:
    """Explore in this process.

    :raises GuestDied: the guest was lost, and its kernel has not printed why.
    """
    title = f"Exploring {plan.base} {plan.step}"
    with progress.task(title, log=plan.log) as step:

        def tell(so_far: Outcome) -> None:
            step.update(note=summary(so_far))
            emit({"event": "progress", **figures(so_far)})

        def found(find: AnyFind, repeats: bool) -> None:
            path = None if wanted.empty else store.keep(plan.base, find)
            emit(_event(find, repeats, path))

        explore(plan, outcome, tell, found)


def run_all(wanted: Wanted, plan: Plan, outcome: Outcome, emit: Emit) -> None:
    """Explore in several processes, and merge what they find.

    :raises InfraError: one of them could not go on.
    """
    lock = threading.Lock()
    parts: list[dict[str, Any]] = [{}] * wanted.jobs

    def take(number: int, line: str) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            return
        with lock:
            if event.get("event") == "find":
                find = load(event, "a process of this exploration")
                known = {each.signature for each in (*outcome.finds, *outcome.flaky)}
                if find.signature not in known:
                    (outcome.finds if event["repeats"] else outcome.flaky).append(find)
                    emit(event)
            elif event.get("event") in ("progress", "end"):
                parts[number] = event
                _merge(outcome, parts)
                step.update(note=summary(outcome))

    def job(number: int) -> None:
        argv = [
            *(sys.executable, "-m", "iommuq", "explore", wanted.base, "--json", "--jobs", "1"),
            *("--for", f"{wanted.seconds:g}s", "--seed", str(wanted.seed + number)),
            *(["--at", wanted.at] if wanted.at else []),
            *(word for name in wanted.without for word in ("--without", name)),
            *(word for name in wanted.only for word in ("--only", name)),
            *(["--empty"] if wanted.empty else []),
        ]
        run.run(
            argv,
            cwd=Path.cwd(),
            env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            timeout=wanted.seconds + _GRACE,
            on_line=lambda line: take(number, line),
            check=False,
            watched=True,
        )
        if parts[number].get("event") != "end":
            raise InfraError(
                f"process {number + 1} of {wanted.jobs} ended before its time",
                hint="run it with --jobs 1 to see why",
            )

    with (
        progress.task(f"Exploring {plan.base} {plan.step}", log=plan.log) as step,
        ThreadPoolExecutor(wanted.jobs) as pool,
    ):
        for future in [pool.submit(job, number) for number in range(wanted.jobs)]:
            future.result()


def figures(outcome: Outcome) -> dict[str, Any]:
    """Return the numbers of an exploration for JSON."""
    return {
        "seconds": round(outcome.seconds, 2),
        "operations": outcome.operations,
        "sequences": outcome.sequences,
        "blocks": outcome.blocks,
        "boots": outcome.boots,
        "finds": len(outcome.finds),
        "flaky": len(outcome.flaky),
    }


def summary(outcome: Outcome) -> str:
    """Return the numbers of an exploration in a line."""
    rate = outcome.operations / outcome.seconds if outcome.seconds else 0.0
    return (
        f"{outcome.sequences} sequences, {outcome.operations} operations ({rate:.0f}/s), "
        f"{outcome.blocks} blocks of iommu.c, {progress.count(len(outcome.finds), 'find')}"
    )


def verdict(plan: Plan, outcome: Outcome, *, ended: bool = True) -> str:
    """Return the last line of an exploration.

    :param ended: its time is over; else it was interrupted, or the guest was lost.
    """
    word = "FAIL" if outcome.finds else "PASS"
    flaky = f", {len(outcome.flaky)} flaky" if outcome.flaky else ""
    said = f"{plan.base} {plan.step}: {summary(outcome)}{flaky}"
    return f"{word}: {said}" if ended else f"not to its end: {said}"


def find_lines(event: dict[str, Any]) -> list[str]:
    """Return a find as text, safe for a terminal."""
    find = load(event, "find")
    lines = find.lines()
    if not event["repeats"]:
        lines[0] = lines[0].replace("FAIL:", "FLAKY:", 1)
    if event.get("file"):
        lines.append(f"  again: iommuq explore {find.base} --replay {event['file']}")
    return [escape(line) for line in lines]


def _event(find: AnyFind, repeats: bool, path: Path | None) -> dict[str, Any]:
    file = str(path) if path is not None else ""
    return {"event": "find", **find.to_json(), "repeats": repeats, "file": file}


def _merge(outcome: Outcome, parts: Sequence[dict[str, Any]]) -> None:
    for name in ("operations", "sequences", "boots"):
        setattr(outcome, name, sum(part.get(name, 0) for part in parts))
    outcome.seconds = max((part.get("seconds", 0.0) for part in parts), default=0.0)
    # Each has its own table of blocks; most are the same.
    outcome.blocks = max((part.get("blocks", 0) for part in parts), default=0)


def shown(wanted: Wanted, find: Find) -> AnyFind:
    """Carry a find out again on the step that it was found on, for a case to be written.

    :return: what was seen: a file may say anything.
    :raises UserError: it is not seen.
    """
    at = wanted.at or find.step or None
    plan = plan_of(replace(wanted, at=at, empty=True, only=(find.signature,)))
    with plan.play(plan) as player:
        found = replay(player, find.operations, find.signature)
    for each in found:
        if each.signature == find.signature:
            return each.relabelled(plan.base, at or plan.step, find.seed)
    raise UserError(
        f"{plan.base} {plan.step}: {find.signature}: it is not so", hint="no case was written"
    )


def replayed(wanted: Wanted, find: Find, emit: Emit) -> int:
    """Carry out one find, and return the exit code: 1 if a rule does not hold.

    :raises GuestDied: the guest was lost, and its kernel has not printed why.
    """
    plan = plan_of(replace(wanted, empty=True))
    with plan.play(plan) as player:
        found = replay(player, find.operations)
    for each in found:
        emit(_event(each.relabelled(plan.base, plan.step, find.seed), True, None))
    word = "FAIL" if found else "PASS"
    emit({"event": "end", "finds": len(found), "exit": EXIT_VERDICT if found else EXIT_OK})
    progress.note(
        f"{word}: {plan.base} {plan.step}: {progress.count(len(find.operations), 'operation')}"
    )
    return EXIT_VERDICT if found else EXIT_OK
