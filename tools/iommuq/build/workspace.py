# SPDX-License-Identifier: GPL-2.0-only
"""All files of one base, read once: later edits do not change a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from iommuq.bases.basefile import load_spec
from iommuq.bases.sources import Base, open_base
from iommuq.build.kconfig import Fragments
from iommuq.guests.machine import Machine
from iommuq.queue.model import Queue, load_queue
from iommuq.queue.overlay import DESCRIPTION, Overlay, load_overlay
from iommuq.queue.steps import Step, make_step, make_steps
from iommuq.system import arches
from iommuq.system.arches import Arch
from iommuq.system.errors import UserError
from iommuq.system.files import project_root


def has_simulation(root: Path, kernel: str) -> bool:
    """Tell whether a project has a simulated IOMMU that can be built in a kernel.

    Its domains are static, which those of kernels before 6.12 are not.

    :param root: the checkout of the project.
    :param kernel: the release, ``6.12.117``.
    """
    if not (root / "explore" / DESCRIPTION).exists():
        return False
    found = re.match(r"(\d+)\.(\d+)", kernel)
    return found is not None and (int(found[1]), int(found[2])) >= (6, 12)


def tests_of(root: Path, kernel: str) -> Overlay:
    """Return what is laid over a kernel to test it: the suites, and the simulated IOMMU.

    :param root: the checkout of the project.
    :param kernel: the release, ``6.12.117``.
    :raises UserError: a description is malformed.
    """
    overlay = load_overlay(root / "kunit")
    if has_simulation(root, kernel):
        overlay = overlay.over(load_overlay(root / "explore"))
    return overlay


@dataclass(frozen=True)
class Workspace:
    """A base with its queue, and the overlay of its tree; *root* is the checkout of the project."""

    root: Path
    base: Base
    queue: Queue
    overlay: Overlay

    @classmethod
    def open(cls, name: str) -> Workspace:
        """Read all files of a base; fetch its source if it is not in the cache.

        :raises UserError: there is no such base, or its files are malformed.
        """
        root = project_root()
        spec = load_spec(name)
        queue = load_queue(spec.folder, name)
        base = open_base(spec)
        return cls(root, base, queue, tests_of(root, base.kernel))

    @cached_property
    def exported(self) -> Overlay:
        """The part of the overlay that is mailed."""
        return load_overlay(self.root / "kunit")

    @property
    def title(self) -> str:
        """The name of the kernel: ``Linux 6.12.117 (6.12.117-1~deb12u1)``."""
        return f"Linux {self.base.kernel} ({self.base.version})"

    def steps(self, to: str | None = None) -> list[Step]:
        """Return the steps of the queue with the overlay, up to *to* or all."""
        if to is None:
            return self._all_steps
        return make_steps(self.base, self.queue, self.overlay, to=to)

    @cached_property
    def _all_steps(self) -> list[Step]:
        return make_steps(self.base, self.queue, self.overlay)

    def step(self, at: str | None) -> Step:
        """Return the step that *at* names; None: the last one."""
        return make_step(self.base, self.queue, self.overlay, to=at)

    def selftest_fragments(self, machine: Machine) -> Fragments:
        """Return the configuration of the kernel for the userspace suites on *machine*."""
        return Fragments.read(*self._configs(machine), variant="selftest", tiny=True)

    def firmware_fragments(self, machine: Machine) -> Fragments:
        """Return the configuration of the kernel for all firmware scenarios on *machine*.

        ``configs/firmware.config`` in the folder of the base is merged last.
        """
        own = self._configs(machine)
        # To go from one to another in one directory builds all of the kernel again.
        variant = own[-1].stem
        return Fragments.read(*own, *self._own_fragment("firmware"), variant=variant, tiny=True)

    def _configs(self, machine: Machine) -> list[Path]:
        return [self.root / "selftests/configs" / name for name in machine.config]

    def _own_fragment(self, name: str) -> list[Path]:
        path = self.base.spec.folder / "configs" / f"{name}.config"
        return [path] if path.exists() else []

    def fragments(self, arch: Arch, extra: Sequence[str] = ()) -> Fragments:
        """Return the configuration of the KUnit kernel for *arch*.

        ``configs/<arch>.config`` in the folder of the base is merged last.

        :param extra: names of further fragments in ``kunit/configs``, such as ``debug``.
        :raises UserError: there is no fragment of that name, or one is malformed.
        """
        folder = self.root / "kunit/configs"
        usual = set(arches.names())
        choice = sorted(path.stem for path in folder.glob("*.config") if path.stem not in usual)
        for name in extra:
            if name not in choice:
                raise UserError(
                    f"no configuration {name!r}; there are {', '.join(choice) or 'none'}",
                    hint=f"it would be {folder / name}.config",
                )
        tree_suites = self.root / "kunit/tree.config"
        explored = arch.name == "um" and has_simulation(self.root, self.base.kernel)
        return Fragments.read(
            self.root / "kunit/drivers/iommu/tests/.kunitconfig",
            *(folder / f"{name}.config" for name in (arch.name, *extra)),
            *([self.root / "explore/kunit.config"] if explored else []),
            *self._own_fragment(arch.name),
            variant="-".join(sorted(extra)),
            # The tree's own suites need no hardware, and this kernel runs in a second.
            optional=tree_suites if arch.name == "um" and tree_suites.exists() else None,
        )
