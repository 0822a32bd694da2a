# SPDX-License-Identifier: GPL-2.0-only
"""Carry out operations one by one, and hold each state against the rules.

The rules may look at one state while the guest makes the next one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from iommuq.explore import wire
from iommuq.explore.exceptions import Exceptions
from iommuq.explore.finds import Find
from iommuq.explore.guest import Guest, GuestDied
from iommuq.explore.operations import Operation
from iommuq.explore.rules.model import Breach, History, Moment, Rule
from iommuq.results.console import splats
from iommuq.results.console.splats import Splat

_END = Operation("end")
_NONE = Exceptions()


class Player:
    """One sequence after another on one guest.

    :ivar state: after the last operation.
    :ivar count: operations that were carried out, of all sequences.
    :ivar sequences: how many were begun.
    :ivar blocks: blocks of code of the core that were reached.
    :ivar spoiled: something was found in the sequence; what follows may follow from it.
    """

    def __init__(self, guest: Guest, rules: Sequence[Rule], exceptions: Exceptions = _NONE) -> None:
        self.guest = guest
        self.rules = rules
        self.exceptions = exceptions
        self.state = wire.EMPTY
        self.history = History()
        self.count = self.sequences = self.blocks = 0
        self.spoiled = self._used = False
        self._sent: Operation | None = None
        self._died: Operation | None = None
        self._moment: Moment | None = None
        self._lost: GuestDied | None = None
        self._told = 0
        self._excused: set[Breach] = set()

    def begin(self) -> None:
        """Begin a sequence, with nothing left of the one before."""
        # Whatever is wrong with this guest, the next sequence gets another one.
        with contextlib.suppress(GuestDied):
            if self._sent is not None:
                self.guest.receive()
            if self._used:
                self.guest.send(_END)
                self.guest.receive()
        self.guest.fresh()
        self.state = wire.EMPTY
        self.history = History()
        self.sequences += 1
        self.spoiled = self._used = False
        self._excused = set()
        self._sent = self._moment = None
        self._told = 0

    def send(self, operation: Operation) -> None:
        """Begin to carry out an operation."""
        self._used = True
        self._sent = operation
        try:
            self.guest.send(operation)
        except GuestDied as error:
            self._lost = error

    def receive(self) -> None:
        """Wait for the operation that was sent, if there is one."""
        operation, self._sent = self._sent, None
        if operation is None:
            return
        try:
            if self._lost is not None:
                raise self._lost
            after = self.guest.receive()
        except GuestDied as error:
            self._lost = error
            self._died = operation
            return
        if after.ret == wire.NOT_NOW:
            return
        self.count += 1
        self.blocks = max(self.blocks, after.blocks)
        self.history.note(operation, after)
        self._moment = Moment(operation, self.state, after, self.history)
        self.state = after

    def check(self) -> list[Find]:
        """Hold the last state against the rules.

        :return: what does not hold, but for the exceptions.
        :raises GuestDied: the guest was lost, and its kernel has not printed why.
        """
        if self._lost is not None:
            return self._crashed()
        moment, self._moment = self._moment, None
        if moment is None:
            return []
        breaches = [breach for rule in self.rules for breach in rule.check(moment)]
        said: list[Splat] = []
        if moment.after.splats:
            said = self.guest.splats(moment.after.splats)[self._told :]
            self._told += len(said)
        if not breaches:
            self._excused = set()
            return []
        titles = tuple(each.title for each in said)
        operations = tuple(moment.history.operations[: moment.number])
        finds = [Find(each, operations, titles, moment.after.faulted) for each in breaches]
        finds = self._not_excused(finds, moment)
        self.spoiled = self.spoiled or bool(finds)
        return finds

    def _not_excused(self, finds: Sequence[Find], moment: Moment) -> list[Find]:
        """Leave out what is accepted, now or since an operation before this one."""
        left, excused = [], set()
        for find in finds:
            entry = self.exceptions.covering(find, moment)
            if find.breach in self._excused or (entry is not None and entry.lasts):
                excused.add(find.breach)
            elif entry is None:
                left.append(find)
        self._excused = excused
        return left

    def do(self, operation: Operation) -> list[Find]:
        """Carry out one operation, and hold the state after it against the rules.

        :raises GuestDied: the guest was lost, and its kernel has not printed why.
        """
        self.send(operation)
        self.receive()
        return self.check()

    def end(self) -> list[Find]:
        """End the sequence: its users release all, and the rules hold for what is left."""
        self.receive()
        found = self.check()
        if found:
            return found
        found = self.do(_END)
        self._used = False
        return found

    def _crashed(self) -> list[Find]:
        error, self._lost = self._lost, None
        assert error is not None
        # There is no guest that could answer.
        died, self._died, self._sent = self._died, None, None
        self.spoiled, self._used = True, False
        said = splats.find(error.console)
        if not said or not any(rule.name == "splats.printed" for rule in self.rules):
            raise error
        operations = (*self.history.operations, *([died] if died else []))
        breach = Breach("splats.printed", "the kernel crashed", "state.splats == 0")
        return [Find(breach, operations, tuple(each.title for each in said))]


def replay(player: Player, operations: Sequence[Operation]) -> list[Find]:
    """Carry out a whole sequence.

    :return: what does not hold after the first operation that breaks a rule.
    :raises GuestDied: the guest was lost.
    """
    player.begin()
    for operation in operations:
        if operation.kind == "end":
            break
        found = player.do(operation)
        if found:
            return found
    return player.end()
