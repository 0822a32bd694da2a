# SPDX-License-Identifier: GPL-2.0-only
"""Exploration as a suite, for `iommuq mutate --suite explore`: each rule is a test.

It is no suite of a proof: what is found within a time depends on the machine.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from iommuq.build.image import Image
from iommuq.build.workspace import Workspace
from iommuq.explore.campaign import Outcome, Plan, explore
from iommuq.explore.exceptions import Exceptions, load
from iommuq.explore.image import check_kernel, fragments_of
from iommuq.explore.rules import all_rules
from iommuq.proof.lanes import Common, Recipe
from iommuq.queue.steps import Step
from iommuq.results.known import KnownFailures
from iommuq.results.store import Result, Status, Store, SuiteRun, new_id
from iommuq.system import arches
from iommuq.system.errors import InfraError
from iommuq.system.files import file_sha256, hash_of, new_log

#: Seconds to explore each image.
SECONDS = 20.0


@dataclass(frozen=True)
class ExploreLane(Common):
    """Random sequences, for a time, from an empty database and with one seed."""

    name: ClassVar[str] = "explore"
    exceptions: Exceptions
    seconds: float = SECONDS
    seed: int = 1

    @classmethod
    def open(cls, workspace: Workspace) -> ExploreLane:
        """Read the accepted and known breaches of a base.

        :raises UserError: the list is malformed, or the kernel too old.
        """
        check_kernel(workspace)
        names = frozenset(rule.name for rule in all_rules())
        return cls(workspace, load(workspace.base.spec.folder, names), known=KnownFailures())

    @property
    def _arch(self) -> str:
        return "um"

    @property
    def title(self) -> str:
        return f"exploration for {self.seconds:g} s on User-mode Linux"

    @cached_property
    def recipe(self) -> Recipe:
        return Recipe(arches.get("um"), fragments_of(self.workspace))

    def run_key(self, image: Image) -> str:
        # What the rules say, and what is tried, is in the code of this room.
        sources = sorted(Path(__file__).parent.rglob("*.*"))
        code = [file_sha256(path) for path in sources if path.suffix in (".py", ".toml")]
        facts = (str(self.exceptions), str(self.seconds), str(self.seed))
        return hash_of(image.key, self.name, *code, *facts)

    def _run(self, image: Image, step: Step, *, again: bool) -> SuiteRun:
        store, key = self.store or Store(), self.run_key(image)
        found = None if again else store.find(key)
        if found is not None and not found.has_errors:
            return found
        subject, started = self._subject(step), time.time()
        arch = image.arch
        current = SuiteRun(
            new_id(started), subject.base, subject.patch, self.name, key, subject.kernel,
            arch.guest, arch.accelerator, started, image=image.check(),
        )  # fmt: skip
        store.begin(current)
        log = new_log(f"explore-{subject.base}-{subject.patch}")
        return store.finish(current, self._results(image.folder / arch.image, current, log))

    def _results(self, kernel: Path, run: SuiteRun, log: Path) -> Sequence[Result]:
        plan = Plan(
            kernel, all_rules(), self.exceptions, self.seconds, self.seed, None, log,
            run.base, run.patch, quick=True, enough=1,
        )  # fmt: skip
        outcome, lost = Outcome(), ""
        try:
            explore(plan, outcome, lambda _so_far: None, lambda _find, _repeats: None)
        except InfraError as error:
            lost = str(error)
        said = {find.breach.rule: "\n".join(find.lines()) for find in outcome.finds}
        results = []
        for rule in all_rules():
            status = Status.FAIL if rule.name in said else Status.PASS
            if lost and status is Status.PASS:
                status = Status.ERROR
            message = said.get(rule.name, lost)
            results.append(
                Result(
                    run.base, run.patch, self.name, rule.name, status, outcome.seconds, message,
                    str(log),
                )
            )  # fmt: skip
        return results
