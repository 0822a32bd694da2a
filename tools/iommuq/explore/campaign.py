# SPDX-License-Identifier: GPL-2.0-only
"""One exploration: run after run of Hypothesis until the time is over."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
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
from iommuq.explore.play import AnyFind, Play, Seen, carry_out, replay
from iommuq.explore.player import Player
from iommuq.explore.rules.model import Rule
from iommuq.explore.shorten import shortest
from iommuq.system.files import cache_dir

#: Sequences of one run of Hypothesis: it gets slower with what it remembers.
EXAMPLES = 400
#: How often a find must repeat.
REPEATS = 3
#: How often a find of a signature is tried that does not repeat: another may.
TRIES = 3
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
    :ivar unsettled: finds that were not repeated: the exploration ended before.
    """

    finds: list[AnyFind] = field(default_factory=list)
    flaky: list[AnyFind] = field(default_factory=list)
    times: dict[str, tuple[float, int]] = field(default_factory=dict)
    operations: int = 0
    sequences: int = 0
    seconds: float = 0.0
    blocks: int = 0
    boots: int = 0
    unsettled: list[AnyFind] = field(default_factory=list)

    def of(self, seen: Seen) -> list[AnyFind]:
        """Return the finds that were seen so."""
        lists = {Seen.ALWAYS: self.finds, Seen.SOMETIMES: self.flaky, Seen.ONCE: self.unsettled}
        return lists[seen]

    def has(self, find: AnyFind, seen: Seen) -> bool:
        """Tell whether there is a find of that signature that was seen so, or always."""
        some = [*self.finds, *self.of(seen)]
        return any(each.signature == find.signature for each in some)

    def add(self, find: AnyFind, seen: Seen) -> bool:
        """Add a find, unless there is one like it; one that repeats replaces those that do not.

        :return: whether it was added.
        """
        if self.has(find, seen):
            return False
        if seen is Seen.ALWAYS:
            for some in (self.flaky, self.unsettled):
                some[:] = [each for each in some if each.signature != find.signature]
        self.of(seen).append(find)
        return True

    def sum(self, one: Outcome, other: Outcome) -> None:
        """Become the sum of two."""
        self.finds, self.flaky, self.unsettled = [], [], []
        for part in (one, other):
            for seen in Seen:
                for find in part.of(seen):
                    self.add(find, seen)
        self.times = one.times | other.times
        self.operations = one.operations + other.operations
        self.sequences = one.sequences + other.sequences
        self.seconds = one.seconds + other.seconds
        self.blocks = max(one.blocks, other.blocks)
        self.boots = one.boots + other.boots


class _Over(BaseException):
    """The time or the operations are over; no `Exception`: Hypothesis takes those for finds."""


Progress = Callable[[Outcome], None]
Tell = Callable[[AnyFind, Seen], None]


def explore(plan: Plan, outcome: Outcome, progress: Progress, found: Tell) -> None:
    """Explore until the time is over, or the operations.

    :param outcome: gets what is found, and is right whenever this ends.
    :param progress: called about once a second.
    :param found: called with each find, and how it was seen; also with the one that was just
        met when this is interrupted, or the guest is lost.
    :raises GuestDied: the guest was lost, and its kernel has not printed why.
    """
    # Not where the command is called: Hypothesis keeps what it learns of the code.
    set_hypothesis_home_dir(cache_dir() / "hypothesis")
    begin = time.monotonic()
    with plan.play(plan) as player:
        _Campaign(plan, player, outcome, progress, found, begin).go()


class _Campaign:
    """An exploration that goes on.

    :ivar solid: signatures of finds that have repeated each time.
    :ivar missed: how often finds of a signature have not.
    :ivar in_hand: a find that was met, and is not in the outcome yet.
    """

    def __init__(
        self,
        plan: Plan,
        player: Play[Any, Any],
        outcome: Outcome,
        progress: Progress,
        found: Tell,
        begin: float,
    ) -> None:
        self.plan = plan
        self.player = player
        self.outcome = outcome
        self.progress = progress
        self.found = found
        self.begin = self.told = begin
        self.solid: set[str] = set()
        self.missed = Counter[str]()
        self.in_hand: AnyFind | None = None
        # Others may be found in a sequence before what is looked for.
        self.alone = not plan.only and not plan.go_on

    def go(self) -> None:
        """Try what was found before, then what Hypothesis makes; see `explore`."""
        plan = self.plan
        try:
            for find in plan.first:
                # There is one for each step that it was found on.
                if self._is_new(find.signature):
                    self._try(find)
            database = DirectoryBasedExampleDatabase(plan.database) if plan.database else None
            number, goes_on = 0, True
            while goes_on and (not plan.enough or len(self.outcome.finds) < plan.enough):
                goes_on = self._draw(database, plan.seed * _SEEDS + number)
                number += 1
        except BaseException:
            # It was met, and has taken its time: Ctrl-C or a lost guest must not hide it.
            if self.in_hand is not None:
                self._leave(self.in_hand)
            raise
        finally:
            self._update()

    def _try(self, find: AnyFind) -> None:
        """Carry an earlier find out again; others that are no finds any more may hide it."""

        def looked_for(each: AnyFind, others: bool) -> bool:
            # What else comes after others may follow from them.
            own = not others or not self.alone or each.signature == find.signature
            return own and self._is_new(each.signature)

        seen = carry_out(self.player, find.operations, looked_for)
        others = bool(seen.passed)
        again = [each for each in seen.found if looked_for(each, others)]
        if again:
            self._update()
            outcome = self.outcome
            outcome.times[again[0].signature] = (outcome.seconds, outcome.operations)
            self._settle(again[0], alone=self.alone and not others)

    def _draw(self, database: ExampleDatabase | None, seed: int) -> bool:
        """Let Hypothesis try some sequences; False if the time is over."""
        plan = self.plan
        session = Session(self.player, self._is_new, self._tick, only=not self.alone)
        shrink = plan.shrink and not plan.quick
        phases = (*_PHASES, *((Phase.shrink,) if shrink else ()))
        try:
            goes_on = _run(session, database, seed, phases)
        finally:
            self.in_hand = session.best
        if session.best is not None:
            self._update()
            if session.first is not None:
                when, count = session.first
                self.outcome.times[session.best.signature] = (when - self.begin, count)
            self._settle(session.best, alone=self.alone)
        return goes_on

    def _settle(self, find: AnyFind, *, alone: bool) -> None:
        """Shorten a find, and see whether it repeats each time."""
        self.in_hand = find
        if self.plan.quick:
            self._leave(find)
            return
        short = self._labelled(shortest(self.player, find, alone=alone))
        try:
            same = self._repeats(short, alone=alone)
        except GuestDied:
            self._tell(short, Seen.SOMETIMES)
            raise
        self._tell(short, Seen.ALWAYS if same == REPEATS else Seen.SOMETIMES)

    def _repeats(self, find: AnyFind, *, alone: bool) -> int:
        """Return how often a find repeats."""
        same = 0
        for number in range(REPEATS):
            # WARN_ON_ONCE() warns once for each boot.
            if self.plan.reboot or not number or find.breach.rule == "splats.printed":
                self.player.renew()
            again = replay(self.player, find.operations, "" if alone else find.signature)
            same += any(each.signature == find.signature for each in again)
        return same

    def _leave(self, find: AnyFind) -> None:
        """Take a find as it was met; it is not repeated."""
        if self.plan.quick:
            self.in_hand = None
            self.solid.add(find.signature)
            self.outcome.finds.append(find)
        else:
            self._tell(self._labelled(find), Seen.ONCE)

    def _tell(self, find: AnyFind, seen: Seen) -> None:
        """Add a find to the outcome, and tell of it unless there was one like it."""
        self.in_hand = None
        if seen is Seen.ALWAYS:
            self.solid.add(find.signature)
        elif seen is Seen.SOMETIMES:
            self.missed[find.signature] += 1
        if self.outcome.add(find, seen):
            self.found(find, seen)

    def _labelled(self, find: AnyFind) -> AnyFind:
        return find.relabelled(self.plan.base, self.plan.step, self.plan.seed)

    def _is_new(self, signature: str) -> bool:
        plan = self.plan
        if signature in self.solid or signature in plan.met or self.missed[signature] >= TRIES:
            return False
        if plan.exceptions.knows(signature):
            return False
        return not plan.only or any(fnmatchcase(signature, glob) for glob in plan.only)

    def _tick(self) -> None:
        plan, now = self.plan, time.monotonic()
        if now > self.begin + plan.seconds or 0 < plan.most <= self.player.count:
            raise _Over
        if now > self.told + 1.0:
            self.told = now
            self._update()
            self.progress(self.outcome)

    def _update(self) -> None:
        outcome, player = self.outcome, self.player
        outcome.operations, outcome.sequences = player.count, player.sequences
        outcome.blocks, outcome.boots = player.blocks, player.boots
        outcome.seconds = time.monotonic() - self.begin


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
