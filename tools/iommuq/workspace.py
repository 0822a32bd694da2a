# SPDX-License-Identifier: GPL-2.0-only
"""All that belongs to one base, read once: a run keeps what it started with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from iommuq.arches import Arch
from iommuq.basefile import load_spec
from iommuq.bases import Base, open_base
from iommuq.build import Fragments
from iommuq.dirs import project_root
from iommuq.known import KnownFailures
from iommuq.known import load as load_known
from iommuq.overlay import Overlay, load_overlay
from iommuq.patchqueue import Queue, load_queue
from iommuq.tree import Step, make_steps

#: The base that is meant when the user names none.
DEFAULT_BASE = "6.12"


@dataclass(frozen=True)
class Workspace:
    """A base with its queue, and what is laid over its tree.

    :ivar root: the checkout of the project.
    """

    root: Path
    base: Base
    queue: Queue
    overlay: Overlay
    known: KnownFailures

    @classmethod
    def open(cls, name: str) -> Workspace:
        """Read all of a base, fetching its source if it is not in the cache.

        :raises UserError: there is no such base, or its files are malformed.
        """
        root = project_root()
        spec = load_spec(name)
        queue = load_queue(spec.folder, name)
        overlay = load_overlay(root / "kunit")
        known = load_known(root / "kunit" / "known-failures.toml")
        return cls(root, open_base(spec), queue, overlay, known)

    def steps(self, to: str | None = None) -> list[Step]:
        """Return the steps of the queue with the overlay, up to *to* or all."""
        if to is None:
            return self._all_steps
        return make_steps(self.base, self.queue, self.overlay, to=to)

    @cached_property
    def _all_steps(self) -> list[Step]:
        return make_steps(self.base, self.queue, self.overlay)

    def step(self, at: str | None) -> Step:
        """Return one step: that which *at* names, or the last."""
        return self.steps(at)[-1]

    def fragments(self, arch: Arch) -> Fragments:
        """Return what the KUnit kernel for *arch* is configured with."""
        return Fragments.read(
            self.root / "kunit/drivers/iommu/tests/.kunitconfig",
            self.root / f"kunit/configs/{arch.name}.config",
        )
