# SPDX-License-Identifier: GPL-2.0-only
"""One exploration in some processes, each with a guest, and its output."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path
from typing import Any

from iommuq.explore import store
from iommuq.explore.campaign import Outcome, Plan, explore
from iommuq.explore.drivers.finds import DriverFind
from iommuq.explore.plans import Wanted, plans_of
from iommuq.explore.play import AnyFind, Seen, carry_out, replay
from iommuq.system import groups, progress, run
from iommuq.system.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_VERDICT, InfraError, UserError
from iommuq.system.logtext import escape

#: Version of the JSON form.
FORMAT = 1
#: Seconds that a process may take longer than it explores: to build, and to shorten a find.
_GRACE = 3600.0
#: Seconds that a process has after Ctrl-C, to tell of the find that it has in hand.
_LAST_WORDS = 5.0
#: How a find is called that is not seen each time.
_WORDS = {Seen.SOMETIMES: "FLAKY", Seen.ONCE: "SEEN ONCE"}


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
    before = Outcome()
    before.sum(outcome, Outcome())
    # One that was flaky may repeat in this one.
    met = frozenset(find.signature for find in outcome.finds)
    title = f"Exploring {plan.base} {plan.step}{f' on {wanted.on}' if wanted.on else ''}"
    with progress.task(title, log=plan.log) as step:

        def tell(so_far: Outcome) -> None:
            outcome.sum(before, so_far)
            step.update(note=summary(outcome))
            emit({"event": "progress", **figures(outcome)})

        def found(find: AnyFind, seen: Seen) -> None:
            if before.has(find, seen):
                return
            path = None if wanted.empty else store.keep(wanted.place, find, seen)
            emit(_event(wanted, find, seen, plan.log, path))

        try:
            explore(replace(plan, met=met), part, tell, found)
        finally:
            outcome.sum(before, part)


def run_all(wanted: Wanted, plans: Sequence[Plan], outcome: Outcome, emit: Emit) -> None:
    """Explore in several processes, and merge what they find.

    Where one cannot go on, the others do, until their time is over.

    :raises InfraError: one of them could not go on.
    """
    lock = threading.Lock()
    parts: list[dict[str, Any]] = [{}] * wanted.jobs
    pids: dict[int, int] = {}

    def take(number: int, line: str) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            return
        with lock:
            if event.get("event") == "find":
                find = store.load_any(event, "a process of this exploration")
                if outcome.add(find, _seen(event)):
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
        try:
            done = run.run(
                argv,
                cwd=Path.cwd(),
                env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                timeout=wanted.seconds + _GRACE,
                on_line=lambda line: take(number, line),
                check=False,
                watched=True,
                on_start=lambda pid: pids.update({number: pid}),
            )
        finally:
            pids.pop(number, None)
        _check_end(f"process {number + 1} of {wanted.jobs}", parts[number], done)

    with (
        progress.task(f"Exploring {plans[0].base} {plans[0].step}", log=plans[0].log) as step,
        groups.pool(wanted.jobs) as pool,
    ):
        jobs = [pool.submit(job, number) for number in range(wanted.jobs)]
        try:
            wait(jobs)
        except KeyboardInterrupt:
            # The pool would kill them before they tell what they have in hand.
            for pid in [*pids.values()]:
                groups.signal_group(pid, signal.SIGTERM)
            wait(jobs, _LAST_WORDS)
            raise
        for each in jobs:
            each.result()


def _check_end(name: str, end: dict[str, Any], done: run.Completed) -> None:
    """Check that a process has explored to the end of its time.

    :param end: what it told last.
    :raises InfraError: it has not.
    """
    code = end.get("exit")
    good = (EXIT_OK, EXIT_VERDICT)
    if end.get("event") == "end" and code in good and done.returncode in good:
        return
    if code == EXIT_INTERRUPTED:
        raise InfraError(f"{name} was interrupted")
    if end.get("error"):
        raise InfraError(f"{name}: {end['error']}", hint=str(end.get("hint", "")))
    # What a command says when it cannot begin, too.
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    how = run.describe_status(done.returncode)
    raise InfraError(f"{name} ended before its time: {how}", hint=" ".join(said[-2:]))


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
        "unsettled": len(outcome.unsettled),
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
    said = f"{plan.base} {plan.step}: {summary(outcome)}"
    said += f", {len(outcome.flaky)} flaky" if outcome.flaky else ""
    said += f", {len(outcome.unsettled)} not repeated yet" if outcome.unsettled else ""
    return f"{word}: {said}" if ended else f"not to its end: {said}"


def find_lines(event: dict[str, Any]) -> list[str]:
    """Return a find as text, safe for a terminal."""
    find, seen = store.load_any(event, "find"), _seen(event)
    lines = find.lines()
    if seen in _WORDS:
        lines[0] = lines[0].replace("FAIL:", f"{_WORDS[seen]}:", 1)
    if seen is Seen.ONCE:
        lines.append("  not repeated yet: the exploration ended before; not made shorter, either")
    lines.append(f"  step: {find.base} {find.step}")
    if seen is not Seen.ALWAYS:
        lines.append(f"  log: {event['log']}")
    if event["again"]:
        lines.append(f"  again: {event['again']}")
    return [escape(line) for line in lines]


def _event(
    wanted: Wanted, find: AnyFind, seen: Seen, log: Path, path: Path | None
) -> dict[str, Any]:
    """Return a find for JSON, and for the process that has started this one."""
    return {
        "event": "find",
        **find.to_json(),
        "repeats": seen is Seen.ALWAYS,
        "seen": seen.name.lower(),
        "log": str(log),
        "file": str(path or ""),
        "again": shlex.join(_again(wanted, find, path)) if path else "",
    }


def _seen(event: dict[str, Any]) -> Seen:
    """Return how the find of an event was seen."""
    return Seen[event["seen"].upper()]


def _again(wanted: Wanted, find: AnyFind, path: Path) -> list[str]:
    """Return the command that carries a find out again, on the same kernel."""
    # A kernel that was built elsewhere has no steps; machine and layout are in the file.
    at = [] if wanted.kernel or not find.step else ["--at", find.step]
    return [
        *("iommuq", "explore", wanted.base, *at),
        *(["--kernel", wanted.kernel] if wanted.kernel else []),
        *(["--light"] if wanted.light else []),
        *(word for name in wanted.without for word in ("--without", name)),
        *("--replay", str(path)),
    ]


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
    again = replace(_place_of(wanted, find), only=(find.signature,))
    (plan,) = plans_of(again)
    with plan.play(plan) as player:
        found = replay(player, find.operations, find.signature)
    for each in found:
        seen: AnyFind = each
        if seen.signature == find.signature:
            return seen.relabelled(plan.base, again.at or plan.step, find.seed)
    raise UserError(
        f"{plan.base} {plan.step}: {find.signature}: it is not so", hint="no case was written"
    )


def replayed(wanted: Wanted, find: AnyFind, emit: Emit) -> int:
    """Carry out one find, and return the exit code: 1 if it is seen.

    What else does not hold is passed over, and named.

    :raises GuestDied: the guest was lost, and its kernel has not printed why.
    """
    (plan,) = plans_of(_place_of(wanted, find))
    with plan.play(plan) as player:
        seen = carry_out(player, find.operations, lambda each, _: each.signature == find.signature)
    found = [each for each in seen.found if each.signature == find.signature]
    for each in found:
        again = each.relabelled(plan.base, plan.step, find.seed)
        emit(_event(wanted, again, Seen.ALWAYS, plan.log, None))
    others = dict.fromkeys(each.signature for each in (*seen.passed, *seen.found))
    others.pop(find.signature, None)
    code = EXIT_VERDICT if found else EXIT_OK
    emit(
        {
            "event": "end",
            "finds": len(found),
            "others": list(others),
            "left_out": seen.left_out,
            "exit": code,
        }
    )
    word = "FAIL" if found else "PASS"
    said = progress.count(len(find.operations), "operation")
    if seen.left_out:
        said += f"; could not be carried out: {', '.join(progress.ranges(seen.left_out))}"
    for each in others:
        said += f"; also {each}{' (known)' if plan.exceptions.knows(each) else ''}"
    progress.note(f"{word}: {plan.base} {plan.step}: {said}")
    return code


def _place_of(wanted: Wanted, find: AnyFind) -> Wanted:
    """Return what the user has asked for, on the machine and the step of a find."""
    # Another base, or a kernel that was built elsewhere, does not have its step.
    own = find.step if find.base == wanted.base and not wanted.kernel else ""
    wanted = replace(wanted, at=wanted.at or own or None, empty=True)
    if isinstance(find, DriverFind):
        return replace(wanted, on=find.machine, layout=find.layout)
    return replace(wanted, on="")
