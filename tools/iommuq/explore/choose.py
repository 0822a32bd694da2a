# SPDX-License-Identifier: GPL-2.0-only
"""Turn a number into an operation that can be carried out in a state.

One number for an operation, in place of a choice for each field, keeps Hypothesis at several
thousand operations a second, and lets it take an operation out of a sequence as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from iommuq.explore import wire
from iommuq.explore.operations import FAIL_ALLOC, Operation, kinds
from iommuq.explore.wire import State

#: Numbers are below.
CODES = 1 << 32

Target = tuple[int, int, int]  # device, group, domain

# What a number is made of, from its low bits.  The simplest choice comes first.
_KIND, _PICK, _VALUE, _DETAIL, _FAULT = 128, 4, 1 << 10, 1 << 8, 32
#: Kinds that are in no ``left_out``, a bit for each: `add` and `rescan`.
ALWAYS = 0b1010
#: What a driver has, of 16 numbers: a third block a device first, as VT-d's does.
SETUPS = (7, 7, 7, 7, 7, 15, 15, 15, 15, 3, 5, 1, 2, 6, 14, 11)
_DEVICES = (1, 0, 1, 5, 3, 7, 9, 17, 33, 21, 16, 32, 8, 1, 0, 5)
_REGIONS = (0, 1, 1, 1, 0, 2, 3, 5, 6, 9, 4, 21, 1, 1, 0, 0)
_GROUPS = (0, 0, 0, 1)
_ERRNOS = ("ENOMEM", "EINVAL")
_KINDS = ("paging", "paging", "blocked", "identity")
# Faults below the first have none; then an attach fails, then an allocation.
_NO_FAULT, _ATTACH_FAULT = 22, 27


def _devices(state: State, wanted: int, unwanted: int = 0) -> list[Target]:
    return [
        (number, 0, 0)
        for number, device in enumerate(state.devices)
        if device.flags & wanted == wanted and not device.flags & unwanted
    ]


def _groups(state: State, good: Callable[[wire.Group], object]) -> list[Target]:
    return [(0, number, 0) for number, group in enumerate(state.groups) if good(group)]


def _domains(state: State) -> list[int]:
    return [number for number, domain in enumerate(state.user) if domain]


def _free_slot(state: State) -> list[Target]:
    free = [n for n, device in enumerate(state.devices) if not device.flags & wire.USED]
    return [(free[0], 0, 0)] if free else []


def _claimed(state: State, *, value: bool) -> list[Target]:
    found = _devices(state, wire.PRESENT)
    return [
        target
        for target in found
        if bool(state.devices[target[0]].config & wire.CLAIMED) == value
        and (value or not state.devices[target[0]].flags & wire.BOUND)
    ]


def _resettable(state: State) -> list[Target]:
    found = _devices(state, wire.PRESENT, wire.RESETTING)
    return [target for target in found if state.devices[target[0]].config & wire.PCI]


def _buffers(state: State, *, live: bool) -> list[Target]:
    found = _devices(state, wire.PRESENT | wire.BOUND)
    # Both, or none.
    useless = 0 if live else 3
    return [target for target in found if state.devices[target[0]].bufs != useless]


def _with_domain(targets: list[Target], state: State) -> list[Target]:
    domains = _domains(state)
    return [(dev, group, domain) for dev, group, _ in targets for domain in domains]


def _with_pasid(state: State) -> list[Target]:
    return [
        (number, 0, 0)
        for number, device in enumerate(state.devices)
        if device.user_pasid0 or device.user_pasid1
    ]


def _free_domain(state: State) -> list[Target]:
    free = [number for number, domain in enumerate(state.user) if not domain]
    found = _devices(state, wire.PRESENT | wire.GROUPED)
    return [(dev, group, free[0]) for dev, group, _ in found] if free else []


_Targets = Callable[[State], list[Target]]

#: What each kind can be applied to.
TARGETS: dict[str, _Targets] = {
    "setup": lambda state: [
        (0, number, 0)
        for number in range(wire.GROUPS)
        if not any(d.flags & wire.USED and d.group == number for d in state.devices)
    ],
    "add": _free_slot,
    "remove": lambda state: _devices(state, wire.PRESENT, wire.RESETTING),
    "rescan": lambda state: _devices(state, wire.USED, wire.PRESENT),
    "bind": lambda state: _devices(state, wire.PRESENT, wire.BOUND | wire.RESETTING),
    "unbind": lambda state: _devices(state, wire.BOUND, wire.RESETTING),
    "claim_group": lambda state: _groups(state, lambda g: g.exists and not g.claimed),
    "release_group": lambda state: _groups(state, lambda g: g.claimed and not g.attached),
    "claim_device": lambda state: _claimed(state, value=False),
    "release_device": lambda state: _claimed(state, value=True),
    "alloc": _free_domain,
    "free": lambda state: [(0, 0, number) for number in _domains(state)],
    "map": lambda state: [(0, 0, number) for number in _domains(state)],
    "unmap": lambda state: [(0, 0, number) for number in _domains(state)],
    "attach_group": lambda state: _with_domain(
        _groups(state, lambda g: g.exists and not g.attached), state
    ),
    "detach_group": lambda state: _groups(state, lambda g: g.attached),
    "replace_group": lambda state: _with_domain(_groups(state, lambda g: g.attached), state),
    "attach_device": lambda state: _with_domain(
        _devices(state, wire.PRESENT | wire.GROUPED), state
    ),
    "detach_device": lambda state: _devices(state, wire.PRESENT | wire.GROUPED),
    "attach_pasid": lambda state: _with_domain(_devices(state, wire.PRESENT | wire.GROUPED), state),
    "detach_pasid": _with_pasid,
    "replace_pasid": lambda state: _with_domain(_with_pasid(state), state),
    "set_type": lambda state: _groups(state, lambda g: g.exists),
    "reset_prepare": _resettable,
    "reset_done": lambda state: _devices(state, wire.PRESENT | wire.RESETTING),
    "dma_map": lambda state: _buffers(state, live=False),
    "dma_unmap": lambda state: _buffers(state, live=True),
    "deferred_attach": lambda state: _devices(state, wire.BOUND | wire.DEFERRED),
}

_WEIGHTS = {name: kind.weight for name, kind in kinds().items()}
# Those with a field `a`, and its number of values.
_A = {name: kind.fields["a"] for name, kind in kinds().items() if "a" in kind.fields}


def decode(code: int, state: State, left_out: int = 0) -> Operation | None:
    """Return the operation of a number.

    :param code: below `CODES`.
    :param state: what it will be carried out in.
    :param left_out: bit mask of kinds that a sequence does without, in the order of `TARGETS`.
    :return: None for 0, and if nothing can be done.
    """
    if not code:
        return None
    code, kind = divmod(code, _KIND)
    rest, pick = divmod(code, _PICK)
    rest, value = divmod(rest, _VALUE)
    fault, detail = divmod(rest, _DETAIL)
    possible: list[tuple[str, list[Target]]] = []
    for name, choose in TARGETS.items():
        targets = [] if left_out >> _INDEX[name] & 1 else choose(state)
        if targets:
            possible += [(name, targets)] * _WEIGHTS[name]
    if not possible:
        return None
    name, targets = possible[kind % len(possible)]
    dev, group, domain = targets[pick % len(targets)]
    fields: dict[str, Any] = {"dev": dev, "group": group, "domain": domain}
    if name == "add":
        fields |= {"group": _GROUPS[value & 3], "a": _DEVICES[value >> 2 & 15]}
        fields |= {"b": _REGIONS[value >> 6 & 15], "c": pick & 3}
    elif name == "setup":
        fields["a"] = SETUPS[value % len(SETUPS)]
    else:
        fields["a"] = value % _A.get(name, 1)
        if name == "dma_map":
            fields["b"] = value >> 1 & 3
    if kinds()[name].fails and fault >= _NO_FAULT:
        found = _fault(fault, detail)
        if "fail_kind" not in found or not _may_not_fail(name, dev, fields["group"], found, state):
            fields |= found
    return Operation(name, **fields)


_INDEX = {name: number for number, name in enumerate(TARGETS)}


def _may_not_fail(name: str, dev: int, group: int, found: dict[str, Any], state: State) -> bool:
    """Tell whether no driver may fail an attach of an operation."""
    if name in ("remove", "detach_pasid"):
        # What a device is released to, and a PASID detached to: struct iommu_ops,
        # release_domain; iommu_remove_dev_pasid().
        return bool(found["fail_kind"] != "paging")
    if name == "rescan":
        group = state.devices[dev].group
    # The first attach of a group: iommu_setup_default_domain() warns of it.
    return name in ("add", "rescan") and not state.groups[group].exists


def _fault(fault: int, detail: int) -> dict[str, Any]:
    if fault >= _ATTACH_FAULT:
        # To plug a device in takes some dozens before the core hears of it.
        few, number = divmod(detail, 2)[::-1]
        return {"fail_alloc": 1 + number % (12 if few else FAIL_ALLOC)}
    found: dict[str, Any] = {
        "fail_kind": _KINDS[detail & 3],
        "fail_at": 1 + (detail >> 2 & 1),
        "fail_errno": _ERRNOS[detail >> 3 & 1],
    }
    # What makes an attach fail may last: then what puts back fails, too.
    if detail >> 4 & 3 == 3:
        found["fail_every"] = 1
    return found
