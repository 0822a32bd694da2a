# SPDX-License-Identifier: GPL-2.0-only
"""One step on a machine: how it is chosen, asked for, printed and stored."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from iommuq.explore.drivers.world import State, World, data, kinds
from iommuq.firmware.scenario import PAGE
from iommuq.system.errors import UserError

#: Numbers are below.
CODES = 1 << 32
#: The driver that hands a device to its user.
VFIO = "vfio-pci"
#: Steps of a find at most.
MOST = 1000
_INTERFACES = ("group", "cdev")
_TYPES = ("identity", "DMA", "DMA-FQ")
# What a number is made of, from its low bits.
_KIND, _PICK, _VALUE, _FAULT = 128, 64, 16, 32
# A fault below the first of them: none.
_NO_FAULT = 26
# Below this one of a rescan: a device is not found.
_ABSENT = 10
_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,40}", re.ASCII)


@dataclass(frozen=True)
class Step:
    """One step.

    :ivar words: its arguments, in the order of ``drivers.toml``.
    :ivar function: the function below which an allocation fails in it; empty: none fails.
    :ivar nth: which one, from 1.
    """

    kind: str
    words: tuple[str, ...] = ()
    function: str = ""
    nth: int = 0

    @property
    def device(self) -> str:
        """The device that it is about; empty: all."""
        names = kinds()[self.kind].words
        return self.words[names.index("device")] if "device" in names else ""

    @property
    def text(self) -> str:
        """Its text, as in a scenario."""
        return " ".join([self.kind, *self.words])

    def to_json(self) -> dict[str, Any]:
        """Return it for a file."""
        found: dict[str, Any] = {"kind": self.kind, "words": list(self.words)}
        return found | ({"function": self.function, "nth": self.nth} if self.function else {})


def line(world: World, step: Step) -> str:
    """Return a step as the program in the guest reads it; `look` has another form."""
    told = [step.kind]
    for name, word in zip(kinds()[step.kind].words, step.words, strict=True):
        if name == "device":
            word = world.addresses[word]
        elif name in ("address", "size"):
            word = f"{int(word, 0):x}"
        told.append(word)
    return "\t".join(told)


def listing(steps: Sequence[Step]) -> list[str]:
    """Return steps as numbered lines."""
    lines = []
    for number, step in enumerate(steps, 1):
        fault = f", allocation {step.nth} of {step.function} fails" if step.function else ""
        lines.append(f"  {number}. {step.text}{fault}")
    return lines


def from_json(found: object, world: World, where: str) -> Iterator[Step]:
    """Check the steps of a file.

    :raises UserError: one is malformed.
    """
    if not isinstance(found, list) or len(found) > MOST:
        raise UserError(f"{where}: operations must be a list of at most {MOST}")
    for number, each in enumerate(found):
        words = each.get("words") if isinstance(each, dict) else None
        if not isinstance(words, list) or each.get("kind") not in list(kinds()):
            raise UserError(f"{where}: operation {number}: no step {reprlib.repr(each)}")
        expected = kinds()[each["kind"]].words
        function, nth = each.get("function", ""), each.get("nth", 0)
        good = (
            len(words) == len(expected)
            and all(isinstance(word, str) and _WORD.fullmatch(word) for word in words)
            and type(nth) is int
            and _may_fail(each["kind"], function, nth)
        )
        step = Step(each["kind"], tuple(words), function, nth) if good else None
        if step is None or (step.device and step.device not in world.devices) or not _fits(step):
            raise UserError(f"{where}: operation {number}: no step {reprlib.repr(each)}")
        yield step


def _may_fail(kind: str, function: object, nth: int) -> bool:
    if function == "":
        return nth == 0
    faults = data()["faults"]
    allowed = [*faults["functions"], *([faults["absent"]] if kind == "rescan" else [])]
    return kinds()[kind].fails and function in allowed and 1 <= nth <= faults["nth"]


def _fits(step: Step) -> bool:
    allowed = {"interface": _INTERFACES, "type": _TYPES, "driver": (VFIO,)}
    for name, word in zip(kinds()[step.kind].words, step.words, strict=True):
        if name in allowed and word not in allowed[name]:
            return False
        if name in ("address", "size") and not re.fullmatch(r"0x[0-9a-f]{1,16}", word):
            return False
    return True


def possible(world: World, state: State) -> Mapping[str, list[str]]:
    """Return for each kind of step the devices that it can be about; one entry for none."""
    present = [name for name in world.devices if state.seen[name].present]
    bound = [name for name in present if state.seen[name].driver == VFIO]
    claimed = [name for name in world.devices if state.seen[name].claimed]
    return {
        "remove": [name for name in present if not state.seen[name].claimed],
        "rescan": [""] if len(present) < len(world.devices) else [],
        "bind": [name for name in present if state.seen[name].driver == "-"],
        "unbind": [
            name
            for name in present
            if state.seen[name].driver != "-" and not state.seen[name].claimed
        ],
        "claim": [name for name in bound if not state.seen[name].claimed],
        "map": [name for name in claimed if name not in state.mapped],
        "release": claimed,
        "reset": [name for name in present if not state.seen[name].claimed],
        "set-type": [name for name in present if state.seen[name].group is not None],
        "look": [""],
        # To remove a device waits for its user.
        "replug": [] if claimed else [""],
    }


def fits(world: World, state: State, step: Step) -> bool:
    """Whether a step makes sense in a state: what waits for a user would wait for ever."""
    return step.device in possible(world, state)[step.kind]


def choose(world: World, state: State, code: int, left_out: int) -> Step | None:
    """Return the step of a number.

    :param left_out: kinds that are not chosen, a bit for each.
    :return: None: there is none to choose.
    """
    devices = possible(world, state)
    names = [
        name
        for number, (name, kind) in enumerate(kinds().items())
        if devices[name] and not left_out >> number & 1
        for _ in range(kind.weight)
    ]
    if not names:
        return None
    code, number = divmod(code, _KIND)
    name = names[number % len(names)]
    code, pick = divmod(code, _PICK)
    device = devices[name][pick % len(devices[name])]
    code, value = divmod(code, _VALUE)
    words = {
        "device": device,
        "driver": VFIO,
        "interface": _INTERFACES[value % len(_INTERFACES)],
        "type": _TYPES[value % len(_TYPES)],
        "address": hex(world.iova(device)) if device else "",
        "size": hex(PAGE),
    }
    step = Step(name, tuple(words[word] for word in kinds()[name].words))
    code, fault = divmod(code, _FAULT)
    faults = data()["faults"]
    if name == "rescan" and fault < _ABSENT:
        return replace(step, function=faults["absent"], nth=1 + code % faults["nth"])
    if not kinds()[name].fails or fault < _NO_FAULT:
        return step
    function = faults["functions"][fault % len(faults["functions"])]
    return replace(step, function=function, nth=1 + code % faults["nth"])


def simpler(steps: Sequence[Step]) -> Iterator[Sequence[Step]]:
    """Yield sequences with fewer steps, many at first, then with a simpler one.

    Each keeps the replug that it begins with: without it a sequence takes a boot.
    """
    if steps and steps[0].kind == "replug":
        yield from ([steps[0], *rest] for rest in simpler(steps[1:]))
        yield steps[1:]
        return
    chunk = len(steps) // 2
    while chunk > 1:
        for start in range(0, len(steps), chunk):
            yield [*steps[:start], *steps[start + chunk :]]
        chunk //= 2
    devices = dict.fromkeys(step.device for step in steps if step.device)
    for device in devices:
        yield [step for step in steps if step.device != device]
    for number in reversed(range(len(steps))):
        yield [*steps[:number], *steps[number + 1 :]]
    for number, step in enumerate(steps):
        if step.function:
            yield [*steps[:number], replace(step, function="", nth=0), *steps[number + 1 :]]


def size(steps: Sequence[Step]) -> tuple[int, int]:
    """Return how many steps there are, and how many failures and devices."""
    return len(steps), sum(bool(step.function) for step in steps) + len(
        {step.device for step in steps}
    )
