# SPDX-License-Identifier: GPL-2.0-only
"""Carry out operations one by one, and hold each state against the rules.

The rules may look at one state while the guest makes the next one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from iommuq.explore import wire
from iommuq.explore.choose import ALWAYS, SETUPS, decode
from iommuq.explore.exceptions import Exceptions
from iommuq.explore.finds import Find
from iommuq.explore.guest import HARMLESS, MEMORY, Guest, GuestDied
from iommuq.explore.operations import Operation
from iommuq.explore.rules.model import Breach, History, Moment, Rule
from iommuq.explore.simpler import simpler, size
from iommuq.results.console import splats
from iommuq.results.console.splats import Splat

_END = Operation("end")
_NONE = Exceptions()
_HOST = "Bus error - the host "
# Where the memory of a guest is, and what one may need in bytes.
_MEMORY, _NEED = Path("/dev/shm"), MEMORY << 20


class Player:
    """One sequence after another on one guest.

    :ivar state: after the last operation.
    :ivar count: operations that were carried out, of all sequences.
    :ivar sequences: how many were begun.
    :ivar blocks: blocks of code of the core that were reached.
    :ivar crashed: the kernel crashed in the sequence, which cannot go on.
    :ivar spoiled: something was found in the sequence; what follows may follow from it.
    """

    def __init__(self, guest: Guest, rules: Sequence[Rule], exceptions: Exceptions = _NONE) -> None:
        self.guest = guest
        self.rules = rules
        self.exceptions = exceptions
        self._lasting = {rule.name for rule in rules if rule.lasting}
        self.state = wire.EMPTY
        self.history = History()
        self.count = self.sequences = self.blocks = 0
        self.spoiled = self._used = False
        self._sent: Operation | None = None
        self._died: Operation | None = None
        self._moment: Moment | None = None
        self._lost: GuestDied | None = None
        self._told = 0
        self._standing: set[Breach] = set()
        self.crashed = False

    @property
    def has_splats(self) -> bool:
        """Whether the kernel has printed a splat in the last operation."""
        return bool(self.state.splats)

    @property
    def always(self) -> int:
        """The kinds that no sequence does without: there are no devices otherwise."""
        return ALWAYS

    @property
    def boots(self) -> int:
        """How often the guest was started."""
        return self.guest.boots

    def choose(self, code: int, left_out: int) -> Operation | None:
        """Return the operation of a number in the present state."""
        return decode(code, self.state, left_out)

    def setup(self, numbers: bytes) -> list[Operation]:
        """Return what makes of each group what its number says."""
        chosen = [SETUPS[number % len(SETUPS)] for number in numbers]
        return [
            Operation("setup", group=group, a=has)
            for group, has in enumerate(chosen)
            if has != SETUPS[0]
        ]

    def simpler(self, operations: Sequence[Operation]) -> Iterator[Sequence[Operation]]:
        """Yield sequences that are simpler in one thing."""
        return simpler(operations)

    def size(self, operations: Sequence[Operation]) -> tuple[int, int]:
        """Return a measure of how simple a sequence is."""
        return size(operations)

    def renew(self) -> None:
        """Have the next sequence begin in a new guest."""
        self.guest.renew()

    def begin(self) -> None:
        """Begin a sequence, with nothing left of the one before."""
        # Whatever is wrong with this guest, the next sequence gets another one.
        with contextlib.suppress(GuestDied):
            if self._sent is not None:
                self.guest.receive()
            if self._used:
                self.guest.send(_END)
                last = self.guest.receive()
                # What is left, or was printed, would be blamed on the next sequence.
                if last.leaks or last.splats:
                    self.guest.renew()
        self.guest.fresh()
        self.state = wire.EMPTY
        self.history = History()
        self.sequences += 1
        self.spoiled = self._used = False
        self._standing = set()
        self._sent = self._moment = self._lost = self._died = None
        self._told = 0
        self.crashed = False

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
            said = self.guest.splats(self._told)[self._told :]
            self._told += len(said)
        if not breaches:
            self._standing = set()
            return []
        titles = tuple(each.title for each in said)
        operations = tuple(moment.history.operations[: moment.number])
        finds = [
            Find(each, operations, titles, moment.after.faulted, _note(each, moment))
            for each in breaches
        ]
        finds = self._not_excused(finds, moment)
        self.spoiled = self.spoiled or bool(finds)
        return finds

    def pass_over(self, finds: Sequence[Find]) -> None:
        """Go on after finds: what lasts of them is not found again."""
        self.spoiled = False
        self._standing |= {find.breach for find in finds if find.breach.rule in self._lasting}

    def _not_excused(self, finds: Sequence[Find], moment: Moment) -> list[Find]:
        """Leave out what is accepted, now or since an operation before this one."""
        left, standing = [], set()
        for find in finds:
            entry = self.exceptions.covering(find, moment)
            lasting = find.breach.rule in self._lasting
            if lasting and (find.breach in self._standing or (entry is not None and entry.lasts)):
                standing.add(find.breach)
            elif entry is None:
                left.append(find)
        self._standing = standing
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
        if found or not self._used:
            return found
        found = self.do(_END)
        self._used = False
        return found

    def _crashed(self) -> list[Find]:
        error, self._lost = self._lost, None
        assert error is not None
        # There is no guest that could answer.
        died, self._died, self._sent = self._died, None, None
        self.spoiled, self._used, self.crashed = True, False, True
        # Those before have been judged, and a guest that only warned has died of something else.
        said = [
            each for each in splats.find(error.console)[self._told :] if each.kind not in HARMLESS
        ]
        # What User-mode Linux says for this signal, whatever it is from.
        host = any(line.startswith(_HOST) for line in error.console) and not _has_room()
        if host or not said or not any(rule.name == "splats.printed" for rule in self.rules):
            raise error
        operations = (*self.history.operations, *([died] if died else []))
        breach = Breach("splats.printed", "the kernel crashed", "state.splats == 0")
        return [Find(breach, operations, tuple(each.title for each in said))]


def _has_room() -> bool:
    """Tell whether the host can give a guest the memory that it was promised."""
    try:
        room = os.statvfs(_MEMORY)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize >= _NEED


def _note(breach: Breach, moment: Moment) -> str:
    """Return in what a device differs from most, for the signature of a find."""
    if breach.dev < 0:
        return ""
    device = moment.after.devices[breach.dev]
    group = moment.after.groups[device.group]
    words = []
    if device.flags & wire.PRESENT and not device.flags & wire.GROUPED:
        words.append("in no group")
    elif breach.dev in moment.history.waiting:
        words.append("waiting")
    if device.config & wire.BEHIND:
        words.append("behind a bridge")
    if breach.rule.startswith("iova.") and group.nr_devs > 1:
        words.append("beside others")
    if (
        breach.rule in ("iova.reached", "regions.lost")
        and breach.dev in moment.history.short
        and not moment.after.faulted
    ):
        words.append("short of memory")
    return ", ".join(words)
