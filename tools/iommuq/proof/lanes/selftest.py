# SPDX-License-Identifier: GPL-2.0-only
"""The lane of the userspace suites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from iommuq.build.image import Image
from iommuq.build.workspace import Workspace
from iommuq.defaults import GUESTS
from iommuq.guests.machine import Machine, load_machine
from iommuq.proof.lane import Common, Recipe
from iommuq.queue.steps import Step
from iommuq.results.known import KnownFailures, load_known
from iommuq.results.store import SuiteRun
from iommuq.suites import selftest
from iommuq.suites.programs import Suite, addition, choose, load_suites
from iommuq.suites.selftest import run_selftests
from iommuq.system import arches


@dataclass(frozen=True)
class SelftestLane(Common):
    """The userspace suites on one machine."""

    name: ClassVar[str] = "selftest"
    machine: Machine
    suites: tuple[Suite, ...]

    @classmethod
    def open(
        cls, workspace: Workspace, on: str, names: Sequence[str] = (), *, all_fail: bool = False
    ) -> SelftestLane:
        """Read the files of a queue and make the lane.

        :param on: ``um`` or ``qemu``.
        :param names: the suites; empty for all.
        :param all_fail: ignore the list of known failures.
        :raises UserError: one of the files is malformed, or there is no such suite.
        """
        known = KnownFailures() if all_fail else load_known(workspace.queue)
        suites = choose(load_suites(workspace.root), names)
        return cls(workspace, load_machine(GUESTS[on]), suites, known=known)

    @property
    def _arch(self) -> str:
        return self.machine.arch

    @property
    def title(self) -> str:
        return f"selftests on {self.machine.title}"

    @cached_property
    def recipe(self) -> Recipe:
        workspace, machine = self.workspace, self.machine
        fragments = workspace.selftest_fragments(machine)
        return Recipe(arches.get(machine.arch), fragments, addition(workspace.root))

    def run_key(self, image: Image) -> str:
        return selftest.run_key(image, self.machine, self.suites)

    def _run(self, image: Image, step: Step, *, again: bool) -> SuiteRun:
        subject = self._subject(step)
        return run_selftests(
            image, self.machine, self.suites, subject, store=self.store, again=again
        )
