# SPDX-License-Identifier: GPL-2.0-only
"""The lane of suites of others.  `iommuq prove` does not have it: a proof depends on no sources
that the user may lack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from iommuq.build.image import Image
from iommuq.build.workspace import Workspace
from iommuq.firmware.kernels import Kernel
from iommuq.guests.machine import Machine, load_machine
from iommuq.proof.lanes import OnMachines
from iommuq.queue.steps import Step
from iommuq.results.known import KnownFailures, load_known
from iommuq.results.store import SuiteRun
from iommuq.suites.firmware.subjects import from_image
from iommuq.suites.foreign import programs, table
from iommuq.suites.foreign.run import SUITE, run_foreign, run_key
from iommuq.suites.foreign.table import Foreign


@dataclass(frozen=True)
class ForeignLane(OnMachines):
    """Suites of others, on the kernel of the firmware scenarios.

    :ivar machines: names of the machines; each has a guest.
    :ivar given: the directory with the sources; None: the cache.
    """

    name: ClassVar[str] = SUITE
    found: Foreign
    machines: tuple[str, ...]
    given: Path | None = None

    @classmethod
    def open(
        cls,
        workspace: Workspace,
        machines: Sequence[str] = (),
        given: Path | None = None,
        *,
        all_fail: bool = False,
    ) -> ForeignLane:
        """Read the files of a queue and make the lane.

        :param machines: empty for all of the suites.
        :param all_fail: ignore the list of known failures.
        :raises UserError: one of the files is malformed, or the suites have no such machine.
        """
        known = KnownFailures() if all_fail else load_known(workspace.queue)
        found = table.load(workspace.root)
        return cls(workspace, found, table.choose(found, machines), given, known=known)

    @cached_property
    def built(self) -> tuple[programs.Built, ...]:
        """The programs of all suites, built where the sources are there."""
        return tuple(programs.build(suite, self.given) for suite in self.found.suite)

    @cached_property
    def _machine(self) -> Machine:
        return load_machine(self.machines[0])

    @property
    def title(self) -> str:
        return "suites of others under QEMU"

    def _kernel(self, image: Image, name: str) -> Kernel:
        return from_image(image, name, self.workspace.base.kernel)

    def run_key(self, image: Image) -> str:
        return run_key(self._kernel(image, ""), self.built, self.machines)

    def _run(self, image: Image, step: Step, *, again: bool) -> SuiteRun:
        kernel = self._kernel(image, f"{self.workspace.base.spec.name} {step.label}")
        subject = self._subject(step)
        return run_foreign(
            kernel, self.found, self.built, self.machines, subject, store=self.store, again=again
        )
