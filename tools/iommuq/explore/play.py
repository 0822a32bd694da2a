# SPDX-License-Identifier: GPL-2.0-only
"""What is explored, as the campaign sees it: a player of operations, whatever they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, Protocol, Self, TypeVar

from iommuq.explore.rules.model import Breach


class Seen(StrEnum):
    """How a find was seen: each time, not each time, or once and not tried again yet.

    Each value is the name of a folder of finds.
    """

    ALWAYS = "finds"
    SOMETIMES = "flaky"
    ONCE = "unsettled"


class AnyOperation(Protocol):
    """One operation of a sequence."""

    @property
    def kind(self) -> str:
        """Its name; a sequence ends with ``end``."""


class AnyFind(Protocol):
    """A rule that does not hold after some operations."""

    @property
    def operations(self) -> Sequence[AnyOperation]:
        """What leads to it."""

    @property
    def signature(self) -> str:
        """What tells it from others."""

    @property
    def breach(self) -> Breach:
        """The rule, and what is wrong."""

    @property
    def splats(self) -> tuple[str, ...]:
        """The titles of the splats."""

    @property
    def faulted(self) -> bool:
        """Whether a failure was injected and met."""

    @property
    def note(self) -> str:
        """What else tells it from others."""

    @property
    def base(self) -> str:
        """The base that was explored."""

    @property
    def step(self) -> str:
        """Its step."""

    @property
    def seed(self) -> int:
        """The seed of the exploration."""

    def relabelled(self, base: str, step: str, seed: int) -> Self:
        """Return it as one of a base and a step."""

    def to_json(self) -> dict[str, Any]:
        """Return it for a file that ``iommuq explore --replay`` reads."""

    def lines(self) -> list[str]:
        """Return it as text."""


Op = TypeVar("Op", bound=AnyOperation)
F = TypeVar("F", bound=AnyFind)


class Play(Protocol[Op, F]):
    """Carries operations out, and holds each state against rules; see `player.Player`."""

    count: int
    sequences: int
    blocks: int
    crashed: bool
    spoiled: bool

    @property
    def always(self) -> int:
        """The kinds of operation that no sequence does without, a bit for each."""

    @property
    def boots(self) -> int:
        """How often a guest was started."""

    @property
    def has_splats(self) -> bool:
        """Whether the kernel has printed a splat in the last operation."""

    def setup(self, numbers: bytes) -> list[Op]:
        """Return the operations that a sequence begins with."""

    def choose(self, code: int, left_out: int) -> Op | None:
        """Return the operation of a number in the present state; None: there is none."""

    def simpler(self, operations: Sequence[Op]) -> Iterator[Sequence[Op]]:
        """Yield sequences that are simpler in one thing."""

    def size(self, operations: Sequence[Op]) -> tuple[int, int]:
        """Return a measure of how simple a sequence is."""

    def begin(self) -> None:
        """Begin a sequence."""

    def send(self, operation: Op) -> None:
        """Begin to carry out an operation."""

    def receive(self) -> None:
        """Wait for the operation that was sent, if there is one."""

    def check(self) -> list[F]:
        """Hold the last state against the rules."""

    def end(self) -> list[F]:
        """End the sequence, or go on with that after finds that were passed over."""

    def pass_over(self, finds: Sequence[F]) -> None:
        """Go on after finds."""

    def renew(self) -> None:
        """Have the next sequence begin in a new guest."""


@dataclass(frozen=True)
class CarriedOut(Generic[F]):
    """What a sequence has shown.

    :ivar found: what does not hold after the operation that showed what is looked for; empty:
        that was not shown.
    :ivar passed: what did not hold before, and was passed over.
    :ivar left_out: numbers, from 1, of operations that the guest could not carry out.
    """

    found: list[F]
    passed: list[F]
    left_out: list[int]


def carry_out(
    play: Play[Op, F], operations: Sequence[Op], looked_for: Callable[[F, bool], bool]
) -> CarriedOut[F]:
    """Carry out a sequence, until it shows what is looked for.

    :param looked_for: tells whether a find is; the second argument: others came before it.
    :raises GuestDied: the guest was lost.
    """
    passed: list[F] = []
    left_out: list[int] = []
    play.begin()
    for number, operation in enumerate(operations, 1):
        if operation.kind == "end":
            break
        count = play.count
        play.send(operation)
        play.receive()
        found = play.check()
        if play.count == count and not play.crashed:
            left_out.append(number)
        if any(looked_for(each, bool(passed)) for each in found):
            return CarriedOut(found, passed, left_out)
        passed += found
        if play.crashed:
            return CarriedOut([], passed, left_out)
        play.pass_over(found)
    while found := play.end():
        if any(looked_for(each, bool(passed)) for each in found):
            return CarriedOut(found, passed, left_out)
        passed += found
        if play.crashed:
            break
        play.pass_over(found)
    return CarriedOut([], passed, left_out)


def replay(play: Play[Op, F], operations: Sequence[Op], signature: str = "") -> list[F]:
    """Carry out a whole sequence.

    :param signature: of the find that is looked for, maybe after others; empty: the first.
    :return: what does not hold after the first operation that breaks a rule, or that one.
    :raises GuestDied: the guest was lost.
    """
    return carry_out(play, operations, lambda find, _: signature in ("", find.signature)).found
