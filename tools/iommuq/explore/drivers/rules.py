# SPDX-License-Identifier: GPL-2.0-only
"""The rules for drivers: what a look at hardware, and the end of a step, must show.

`Breach.expect` is a step of a scenario and the word that it must end with.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from iommuq.explore.drivers.steps import Step
from iommuq.explore.drivers.world import Answer, Seen, State, World, kinds
from iommuq.explore.rules.model import Breach
from iommuq.system.errors import UserError

#: Steps that a caller cannot do anything about if they fail.
MUST_END = ("remove", "rescan", "unbind", "release", "replug")
LOOK = Step("look")


@dataclass(frozen=True)
class Moment:
    """One step, with the states around it.

    :ivar answer: what came of it.
    :ivar faulted: an allocation was made to fail in it, and did.
    :ivar failed: devices that came back while an allocation failed, and are in no group.
    """

    world: World
    step: Step
    before: State
    after: State
    answer: Answer
    faulted: bool
    failed: frozenset[str] = frozenset()

    @property
    def refused(self) -> bool:
        """Whether the step did not do what it was asked for."""
        return self.answer.word != "ok"


@dataclass(frozen=True)
class Rule:
    """One rule; see `iommuq.explore.rules.model.Rule`.

    :ivar check: None: what it is about is told by no state, see `player`.
    """

    name: str
    says: str
    source: str
    check: Callable[[Moment], Iterable[Breach]] | None


def _looks(moment: Moment, letter: str, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield device and place of the last look where a letter was seen; of one place, or of all."""
    for (device, where), seen in moment.after.reached.items():
        if seen == letter and place in ("", where):
            yield device, where


def _alike(moment: Moment, device: str, good: str) -> bool:
    """Whether a device that has the same requester ID is in a state: claimed, or identity.

    Hardware cannot tell the two apart.
    """
    for other in moment.world.shares[device]:
        seen = moment.after.seen[other]
        if other == device or not seen.present:
            continue
        if good == "claimed" and moment.after.owned(other):
            return True
        if good == "identity" and seen.type == "identity":
            return True
    return False


def _lost(moment: Moment) -> Iterator[Breach]:
    for device, _ in _looks(moment, "B", "region"):
        seen, region = moment.after.seen[device], moment.world.region_of(device)
        if not seen.present and _alike(moment, device, "claimed"):
            continue
        # The core could not learn of it for want of memory.
        if device in moment.failed and seen.group is None:
            continue
        assert region is not None
        yield Breach(
            "regions.lost",
            f"{_called(moment, device)} does not reach its direct region",
            f"dma {device} {region.name}|REACHED",
        )


def _memory(moment: Moment) -> Iterator[Breach]:
    for device, _ in _looks(moment, "R", "other"):
        seen = moment.after.seen[device]
        owned = moment.after.owned(device)
        if seen.type == "identity" and not owned:
            continue
        if _alike(moment, device, "identity") and not owned:
            continue
        yield Breach(
            "isolation.memory" if seen.present else "isolation.removed",
            f"{_called(moment, device)} reaches all memory",
            f"dma {device} other|BLOCKED",
        )


def _foreign(moment: Moment) -> Iterator[Breach]:
    for device, place in _looks(moment, "R"):
        owner = place.removeprefix("page of ")
        if owner == place or owner in moment.world.shares[device]:
            continue
        own, other = moment.after.seen[device].group, moment.after.seen[owner].group
        if own is not None and own == other:
            continue
        yield Breach(
            "isolation.owner",
            f"{_called(moment, device)} reaches what the owner of {owner} has mapped",
            f"dma-foreign {device} {owner} {moment.world.iova(owner):#x}|BLOCKED",
        )


def _own(moment: Moment) -> Iterator[Breach]:
    for device, place in _looks(moment, "B"):
        if place == f"page of {device}":
            yield Breach(
                "belief.mapped",
                f"{_called(moment, device)} does not reach what its owner has mapped",
                f"dma-mapped {device} {moment.world.iova(device):#x}|REACHED",
            )


def _identity(moment: Moment) -> Iterator[Breach]:
    for device, _ in _looks(moment, "B", "other"):
        seen = moment.after.seen[device]
        identity = seen.type == "identity" and seen.group is not None
        if identity and not moment.after.owned(device):
            yield Breach(
                "belief.identity",
                f"the group of {_called(moment, device)} is in identity, and it is blocked",
                f"dma {device} other|REACHED",
            )


def _claimed(moment: Moment) -> Iterator[Breach]:
    if moment.step.kind != "claim" or moment.refused:
        return
    interface, device = moment.step.words
    for other in moment.before.group(device):
        if moment.world.region_of(other) is not None:
            yield Breach(
                "ownership.direct",
                f"{device} was claimed, and {other} of its group has a direct region",
                f"claim {interface} {device}|EINVAL",
            )
            return


def _changed(moment: Moment) -> Iterator[Breach]:
    step = moment.step
    if not moment.refused or kinds()[step.kind].changes or step.kind == "look":
        return
    for device, seen in moment.after.seen.items():
        if seen != moment.before.seen[device]:
            yield Breach(
                "refusal.changed",
                f"{step.text} was refused, and {device} is not as before",
                _as_before(device, moment.before.seen[device], seen),
            )


def _as_before(device: str, before: Seen, after: Seen) -> str:
    """Return what asks whether a device is as it was; empty: nothing can."""
    if before.present != after.present:
        return f"present {device}|{'yes' if before.present else 'no'}"
    if before.driver != after.driver:
        return f"driver {device}|{'none' if before.driver == '-' else before.driver}"
    if (before.group is None) != (after.group is None):
        return f"together {device} {device}|{'no' if before.group is None else 'yes'}"
    return f"type {device}|{before.type}" if before.type != after.type else ""


def _back(moment: Moment) -> Iterator[Breach]:
    if moment.step.kind != "rescan" or moment.faulted:
        return
    for device, seen in moment.after.seen.items():
        if not seen.present:
            yield Breach("nofail.back", f"{device} is not found again", f"present {device}|yes")
        elif (
            seen.group is None
            and not moment.before.seen[device].present
            # Beside an owner a device with a region may be refused.
            and (moment.world.region_of(device) is None or not _beside_owner(moment, device))
        ):
            yield Breach(
                "nofail.grouped",
                f"{device} is found again and is in no group",
                # Its type may be DMA or DMA-FQ.
                f"together {device} {device}|yes",
            )


def _beside_owner(moment: Moment, device: str) -> bool:
    """Whether a device may be of a group that is claimed: its slot or its bridge is."""
    world = moment.world
    slot = world.addresses[device].rpartition(".")[0]
    return any(
        seen.claimed
        for other, seen in moment.after.seen.items()
        if other != device
        and (other in world.shares[device] or world.addresses[other].rpartition(".")[0] == slot)
    )


def _ends(moment: Moment) -> Iterator[Breach]:
    step = moment.step
    if step.kind in MUST_END and moment.refused and not moment.faulted:
        yield Breach("nofail.refused", f"{step.text} ends with {moment.answer.word}", _ok(step))


def _ok(step: Step) -> str:
    """Return what a scenario asks for a step that must end well."""
    # Replug is no step of a scenario.
    return "rescan|ok" if step.kind == "replug" else f"{step.text}|ok"


def hangs(step: Step) -> Breach:
    """Return the breach of a step that has not ended when its time was over."""
    return Breach("nofail.hangs", f"{step.text} does not end", "" if step == LOOK else _ok(step))


def _documented(moment: Moment) -> Iterator[Breach]:
    step, word = moment.step, moment.answer.word
    if not moment.refused or step.kind in MUST_END or step.kind == "look":
        return
    if word not in kinds()[step.kind].errnos and not (moment.faulted and word == "ENOMEM"):
        yield Breach("errnos.documented", f"{step.text} ends with {word}", f"{step.text}|ok")


def _called(moment: Moment, device: str) -> str:
    seen = moment.after.seen[device]
    if not seen.present:
        return f"{device}, which was removed,"
    return f"{device}, which is in no group," if seen.group is None else device


#: The rules, each with its sentence and source.
RULES = (
    Rule(
        "regions.lost",
        "A device reaches its direct regions, also when it was refused or removed.",
        "include/linux/iommu.h, IOMMU_RESV_DIRECT; Intel VT-d specification, 8.4",
        _lost,
    ),
    Rule(
        "isolation.memory",
        "A device whose group is not in identity reaches nothing that is not mapped.",
        "Documentation/ABI/testing/sysfs-kernel-iommu_groups",
        _memory,
    ),
    Rule(
        "isolation.removed",
        "A device that was removed reaches nothing but its direct regions.",
        "include/linux/iommu.h, release_domain",
        _memory,
    ),
    Rule(
        "isolation.owner",
        "What an owner maps is reached by the devices of its group alone.",
        "Documentation/driver-api/vfio.rst",
        _foreign,
    ),
    Rule(
        "belief.mapped",
        "A device reaches what its owner has mapped.",
        "Documentation/driver-api/vfio.rst",
        _own,
    ),
    Rule(
        "belief.identity",
        "A device whose group is in identity reaches all memory.",
        "Documentation/ABI/testing/sysfs-kernel-iommu_groups",
        _identity,
    ),
    Rule(
        "ownership.direct",
        "A group with a device that has a direct region cannot be claimed.",
        "20230607035145.343698-1-baolu.lu@linux.intel.com",
        _claimed,
    ),
    Rule("refusal.changed", "A step that is refused changes nothing.", "errno(3)", _changed),
    Rule(
        "nofail.back",
        "A device that is plugged in is found by a rescan.",
        "Documentation/ABI/testing/sysfs-bus-pci, rescan",
        _back,
    ),
    Rule(
        "nofail.grouped",
        "A device that is found again is in a group.",
        "iommu.c, iommu_probe_device()",
        _back,
    ),
    Rule(
        "nofail.refused",
        "To remove, to unbind, to release and to rescan does not fail.",
        "drivers/pci/pci-sysfs.c; drivers/base/bus.c",
        _ends,
    ),
    Rule(
        "nofail.hangs",
        "Each step ends.",
        "Documentation/admin-guide/sysctl/kernel.rst, hung_task",
        None,
    ),
    Rule("errnos.documented", "Errors are those that are documented.", "drivers.toml", _documented),
    Rule("splats.printed", "The kernel prints no splat.", "Documentation/dev-tools/", None),
)


def named(name: str) -> Rule:
    """Return the rule of a name."""
    return next(rule for rule in RULES if rule.name == name)


def chosen(without: Collection[str] = ()) -> frozenset[str]:
    """Return the names of the rules, but for those that are left out, or whose group is.

    :raises UserError: there is no rule or group of one of the names.
    """
    names = {rule.name for rule in RULES}
    known = names | {name.partition(".")[0] for name in names}
    for name in without:
        if name not in known:
            raise UserError(f"no rule {name!r}; there are {', '.join(sorted(known))}")
    return frozenset(n for n in names if not {n, n.partition(".")[0]} & set(without))


def breaches(moment: Moment, wanted: frozenset[str]) -> list[Breach]:
    """Return what does not hold after a step."""
    # One may be that of two rules.
    checks = dict.fromkeys(rule.check for rule in RULES if rule.check is not None)
    return [each for check in checks for each in check(moment) if each.rule in wanted]
