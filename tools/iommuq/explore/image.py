# SPDX-License-Identifier: GPL-2.0-only
"""The kernel that is explored: a step of a queue with the simulated IOMMU laid over it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from iommuq.build.image import build_image
from iommuq.build.kconfig import Fragments
from iommuq.build.workspace import Workspace, has_simulation
from iommuq.queue.steps import Step
from iommuq.system import arches
from iommuq.system.errors import UserError

_FRAGMENTS = ("kunit/configs/um.config", "kunit/configs/debug.config", "explore/explore.config")


def check_kernel(workspace: Workspace) -> None:
    """Check that a base can be explored.

    :raises UserError: its kernel is too old.
    """
    kernel, folder = workspace.base.kernel, workspace.root / "explore"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such directory", hint="the simulated IOMMU would be there")
    if not has_simulation(workspace.root, kernel):
        raise UserError(
            f"{workspace.base.spec.name}: Linux {kernel} has no static domains",
            hint="6.12 is the first that has",
        )


def fragments_of(workspace: Workspace) -> Fragments:
    """Return the configuration of the kernel that is explored."""
    return Fragments.read(*(workspace.root / name for name in _FRAGMENTS), variant="explore")


@dataclass(frozen=True)
class Subject:
    """A kernel to explore; opened before it is built."""

    workspace: Workspace
    step: Step

    @classmethod
    def open(cls, base: str, at: str | None) -> Subject:
        """Read the files of a base.

        :raises UserError: there is no such base or step, or its kernel is too old.
        """
        workspace = Workspace.open(base)
        check_kernel(workspace)
        return cls(workspace, workspace.step(at))

    def build(self) -> Path:
        """Return the kernel from the cache, or build it.

        :raises VerdictError: the step does not build.
        :raises InfraError: a tool is missing, the disk is full.
        """
        fragments = fragments_of(self.workspace)
        arch = arches.get("um")
        image = build_image(self.workspace, self.step, arch, fragments)
        image.check()
        return image.folder / arch.image
