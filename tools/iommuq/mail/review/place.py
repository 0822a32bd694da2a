# SPDX-License-Identifier: GPL-2.0-only
"""Where a posted series is applied: on which base, after which patches of the queue."""

from __future__ import annotations

from dataclasses import dataclass

from iommuq.bases.sources import Base
from iommuq.queue.model import BASELINE, PLAIN, Patch, Queue, find_step
from iommuq.queue.steps import make_steps


@dataclass(frozen=True)
class Place:
    """A base with some patches of its queue, to apply a series to.

    :ivar label: the step of the queue: ``base``, ``baseline`` or a patch.
    :ivar patches: of the queue, applied before the series.
    :ivar wanted: the base-commit of the series; empty if it names none.
    :ivar met: whether the series is applied to that commit.
    """

    base: Base
    label: str
    patches: tuple[Patch, ...]
    wanted: str
    met: bool

    @property
    def title(self) -> str:
        """The kernel, in words."""
        version = self.base.version
        kernel = f"Linux {self.base.kernel}"
        if version and version != self.base.kernel:
            kernel += f" ({version[:40]})"
        if self.label == PLAIN:
            return kernel
        count = len(self.patches)
        mine = "1 patch of mine" if count == 1 else f"{count} patches of mine"
        last = "" if self.label == BASELINE else f" (up to {self.label})"
        return f"{kernel} with {mine}{last} before yours"


def find_place(base: Base, queue: Queue, at: str | None, wanted: str) -> Place:
    """Return where a series is applied.

    :param at: the step that the user named; None for the one whose commit is *wanted*,
        or the plain base.
    :param wanted: the base-commit of the series, possibly abbreviated.
    :raises UserError: there is no step *at*.
    """
    if at is not None:
        label = find_step(queue, at)
        return Place(base, label, _up_to(queue, label), wanted, _commit(base, queue, label, wanted))
    if len(wanted) >= 7:
        for label in (PLAIN, *queue.steps):
            if _commit(base, queue, label, wanted):
                return Place(base, label, _up_to(queue, label), wanted, met=True)
    return Place(base, PLAIN, (), wanted, met=False)


def _commit(base: Base, queue: Queue, label: str, wanted: str) -> bool:
    """Tell whether *wanted* is the commit of a step."""
    return bool(wanted) and make_steps(base, queue, None, to=label)[-1].commit.startswith(wanted)


def _up_to(queue: Queue, label: str) -> tuple[Patch, ...]:
    if label == PLAIN:
        return ()
    return (*queue.baseline, *queue.sent[: queue.steps.index(label)])
