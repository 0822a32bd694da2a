# SPDX-License-Identifier: GPL-2.0-only
"""Random sequences: Hypothesis chooses, shortens and remembers them.

Some kinds of operation are left out of each sequence, others of another one: what happens
often otherwise hides what needs many of the rest.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic

from hypothesis import reject
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from iommuq.explore.guest import GuestDied
from iommuq.explore.play import AnyFind, F, Op, Play

#: The most rules of a sequence.
STEPS = 15
#: The operations of a rule: most of the time is Hypothesis' own, for each rule.
_EACH, _BYTES = 3, 4
_TWO, _EIGHT = st.binary(min_size=2, max_size=2), st.binary(min_size=8, max_size=8)
# Evenly distributed, which Hypothesis' integers are not.
_CODES = st.binary(min_size=_EACH * _BYTES, max_size=_EACH * _BYTES)


class Session(Generic[Op, F]):
    """What the machines of one run share.

    :ivar player: carries the operations out.
    :ivar wanted: the signature that is being shortened; None before the first find.
    :ivar best: the shortest sequence with it.
    :ivar first: when it was met first, by `time.monotonic`, and after how many operations.
    :ivar lost: why there is no guest any more.
    :ivar is_new: tells whether a signature is a find; a sequence ends at each other one.
    :ivar only: a sequence goes on after what is no find.
    :ivar tick: called after each sequence; may raise to end the run.
    """

    def __init__(
        self,
        player: Play[Op, F],
        is_new: Callable[[str], bool],
        tick: Callable[[], None],
        *,
        only: bool = False,
    ) -> None:
        self.player = player
        self.is_new = is_new
        self.only = only
        self.tick = tick
        self.wanted: str | None = None
        self.best: F | None = None
        self.first: tuple[float, int] | None = None
        self.lost: GuestDied | None = None

    def begin(self) -> None:
        """Begin a sequence.

        :raises Lost: the guest died, and another one could not be started.
        """
        try:
            self.player.begin()
        except GuestDied as error:
            raise self._lose(error) from None

    def step(self, code: int, left_out: int) -> None:
        """Carry out the operation of a number, and judge the one before it meanwhile.

        :raises Lost: the guest was lost.
        """
        player = self.player
        player.receive()
        # The text of a splat is that of the last operation.
        if player.has_splats:
            self._check()
        operation = player.choose(code, left_out)
        if operation is not None:
            player.send(operation)
        self._check()

    def setup(self, numbers: bytes) -> None:
        """Choose what a sequence begins with, from two numbers."""
        for operation in self.player.setup(numbers):
            self.player.receive()
            self.player.send(operation)
            self._check()

    def end(self) -> None:
        """End the sequence; what it has met before does not end it here."""
        player = self.player
        while True:
            try:
                found = player.end()
            except GuestDied as error:
                raise self._lose(error) from None
            if any(self.is_new(find.signature) for find in found):
                self.judge(found)
            if not found or not self.only or player.crashed:
                return
            # The rest of the ending may show what is looked for.
            player.pass_over(found)

    def _lose(self, error: GuestDied) -> Lost:
        # Hypothesis may raise a `Flaky` in place of what is raised in a repetition.
        self.lost = error
        return Lost(error)

    def _check(self) -> None:
        try:
            found = self.player.check()
        except GuestDied as error:
            raise self._lose(error) from None
        self.judge(found)

    def judge(self, found: Sequence[F]) -> None:
        """Raise `Found` for the find that is looked for.

        A sequence with any other one ends here: what follows would follow from it.
        """
        if not found:
            return
        if self.only:
            passed = found
            found = [find for find in found if self.is_new(find.signature)]
            if not found and self.player.crashed:
                reject()
            if not found:
                # What is looked for may come after what is not.
                self.player.pass_over(passed)
                return
        for find in found:
            if not self.is_new(find.signature):
                continue
            if self.wanted is None:
                self.wanted = find.signature
                self.first = (time.monotonic(), self.player.count)
            if find.signature == self.wanted:
                if self.best is None or len(find.operations) <= len(self.best.operations):
                    self.best = find
                raise Found(find)
        reject()


class Lost(BaseException):
    """The guest was lost; not an `Exception`, which Hypothesis would take for a find."""

    def __init__(self, error: GuestDied) -> None:
        super().__init__(str(error))


class Found(Exception):
    """A find that is new, for Hypothesis to shorten."""

    def __init__(self, find: AnyFind) -> None:
        super().__init__(find.signature)
        self.find = find


def machine(session: Session[Any, Any]) -> type[RuleBasedStateMachine]:
    """Return the class of machines of a session."""

    class Exploration(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.left_out = 0
            session.tick()
            session.begin()

        @initialize(
            setups=st.binary(min_size=2, max_size=2), masks=st.binary(min_size=8, max_size=8)
        )
        def leave_out(self, setups: bytes, masks: bytes) -> None:
            # A quarter of the kinds; none is the simplest.
            first, second = int.from_bytes(masks[:4]), int.from_bytes(masks[4:])
            self.left_out = first & second & ~session.player.always
            session.setup(setups)

        @rule(codes=_CODES)
        def step(self, codes: bytes) -> None:
            for start in range(0, len(codes), _BYTES):
                session.step(int.from_bytes(codes[start : start + _BYTES]), self.left_out)

        def teardown(self) -> None:
            # What has ended by itself is a find, or was given up by Hypothesis.
            if sys.exc_info()[0] is None and not session.player.spoiled:
                session.end()

    return Exploration
