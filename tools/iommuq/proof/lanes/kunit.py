# SPDX-License-Identifier: GPL-2.0-only
"""The lane of the KUnit suites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from iommuq.build.image import Addition, Image
from iommuq.build.workspace import Workspace
from iommuq.defaults import KUNIT_LIMIT
from iommuq.proof.lane import Common, Recipe
from iommuq.queue.steps import Step
from iommuq.results.known import load_known
from iommuq.results.store import SuiteRun
from iommuq.suites import kunit
from iommuq.suites.kunit import run_kunit
from iommuq.system.arches import Arch


@dataclass(frozen=True)
class KunitLane(Common):
    """The KUnit suites, on the guest that kunit.py starts for *arch*.

    :ivar configs: names of further Kconfig fragments.
    :ivar filters: see `run_kunit`.
    :ivar limit: seconds for one boot.
    :ivar addition: what else to build from the tree.
    :ivar environment: further variables for the UML process.
    """

    name: ClassVar[str] = "kunit"
    arch: Arch
    configs: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    limit: float = KUNIT_LIMIT
    addition: Addition | None = None
    environment: Mapping[str, str] | None = None

    @classmethod
    def open(
        cls,
        workspace: Workspace,
        arch: Arch,
        configs: Sequence[str] = (),
        filters: Sequence[str] = (),
        limit: float = KUNIT_LIMIT,
    ) -> KunitLane:
        """Read the known failures of a queue and make the lane.

        :raises UserError: the list of known failures is malformed.
        """
        known = load_known(workspace.queue)
        return cls(workspace, arch, tuple(configs), tuple(filters), limit, known=known)

    @property
    def _arch(self) -> str:
        return self.arch.name

    @property
    def title(self) -> str:
        arch = self.arch
        ran = arch.title if arch.accelerator == "native" else f"{arch.title} ({arch.accelerator})"
        return f"KUnit on {ran}"

    @cached_property
    def recipe(self) -> Recipe:
        fragments = self.workspace.fragments(self.arch, self.configs)
        return Recipe(self.arch, fragments, self.addition)

    def run_key(self, image: Image) -> str:
        return kunit.run_key(image, self.filters)

    def _run(self, image: Image, step: Step, *, again: bool) -> SuiteRun:
        return run_kunit(
            image,
            self._subject(step),
            filters=self.filters,
            limit=self.limit,
            store=self.store,
            again=again,
            environment=self.environment,
        )
