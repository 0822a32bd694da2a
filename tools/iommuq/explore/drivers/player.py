# SPDX-License-Identifier: GPL-2.0-only
"""Carry steps out on a machine one by one, and hold each state against the rules."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from iommuq.explore.drivers import steps
from iommuq.explore.drivers.finds import DriverFind
from iommuq.explore.drivers.guest import DriverGuest, titles
from iommuq.explore.drivers.rules import Moment, breaches, hangs
from iommuq.explore.drivers.steps import VFIO, Step, line
from iommuq.explore.drivers.world import Answer, Shape, State, World, kinds
from iommuq.explore.guest import GuestDied
from iommuq.explore.rules.model import Breach
from iommuq.firmware.scenario import OTHER
from iommuq.results.console import splats
from iommuq.system import progress
from iommuq.system.errors import InfraError

_LOOK, _RESCAN, _REPLUG = Step("look"), Step("rescan"), Step("replug")
#: Letters of ``look.c`` that tell of the IOMMU.
_TOLD = "RB"
#: Writes of an engine after which it should have told something.
_FEW = 10
#: Rules that do not hold where a device was not let go, or the kernel is unsound.
_UNCLEAN = ("nofail.", "splats.")
#: Words of the program in the guest about itself.
_OWN = ("MALFORMED", "MISSING", "UNCLAIMED", "BUSY")


class DriverPlayer:
    """One sequence after another on one guest; see `iommuq.explore.play.Play`.

    :param rules: names of the rules that hold.
    """

    def __init__(self, guest: DriverGuest, rules: frozenset[str]) -> None:
        self.guest = guest
        self.rules = rules
        self.state = State()
        self.count = self.sequences = self.blocks = 0
        self.crashed = self.spoiled = self._stale = False
        # Writes of each device that told nothing, and that told something.
        self.looks = {name: [0, 0] for name in guest.world.oracles}
        self._history: list[Step] = []
        self._moment: Moment | None = None
        self._lost: GuestDied | None = None
        self._told = 0
        self._standing: set[Breach] = set()
        self._failed: frozenset[str] = frozenset()
        # What there was after the last boot.
        self._booted: Shape = {}
        # Whether the last step besides looks met a failure.
        self._met = False
        # The devices that a step may have changed since they were found again; None: all,
        # as after boot.
        self._touched: set[str] | None = None
        # What is left of the end of this sequence.
        self._rest: Iterator[Step] | None = None

    @property
    def world(self) -> World:
        """The machine."""
        return self.guest.world

    def check_oracle(self) -> None:
        """Check that the DMA engines told something, for no find to mean anything.

        :raises InfraError: most of their writes tell nothing.
        """
        for name, (nothing, something) in self.looks.items():
            if nothing <= something:
                continue
            text = (
                f"{self.world.machine.name}: {nothing} of {nothing + something} writes of the "
                f"DMA engine of {name} tell nothing"
            )
            if something or nothing < _FEW:
                progress.note(text)
                continue
            raise InfraError(
                text,
                hint="look whether bus mastering is on: `iommuq firmware run` has the same oracle",
            )

    @property
    def always(self) -> int:
        """The kinds that no sequence does without."""
        return sum(1 << list(kinds()).index(name) for name in ("rescan", "look"))

    @property
    def boots(self) -> int:
        """How often the guest was started."""
        return self.guest.boots

    @property
    def has_splats(self) -> bool:
        """Whether the text of a splat must be read before the next step."""
        return False

    def setup(self, _numbers: bytes) -> list[Step]:
        """Return nothing: sequences begin alike."""
        return []

    def choose(self, code: int, left_out: int) -> Step | None:
        """Return the step of a number in the present state."""
        if self._stale and not self._history:
            return _REPLUG
        return steps.choose(self.world, self.state, code, left_out)

    def simpler(self, operations: Sequence[Step]) -> Iterator[Sequence[Step]]:
        """Yield sequences that are simpler in one thing."""
        return steps.simpler(operations)

    def size(self, operations: Sequence[Step]) -> tuple[int, int]:
        """Return a measure of how simple a sequence is."""
        return steps.size(operations)

    def renew(self) -> None:
        """Have the next sequence begin in a new guest."""
        self.guest.renew()

    def begin(self) -> None:
        """Begin a sequence: all devices are found, none is bound, each group has its type."""
        if self._history and not self._cleaned():
            # What is left would be blamed on this one.
            self.guest.renew()
        self._stale = self._goes_on()
        self.sequences += 1
        self.crashed = self.spoiled = False
        self._history, self._moment, self._lost = [], None, None
        self._told, self._standing, self._failed, self._met = 0, set(), frozenset(), False
        self._rest = None
        self.state = State(dict(self.guest.ask("listen").devices))
        if self._stale and self.state.shape() != self._booted:
            self.guest.renew()
            self._stale = self._goes_on()
            self.state = State(dict(self.guest.ask("listen").devices))
        if not self._stale:
            self._booted = self.state.shape()

    def _goes_on(self) -> bool:
        """Have a guest for a sequence; whether it is that of the one before."""
        fresh = self.guest.ready()
        if fresh:
            self._touched = None
        return not fresh

    def _cleaned(self) -> bool:
        """Let all go after a sequence that did not come to its end; whether nothing is left."""
        if self.crashed or self._lost is not None:
            return False
        self._standing = set()
        unclean = False
        try:
            for step in self._ending():
                self.send(step)
                found = self.check()
                unclean |= any(each.breach.rule.startswith(_UNCLEAN) for each in found)
        except GuestDied:
            return False
        return not found and not unclean and self._lost is None

    def send(self, operation: Step) -> None:
        """Carry a step out; one that makes no sense any more is left out.

        To shorten a sequence leaves steps out of it that others need.
        """
        self._moment = None
        try:
            if not self._history and operation.kind != "replug" and self._stale:
                self._boot()
            if not steps.fits(self.world, self.state, operation):
                return
            self._history.append(operation)
            self._moment = self._done(operation)
        except GuestDied as error:
            self._lost = error

    def receive(self) -> None:
        """Do nothing: `send` has waited."""

    def check(self) -> list[DriverFind]:
        """Hold the last state against the rules.

        :raises GuestDied: the guest was lost, and its kernel has not printed why.
        """
        if self._lost is not None:
            return self._crashed()
        moment, self._moment = self._moment, None
        if moment is None:
            return []
        found = breaches(moment, self.rules)
        said = self.guest.splats(self._told)[self._told :]
        self._told += len(said)
        if said and "splats.printed" in self.rules:
            found.append(Breach("splats.printed", "the kernel printed a splat", ""))
        names = titles(said)
        finds = [self._find(each, names, moment) for each in found if each not in self._standing]
        if moment.step.kind == "look":
            self._standing &= set(found)
        self.spoiled = self.spoiled or bool(finds)
        return finds

    def pass_over(self, finds: Sequence[DriverFind]) -> None:
        """Go on after finds: what lasts of them is not found again."""
        self.spoiled = False
        # Each splat is another one.
        self._standing |= {each.breach for each in finds if each.breach.rule != "splats.printed"}

    def end(self) -> list[DriverFind]:
        """End the sequence: look, let all go, find all again, and look."""
        if self._rest is None:
            self._rest = self._ending()
        for step in self._rest:
            self.send(step)
            found = self.check()
            if found:
                return found
        if any(letter not in _TOLD for letter in self.state.reached.values()):
            # Whether all is as it was is not known.
            self.guest.renew()
        self._history = []
        return []

    def _boot(self) -> None:
        """Start the guest again for a sequence that does not begin with all devices replugged."""
        self.guest.renew()
        self._stale = self._goes_on()
        self.state = State(dict(self.guest.ask("listen").devices))
        self._booted = self.state.shape()

    def _ending(self) -> Iterator[Step]:
        yield _LOOK
        for name in self.world.devices:
            if self.state.seen[name].claimed:
                yield Step("release", (name,))
        for name in self.world.devices:
            if self.state.seen[name].present and self.state.seen[name].driver == VFIO:
                yield Step("unbind", (name,))
        # The others are as they were when they were found again.
        touched = self.world.devices if self._touched is None else self._touched
        yield from self._replugging(frozenset(touched))
        self._touched = set()
        yield _LOOK

    def _replugging(self, names: Collection[str]) -> Iterator[Step]:
        """Yield what has devices removed and found again, as they were after boot."""
        for name in self.world.devices:
            if self.state.seen[name].present and name in names:
                yield Step("remove", (name,))
        yield _RESCAN
        for name in self.world.devices:
            if self.state.seen[name].driver != "-":
                yield Step("unbind", (name,))
        # The group of a bridge, which is never removed, keeps its type.
        for name, (seen, _) in self._booted.items():
            if self.state.seen[name].group is not None and self.state.seen[name].type != seen.type:
                yield Step("set-type", (name, seen.type))

    def _done(self, step: Step) -> Moment:
        before = self.state
        faulted = False
        reached: dict[tuple[str, str], str] = {}
        if step.kind == "look":
            told, reached = self._look()
        elif step.kind == "replug":
            told = self._replugged(step)
        else:
            armed = bool(step.function) and self._armed(step)
            told = self.guest.ask(line(self.world, step))
            faulted = armed and self.guest.ask("failed").word == "yes"
        self.count += 1
        if told.word in _OWN:
            raise self._garbled(told)
        mapped = {name for name in before.mapped if told.devices[name].claimed}
        if step.kind == "map" and told.word == "ok":
            mapped.add(step.device)
        self.state = State(dict(told.devices), mapped, reached)
        if step.device and self._touched is not None:
            # What is done to a device is done to its group.
            self._touched |= {step.device, *before.group(step.device)}
        if step.kind != "look":
            self._met = faulted
        self._note_failed(before, faulted)
        return Moment(self.world, step, before, self.state, told, faulted, self._failed)

    def _garbled(self, told: Answer) -> GuestDied:
        return GuestDied(
            f"guest lost: it answers {told.word} {told.more}".rstrip(),
            hint=f"full log: {self.guest.log}",
            console=self.guest.console(),
        )

    def _note_failed(self, before: State, faulted: bool) -> None:
        """Note which devices came back while an allocation failed, and are unknown to the core."""
        came = {
            name
            for name, each in self.state.seen.items()
            if each.present and not before.seen[name].present
        }
        failed = {name for name in came if faulted and self.state.seen[name].group is None}
        self._failed = self._failed - came | failed

    def _replugged(self, step: Step) -> Answer:
        """Remove all devices and find them again, unless the sequence before has ended so."""
        told = self.guest.ask("listen")
        if self._stale and self._history == [step]:
            return told
        bad = ""
        for each in self._replugging(self.world.devices):
            told = self.guest.ask(line(self.world, each))
            self.state = State(dict(told.devices))
            bad = bad or (told.word if told.word != "ok" else "")
        return replace(told, word=bad or told.word)

    def _armed(self, step: Step) -> bool:
        return self.guest.ask(f"fail\t{step.function}\t{step.nth}").word == "ok"

    def _look(self) -> tuple[Answer, dict[tuple[str, str], str]]:
        """Have each device write to its region or its owner's page, to memory, and to others'."""
        world, seen = self.world, self.state.seen
        for name in world.oracles:
            each = seen[name]
            if each.present and each.driver == VFIO and not each.claimed:
                self.guest.ask(f"enable\t{world.addresses[name]}")
        owners = sorted(self.state.mapped)
        rounds: list[dict[str, tuple[str, str]]] = [{}, {}, *({} for _ in owners)]
        for name in world.oracles:
            cell, region = world.cell(name), world.region_of(name)
            rounds[1][name] = ("other", f"{OTHER + cell:x}")
            if name in self.state.mapped:
                rounds[0][name] = self._page(name, name)
            elif region is not None:
                rounds[0][name] = ("region", f"{region.base + cell:x}")
            for number, owner in enumerate((o for o in owners if o != name), 2):
                rounds[number][name] = self._page(name, owner)
        reached: dict[tuple[str, str], str] = {}
        told = None
        for round_ in rounds:
            if not round_:
                continue
            words = [f"{world.addresses[name]}={where}" for name, (_, where) in round_.items()]
            told = self.guest.ask("\t".join(["look", *words]))
            if len(told.word) != len(round_) or set(told.word) - set("RBONMS"):
                raise self._garbled(told)
            for (name, (place, _)), letter in zip(round_.items(), told.word, strict=True):
                reached[name, place] = letter
                self.looks[name][letter in _TOLD] += 1
        assert told is not None
        for name in world.blind:
            reached |= self._entry(name)
        return replace(told, word="ok"), reached

    def _entry(self, device: str) -> dict[tuple[str, str], str]:
        """Return what the device table has for the requester ID of a device behind a bridge."""
        told = self.guest.ask(f"entry\t{self.world.addresses[device]}\talias").word
        found = {(device, "other"): "R" if told == "IDENTITY" else "B"}
        if told == "BLOCKED" and self.world.region_of(device) is not None:
            found[device, "region"] = "B"
        return found if told in ("IDENTITY", "BLOCKED", "PAGES") else {}

    def _page(self, device: str, owner: str) -> tuple[str, str]:
        world = self.world
        place = f"{world.addresses[owner]}@{world.iova(owner) + world.cell(device):x}"
        return f"page of {owner}", place

    def _find(self, breach: Breach, names: tuple[str, ...], moment: Moment) -> DriverFind:
        world = self.world
        return DriverFind(
            breach,
            tuple(self._history),
            world.machine.name,
            world.layout,
            names,
            # A look shows what the step before it has done.
            self._met,
            _note(breach, moment),
        )

    def _crashed(self) -> list[DriverFind]:
        error, self._lost = self._lost, None
        assert error is not None
        self.spoiled = self.crashed = True
        said = splats.find(error.console)[self._told :]
        world, history = self.world, tuple(self._history)
        if said and "splats.printed" in self.rules:
            breach = Breach("splats.printed", "the kernel crashed", "")
        elif error.silent and history and "nofail.hangs" in self.rules:
            breach = hangs(history[-1])
        else:
            what = f"{error.what}, in {history[-1].text if history else 'its boot'}"
            raise GuestDied(what, hint=error.hint, console=error.console)
        return [DriverFind(breach, history, world.machine.name, world.layout, titles(said))]


def _note(breach: Breach, moment: Moment) -> str:
    """Return in what the device of a breach differs from most, for the signature of a find."""
    words = breach.expect.partition("|")[0].split()
    device = next((word for word in words if word in moment.world.devices), "")
    if not device or breach.rule.startswith(("errnos.", "refusal.", "nofail.refused")):
        return ""
    seen, notes = moment.after.seen[device], []
    if not seen.present:
        notes.append("removed")
    elif seen.group is None:
        notes.append("in no group")
    if len(moment.world.shares[device]) > 1:
        notes.append("behind a bridge")
    elif len(moment.after.group(device)) > 1:
        notes.append("beside others")
    if moment.world.region_of(device) is not None and breach.rule != "regions.lost":
        notes.append("with a region")
    return ", ".join(notes)
