# SPDX-License-Identifier: GPL-2.0-only
"""One exploration: run after run of Hypothesis until the time is over."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.database import DirectoryBasedExampleDatabase, ExampleDatabase
from hypothesis.errors import Flaky, StopTest, Unsatisfiable
from hypothesis.stateful import run_state_machine_as_test

from iommuq.explore.exceptions import Exceptions
from iommuq.explore.guest import Guest, GuestDied
from iommuq.explore.machine import STEPS, Found, Lost, Session, machine
from iommuq.explore.play import AnyFind, Play, replay
from iommuq.explore.player import Player
from iommuq.explore.rules.model import Rule
from iommuq.explore.shorten import shortest
from iommuq.system.files import cache_dir

#: Sequences of one run of Hypothesis: it gets slower with what it remembers.
EXAMPLES = 400
#: How often a find must repeat.
REPEATS = 3
# Each run has a seed of its own, and no two explorations the same ones.
_SEEDS = 100_000
_PHASES = (Phase.reuse, Phase.generate)


@contextlib.contextmanager
def simulated(plan: Plan) -> Iterator[Player]:
    """Start a guest with the simulated IOMMU."""
    with Guest(plan.kernel, plan.log) as guest:
        yield Player(guest, plan.rules, plan.exceptions)


@dataclass(frozen=True)
class Plan:
    """What to explore.

    :ivar kernel: what is booted.
    :ivar seconds: how long.
    :ivar database: folder of Hypothesis' examples; None: none are kept.
    :ivar only: patterns of the signatures that are finds; empty for all.
    :ivar quick: neither shorten nor repeat a find.
    :ivar most: end after this many operations; 0: when the time is over.
    :ivar enough: end at this many finds; 0: when the time is over.
    :ivar first: finds to try before anything else.
    :ivar met: signatures that are no finds any more.
    :ivar shrink: let Hypothesis shorten a find before its steps are left out one by one.
    :ivar go_on: a sequence goes on after what is no find.
    :ivar reboot: each repetition of a find begins in a new guest.
    :ivar play: starts a guest, and what carries operations out on it.
    """

    kernel: Path
    rules: Sequence[Rule]
    exceptions: Exceptions
    seconds: float
    seed: int
    database: Path | None
    log: Path
    base: str = ""
    step: str = ""
    only: tuple[str, ...] = ()
    quick: bool = False
    most: int = 0
    enough: int = 0
    first: Sequence[AnyFind] = ()
    met: frozenset[str] = frozenset()
    shrink: bool = True
    reboot: bool = True
    go_on: bool = False
    play: Callable[[Plan], AbstractContextManager[Play[Any, Any]]] = simulated


@dataclass
class Outcome:
    """What an exploration has found and done.

    :ivar flaky: finds that did not repeat each time.
    :ivar times: signature -> seconds and operations until it was found.
    """

    finds: list[AnyFind] = field(default_factory=list)
    flaky: list[AnyFind] = field(default_factory=list)
    times: dict[str, tuple[float, int]] = field(default_factory=dict)
    operations: int = 0
    sequences: int = 0
    seconds: float = 0.0
    blocks: int = 0
    boots: int = 0

    def sum(self, one: Outcome, other: Outcome) -> None:
        """Become the sum of two."""
        self.finds, self.flaky = [*one.finds, *other.finds], [*one.flaky, *other.flaky]
        self.times = one.times | other.times
        self.operations = one.operations + other.operations
        self.sequences = one.sequences + other.sequences
        self.seconds = one.seconds + other.seconds
        self.blocks = max(one.blocks, other.blocks)
        self.boots = one.boots + other.boots


class _Over(BaseException):
    """The time or the operations are over; no `Exception`: Hypothesis takes those for finds."""


def explore(
    plan: Plan,
    outcome: Outcome,
    progress: Callable[[Outcome], None],
    found: Callable[[AnyFind, bool], None],
) -> None:
    """Explore until the time is over, or the operations.

    :param outcome: gets what is found, and is right whenever this ends.
    :param progress: called about once a second.
    :param found: called with each find, and whether it repeats each time.
    :raises GuestDied: the guest was lost, and its kernel has not printed why.
    """
    # Not where the command is called: Hypothesis keeps what it learns of the code.
    set_hypothesis_home_dir(cache_dir() / "hypothesis")
    begin = time.monotonic()
    seen: set[str] = set()
    database = DirectoryBasedExampleDatabase(plan.database) if plan.database else None
    told = begin

    with plan.play(plan) as player:

        def update() -> None:
            outcome.operations, outcome.sequences = player.count, player.sequences
            outcome.blocks, outcome.boots = player.blocks, player.boots
            outcome.seconds = time.monotonic() - begin

        def tick() -> None:
            nonlocal told
            now = time.monotonic()
            if now > begin + plan.seconds or 0 < plan.most <= player.count:
                raise _Over
            if now > told + 1.0:
                told = now
                update()
                progress(outcome)

        def is_new(signature: str) -> bool:
            if signature in seen | plan.met or plan.exceptions.knows(signature):
                return False
            return not plan.only or any(fnmatchcase(signature, glob) for glob in plan.only)

        def repeated(find: AnyFind) -> tuple[AnyFind, int]:
            """Return the shortest form of a find, and how often it repeats."""
            alone = not plan.only and not plan.go_on
            short = shortest(player, find, alone=alone)
            short = short.relabelled(plan.base, plan.step, plan.seed)
            same = 0
            for number in range(REPEATS):
                # WARN_ON_ONCE() warns once for each boot.
                if plan.reboot or not number or find.breach.rule == "splats.printed":
                    player.renew()
                again = replay(player, short.operations, "" if alone else find.signature)
                same += any(each.signature == find.signature for each in again)
            return short, same

        def settle(find: AnyFind) -> None:
            """Shorten a find, and see whether it repeats each time."""
            seen.add(find.signature)
            if plan.quick:
                outcome.finds.append(find)
                return
            try:
                short, same = repeated(find)
            except GuestDied:
                outcome.flaky.append(find.relabelled(plan.base, plan.step, plan.seed))
                raise
            (outcome.finds if same == REPEATS else outcome.flaky).append(short)
            found(short, same == REPEATS)

        number = 0
        try:
            for find in plan.first:
                again = [each for each in replay(player, find.operations) if is_new(each.signature)]
                if again:
                    update()
                    outcome.times[again[0].signature] = (outcome.seconds, outcome.operations)
                    settle(again[0])
            while not plan.enough or len(outcome.finds) < plan.enough:
                session = Session(player, is_new, tick, only=plan.go_on or bool(plan.only))
                shrink = plan.shrink and not plan.quick
                phases = (*_PHASES, *((Phase.shrink,) if shrink else ()))
                over = not _run(session, database, plan.seed * _SEEDS + number, phases)
                number += 1
                if session.best is not None:
                    update()
                    if session.first is not None:
                        when, count = session.first
                        outcome.times[session.best.signature] = (when - begin, count)
                    settle(session.best)
                if over:
                    break
        finally:
            update()


def _run(
    session: Session[Any, Any], database: ExampleDatabase | None, seed: int, phases: Sequence[Phase]
) -> bool:
    """Let Hypothesis try some sequences; False if the time is over."""
    chosen = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=database,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
        print_blob=False,
        report_multiple_bugs=False,
    )
    try:
        run_state_machine_as_test(
            hypothesis.seed(seed)(machine(session)), settings=chosen, _min_steps=1
        )
    except (Found, Lost, Unsatisfiable, Flaky, StopTest):
        pass
    except _Over:
        return False
    if session.lost is not None:
        raise session.lost
    return True
