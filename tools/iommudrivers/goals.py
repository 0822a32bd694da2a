# SPDX-License-Identifier: GPL-2.0-only
"""``docs/generated/goals.md``: how far each driver is from the four goals of 2023."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources

from iommudrivers.model import Answer, Driver, How, Source
from iommudrivers.page import Kernel, safe

_HEAD = (
    "driver",
    "1: attaches do not fail",
    "2: both are static",
    "3: the core decides",
    "4: recovery",
    "DIRECT",
)
#: The function of the core that chooses a last resort, where the queue has added it.
LAST_RESORT = b"iommu_park_device("


@dataclass(frozen=True)
class State:
    """The drivers of a base without its queue, and with it.

    :ivar plain: the base.
    :ivar queued: the base with the whole queue.
    :ivar recovers: whether the core of *queued* has a last resort that keeps direct mappings.
    :ivar machines: each machine of QEMU, and the folder or file of the driver that it runs.
    """

    plain: Kernel
    queued: Kernel
    recovers: bool
    machines: Sequence[tuple[str, str]] = ()


#: What a goal asks of a driver: why it is not met; empty: it is.
Goal = Callable[[Driver, bool], str]


def render(state: State) -> str:
    """Return the page."""
    head = resources.files(__package__).joinpath("goals.md").read_text(encoding="utf-8")
    return f"{head.strip()}\n\n" + "\n".join(table(state)) + "\n"


def table(state: State) -> list[str]:
    """Return a row for each driver that has domains of its own."""
    lines = [f"## {safe(state.queued.title)}", "", f"| {' | '.join(_HEAD)} |", "|---" * 6 + "|"]
    before = {_key(driver): driver for driver in state.plain.drivers}
    against = {(note.driver, note.opens) for note in state.queued.notes}
    for driver in state.queued.drivers:
        if not _named(driver.identity) and not _named(driver.blocked):
            continue
        cells = [driver.name]
        for number, goal in enumerate((_never_fails, _are_static, _core_decides, _recovers), 1):
            cell = _cell(goal, before.get(_key(driver)), driver, state.recovers)
            read = (driver.name, number) in against and not cell.startswith("open")
            cells.append("open: by reading, see below" if read else cell)
        cells.append(_reports(driver, state))
        lines.append(f"| {' | '.join(map(safe, cells))} |")
    notes = [
        f"- **{safe(each.driver)}**, by reading: {safe(each.text)}" for each in state.queued.notes
    ]
    return [*lines, *([""] if notes else []), *notes]


def _cell(goal: Goal, before: Driver | None, after: Driver, recovers: bool) -> str:
    open_after = goal(after, recovers)
    if open_after:
        return f"open: {open_after}"
    return "met" if before is not None and not goal(before, False) else "**met with the queue**"


def _key(driver: Driver) -> tuple[str, str]:
    return driver.place.path, driver.ops


def _named(sources: Sequence[Source]) -> bool:
    return any(each.how in (How.STATIC, How.ALLOCATED) for each in sources)


def _never_fails(driver: Driver, _recovers: bool) -> str:
    """Goal 1: drivers never fail to attach identity or blocking domains."""
    for what, sources in (("identity", driver.identity), ("blocked", driver.blocked)):
        for source in sources:
            verdict = source.verdict
            if verdict is None or verdict.answer is Answer.NEVER:
                continue
            reason = (*verdict.failures, *verdict.unknown)[0]
            doubt = "" if verdict.failures else "undecided, "
            return f"{what}, {doubt}{reason.what} at {reason.place}"
    return ""


def _are_static(driver: Driver, _recovers: bool) -> str:
    """Goal 2: both domains are global statics."""
    for what, sources in (("identity", driver.identity), ("blocked", driver.blocked)):
        if not any(each.how is How.STATIC for each in sources):
            return f"{what} is {sources[0].how.value if sources else 'none'}, {driver.place}"
    return ""


def _core_decides(driver: Driver, _recovers: bool) -> str:
    """Goal 3: the core decides when they are used; what is left to drivers is the release."""
    if not driver.release:
        return f"no release_domain, {driver.place}"
    if not driver.release.startswith("blocked"):
        return f"release_domain is {driver.release.partition(' ')[0]}, {driver.place}"
    return ""


def _recovers(driver: Driver, recovers: bool) -> str:
    """Goal 4: recovery blocks, or keeps regions mapped that must be."""
    if not any(each.how is How.STATIC for each in driver.blocked):
        return f"no static blocked domain, {driver.place}"
    if any(region.kind == "DIRECT" for region in driver.regions) and not recovers:
        return "the core blocks it, drivers/iommu/iommu.c"
    return ""


def _reports(driver: Driver, state: State) -> str:
    """Return whether firmware can claim regions of its devices, and where that is run."""
    if not any(region.kind == "DIRECT" for region in driver.regions):
        return "-"
    path = driver.place.path
    names = [name for name, sources in state.machines if path.startswith(sources)]
    return f"yes, run on {', '.join(names)}" if names else "yes, by source only"
