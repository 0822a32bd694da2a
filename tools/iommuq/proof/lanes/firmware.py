# SPDX-License-Identifier: GPL-2.0-only
"""The lane of the firmware scenarios."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

from iommuq.build.image import Image
from iommuq.build.workspace import Workspace
from iommuq.firmware import scenario
from iommuq.proof.lane import Common, Recipe
from iommuq.queue.steps import Step
from iommuq.results.known import NAME as KNOWN_NAME
from iommuq.results.known import load_known
from iommuq.results.store import Store, SuiteRun, new_id
from iommuq.suites.firmware.cases import Case, cases, run_key
from iommuq.system import arches
from iommuq.system.errors import UserError


@dataclass(frozen=True)
class FirmwareLane(Common):
    """The firmware scenarios, each on its machines, all with one kernel."""

    name: ClassVar[str] = "firmware"
    cases: tuple[Case, ...]

    @classmethod
    def open(cls, workspace: Workspace) -> FirmwareLane:
        """Read the files of a queue and make the lane.

        :raises UserError: a scenario, a machine or the list of known failures is malformed, or
            the list names a check that no scenario has.
        """
        known = load_known(workspace.queue)
        found = tuple(cases(scenario.choose([])))
        checks = {f"{case.name}.{check}" for case in found for check in case.checks}
        for name in known.of_no_test("firmware", checks):
            raise UserError(
                f"{workspace.queue.folder / KNOWN_NAME}: {name}: no scenario has this check",
                hint="`iommuq firmware list` names the scenarios",
            )
        return cls(workspace, found, known=known)

    @property
    def _arch(self) -> str:
        return self.cases[0].machine.arch

    @property
    def title(self) -> str:
        return "firmware scenarios under QEMU"

    @cached_property
    def recipe(self) -> Recipe:
        machine = self.cases[0].machine
        return Recipe(arches.get(machine.arch), self.workspace.firmware_fragments(machine))

    def narrowed(self, tests: Collection[str]) -> FirmwareLane | None:
        wanted = {test.rpartition(".")[0] for test in tests}
        found = tuple(case for case in self.cases if case.name in wanted)
        return replace(self, cases=found, quiet=True) if 0 < len(found) < len(self.cases) else None

    def hurried(self, limit: float) -> FirmwareLane:
        """Return the lane with a boot limit of at most *limit* seconds."""
        found = []
        for case in self.cases:
            boot_limit = min(limit, case.machine.boot_limit)
            found.append(replace(case, machine=replace(case.machine, boot_limit=boot_limit)))
        return replace(self, cases=tuple(found))

    def runs_file(self, test: str, path: str) -> bool:
        """See `Lane`: the driver of another IOMMU has no device."""
        drivers = {case.machine.name: case.machine.driver for case in self.cases}
        whose = {name for name, driver in drivers.items() if driver and path.startswith(driver)}
        return not whose or test.partition(".")[0] in whose

    def run_key(self, image: Image) -> str:
        # It and what it needs take a tenth of the time of a run that is in the cache.
        from iommuq.suites.firmware.subjects import from_image

        kernel = from_image(image, "", self.workspace.base.kernel)
        keys = [run_key(kernel, case) for case in self.cases]
        return hashlib.sha256("\n".join(keys).encode()).hexdigest()

    def _run(self, image: Image, step: Step, *, again: bool) -> SuiteRun:
        from iommuq.suites.firmware.run import run_scenarios
        from iommuq.suites.firmware.subjects import from_image

        base = self.workspace.base
        kernel = from_image(image, f"{base.spec.name} {step.label}", base.kernel)
        subject = self._subject(step)
        store = self.store or Store()
        key = self.run_key(image)
        runs = run_scenarios(kernel, self.cases, subject, store=store, again=again)
        results = tuple(result for run in runs for result in run.results)
        # A cell of a proof is one run with its own history, besides those of the scenarios.
        found = None if again else store.find(key)
        statuses = [(result.test, result.status) for result in results]
        if found is not None and [(each.test, each.status) for each in found.results] == statuses:
            return replace(found, base=subject.base, patch=subject.patch, results=results)
        started = min(run.started for run in runs)
        finished = max(run.finished or run.started for run in runs)
        whole = replace(runs[0], id=new_id(started), key=key, started=started)
        splats = [splat for run in runs for splat in run.splats]
        store.begin(whole)
        return store.finish(whole, results, finished, splats)
