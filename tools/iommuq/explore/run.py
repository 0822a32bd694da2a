# SPDX-License-Identifier: GPL-2.0-only
"""One exploration in some processes, each with a guest, and its output."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from iommuq.explore import store
from iommuq.explore.campaign import Outcome, Plan, explore
from iommuq.explore.drivers.finds import DriverFind
from iommuq.explore.plans import Wanted, plans_of
from iommuq.explore.play import AnyFind, replay
from iommuq.system import progress, run
from iommuq.system.errors import EXIT_OK, EXIT_VERDICT, InfraError, UserError
from iommuq.system.logtext import escape

#: Version of the JSON form.
FORMAT = 1
#: Seconds that a process may take longer than it explores: to build, and to shorten a find.
_GRACE = 3600.0


Emit = Callable[[dict[str, Any]], None]


def run_one(wanted: Wanted, plans: Sequence[Plan], outcome: Outcome, emit: Emit) -> None:
    """Explore in this process, one plan after the other.

    :raises GuestDied: the guest was lost, and its kernel has not printed why.
    """
    for plan in plans:
        _run_part(wanted, plan, outcome, emit)


def _run_part(wanted: Wanted, plan: Plan, outcome: Outcome, emit: Emit) -> None:
    """Explore one plan, and add what comes of it to the outcome."""
    part = Outcome()
    before = replace(outcome, finds=[*outcome.finds], flaky=[*outcome.flaky])
    met = frozenset(find.signature for find in (*outcome.finds, *outcome.flaky))
    title = f"Exploring {plan.base} {plan.step}{f' on {wanted.on}' if wanted.on else ''}"
    with progress.task(title, log=plan.log) as step:

        def tell(so_far: Outcome) -> None:
            outcome.sum(before, so_far)
            step.update(note=summary(outcome))
            emit({"event": "progress", **figures(outcome)})

        def found(find: AnyFind, repeats: bool) -> None:
            path = None if wanted.empty else store.keep(wanted.place, find)
            emit(_event(find, repeats, path))

        try:
            explore(replace(plan, met=met), part, tell, found)
        finally:
            outcome.sum(before, part)


def run_all(wanted: Wanted, plans: Sequence[Plan], outcome: Outcome, emit: Emit) -> None:
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
                find = store.load_any(event, "a process of this exploration")
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
            *("--operations", str(-(-wanted.most // wanted.jobs))),
            *(["--at", wanted.at] if wanted.at else []),
            *(word for name in wanted.without for word in ("--without", name)),
            *(word for name in wanted.only for word in ("--only", name)),
            *(["--empty"] if wanted.empty else []),
            *(["--on", wanted.on] if wanted.on else []),
            *(["--layout", wanted.layout] if wanted.layout else []),
            *(["--kernel", wanted.kernel] if wanted.kernel else []),
            *(["--light"] if wanted.light else []),
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
        progress.task(f"Exploring {plans[0].base} {plans[0].step}", log=plans[0].log) as step,
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
    blocks = f"{outcome.blocks} blocks of iommu.c, " if outcome.blocks else ""
    return (
        f"{outcome.sequences} sequences, {outcome.operations} operations ({rate:.0f}/s), "
        f"{blocks}{progress.count(len(outcome.finds), 'find')}"
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
    find = store.load_any(event, "find")
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


def shown(wanted: Wanted, find: AnyFind) -> AnyFind:
    """Carry a find out again on the step that it was found on, for a case to be written.

    :return: what was seen: a file may say anything.
    :raises UserError: it is not seen.
    """
    at = wanted.at or find.step or None
    again = replace(_place_of(wanted, find), at=at, empty=True, only=(find.signature,))
    (plan,) = plans_of(again)
    with plan.play(plan) as player:
        found = replay(player, find.operations, find.signature)
    for each in found:
        seen: AnyFind = each
        if seen.signature == find.signature:
            return seen.relabelled(plan.base, at or plan.step, find.seed)
    raise UserError(
        f"{plan.base} {plan.step}: {find.signature}: it is not so", hint="no case was written"
    )


def replayed(wanted: Wanted, find: AnyFind, emit: Emit) -> int:
    """Carry out one find, and return the exit code: 1 if a rule does not hold.

    :raises GuestDied: the guest was lost, and its kernel has not printed why.
    """
    (plan,) = plans_of(replace(_place_of(wanted, find), empty=True))
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


def _place_of(wanted: Wanted, find: AnyFind) -> Wanted:
    """Return what the user has asked for, on the machine of a find."""
    if isinstance(find, DriverFind):
        return replace(wanted, on=find.machine, layout=find.layout)
    return replace(wanted, on="")
