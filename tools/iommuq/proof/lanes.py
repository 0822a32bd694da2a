# SPDX-License-Identifier: GPL-2.0-only
"""The lanes of a proof: a suite, what it runs on, and how its results are judged.

A lane makes the image that its suite needs of a step, and runs the suite on it.
Both are answered from the cache where nothing changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol, Self

from iommuq.build.image import Addition, Image, build_image, image_key
from iommuq.build.kconfig import Fragments
from iommuq.build.workspace import Workspace
from iommuq.defaults import KUNIT_LIMIT
from iommuq.firmware import scenario
from iommuq.guests.machine import Machine
from iommuq.guests.machine import load as load_machine
from iommuq.queue.steps import Step
from iommuq.results import events
from iommuq.results.known import NAME as KNOWN_NAME
from iommuq.results.known import Failure, KnownFailures, Verdict, excused, judge_run
from iommuq.results.known import load as load_known
from iommuq.results.store import Run, Store, new_id
from iommuq.suites import kunit, selftest
from iommuq.suites.firmware.cases import Case, cases, run_key
from iommuq.suites.firmware.run import run_scenarios
from iommuq.suites.firmware.subjects import from_image
from iommuq.suites.kunit import Subject, run_kunit
from iommuq.suites.programs import Suite, addition, choose, load_suites
from iommuq.suites.selftest import run_selftests
from iommuq.system import arches
from iommuq.system.arches import Arch
from iommuq.system.errors import UserError, VerdictError

#: The machine that is meant by the name of a guest.
MACHINES = {"um": "um", "qemu": "q35"}


class Lane(Protocol):
    """One suite on one kind of guest."""

    @property
    def name(self) -> str:
        """What the suite is called, ``kunit``; tests are named ``<lane>.<test>``."""

    @property
    def title(self) -> str:
        """What it runs on, in words."""

    def image(self, step: Step) -> Image:
        """Return the image of a step, as `build.build_image` does."""

    def run(self, image: Image, step: Step, *, again: bool = False) -> Run:
        """Run the suite on an image, or answer from the store.

        :param again: run even if the store has the results.
        """

    def judge(self, run: Run) -> dict[str, Verdict]:
        """Return the verdicts of a run, by test, with known failures taken into account."""

    def excuses(self, run: Run) -> dict[str, Failure]:
        """Return the entries of the list of known failures that are for a run, by test."""

    def image_key(self, step: Step) -> str:
        """Return the content key that the image of a step has, or will have."""

    def run_key(self, image: Image) -> str:
        """Return the content key of all that decides what the suite says of an image."""

    def keeping(self, store: Store) -> Self:
        """Return the same lane, with its results in another store."""

    def narrowed(self, tests: Collection[str]) -> Lane | None:
        """Return the lane with the guests alone in which some tests run; None if it is no less.

        :param tests: as they are called in its runs.
        """

    def runs_file(self, test: str, path: str) -> bool:
        """Tell whether the guest of a test runs what is in a file of the kernel's.

        :param path: as the tree has it; it is in the kernel.
        """


@dataclass(frozen=True)
class _Recipe:
    """What is made of the tree of a step."""

    arch: Arch
    fragments: Fragments
    addition: Addition | None = None


@dataclass(frozen=True)
class _Common:
    workspace: Workspace
    #: Failures that are no surprise.
    known: KnownFailures = field(kw_only=True)
    store: Store | None = field(default=None, kw_only=True)
    #: Report no progress: it is a part of another lane.
    quiet: bool = field(default=False, kw_only=True)

    @property
    def name(self) -> str:
        """See `Lane`."""
        raise NotImplementedError

    @property
    def _recipe(self) -> _Recipe:
        raise NotImplementedError

    @property
    def _arch(self) -> str:
        raise NotImplementedError

    def image(self, step: Step) -> Image:
        """See `Lane`."""
        recipe = self._recipe
        events.busy(step.label, self.name, "building")
        try:
            return build_image(self.workspace, step, recipe.arch, recipe.fragments, recipe.addition)
        except VerdictError as error:
            events.failed(step.label, self.name, str(error), "does not build")
            raise

    def run(self, image: Image, step: Step, *, again: bool = False) -> Run:
        """See `Lane`."""
        if self.quiet:
            return self._run(image, step, again=again)
        events.busy(step.label, self.name, "running")
        run = self._run(image, step, again=again)
        events.done(step.label, self.name, run, self.judge)
        return run

    def _run(self, image: Image, step: Step, *, again: bool) -> Run:
        raise NotImplementedError

    def image_key(self, step: Step) -> str:
        """See `Lane`."""
        recipe = self._recipe
        return image_key(step, recipe.arch, recipe.fragments, recipe.addition)

    def keeping(self, store: Store) -> Self:
        """See `Lane`."""
        return replace(self, store=store)

    def narrowed(self, tests: Collection[str]) -> Lane | None:  # noqa: ARG002
        """See `Lane`: all run in one guest."""
        return None

    def runs_file(self, test: str, path: str) -> bool:  # noqa: ARG002
        """See `Lane`."""
        return True

    def _subject(self, step: Step) -> Subject:
        return Subject(self.workspace.base.spec.name, step.label, self.workspace.base.kernel)

    def judge(self, run: Run) -> dict[str, Verdict]:
        """See `Lane`."""
        return judge_run(run, self.known, self._arch)

    def excuses(self, run: Run) -> dict[str, Failure]:
        """See `Lane`."""
        return excused(run, self.known, self._arch)


@dataclass(frozen=True)
class KunitLane(_Common):
    """The KUnit suites, on the guest that kunit.py starts for *arch*.

    :ivar configs: names of further Kconfig fragments.
    :ivar filters: as `run_kunit` takes them.
    :ivar limit: seconds that one boot may take.
    :ivar addition: what else is made from the tree.
    :ivar environment: further variables for the guest, which is a process under UML.
    """

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
        """Read what the lane needs; the rest is as the class has it.

        :raises UserError: the list of known failures is malformed.
        """
        known = load_known(workspace.queue)
        return cls(workspace, arch, tuple(configs), tuple(filters), limit, known=known)

    @property
    def _arch(self) -> str:
        return self.arch.name

    @property
    def name(self) -> str:
        """See `Lane`."""
        return "kunit"

    @property
    def title(self) -> str:
        """See `Lane`."""
        arch = self.arch
        ran = arch.title if arch.accelerator == "native" else f"{arch.title} ({arch.accelerator})"
        return f"KUnit on {ran}"

    @cached_property
    def _recipe(self) -> _Recipe:
        fragments = self.workspace.fragments(self.arch, self.configs)
        return _Recipe(self.arch, fragments, self.addition)

    def run_key(self, image: Image) -> str:
        """See `Lane`."""
        return kunit.run_key(image, self.filters)

    def _run(self, image: Image, step: Step, *, again: bool) -> Run:
        return run_kunit(
            image,
            self._subject(step),
            filters=self.filters,
            limit=self.limit,
            store=self.store,
            again=again,
            environment=self.environment,
        )


@dataclass(frozen=True)
class SelftestLane(_Common):
    """The userspace suites on one machine.

    :ivar suites: those to run.
    """

    machine: Machine
    suites: tuple[Suite, ...]

    @classmethod
    def open(
        cls, workspace: Workspace, on: str, names: Sequence[str] = (), *, all_fail: bool = False
    ) -> SelftestLane:
        """Read what the lane needs.

        :param on: ``um`` or ``qemu``.
        :param names: the suites; none for all.
        :param all_fail: take no failure for a known one.
        :raises UserError: one of the files is malformed, or there is no such suite.
        """
        known = KnownFailures() if all_fail else load_known(workspace.queue)
        suites = choose(load_suites(workspace.root), names)
        return cls(workspace, load_machine(MACHINES[on]), suites, known=known)

    @property
    def _arch(self) -> str:
        return self.machine.arch

    @property
    def name(self) -> str:
        """See `Lane`."""
        return "selftest"

    @property
    def title(self) -> str:
        """See `Lane`."""
        return f"selftests on {self.machine.title}"

    @cached_property
    def _recipe(self) -> _Recipe:
        workspace, machine = self.workspace, self.machine
        fragments = workspace.selftest_fragments(machine)
        return _Recipe(arches.get(machine.arch), fragments, addition(workspace.root))

    def run_key(self, image: Image) -> str:
        """See `Lane`."""
        return selftest.run_key(image, self.machine, self.suites)

    def _run(self, image: Image, step: Step, *, again: bool) -> Run:
        subject = self._subject(step)
        return run_selftests(
            image, self.machine, self.suites, subject, store=self.store, again=again
        )


@dataclass(frozen=True)
class FirmwareLane(_Common):
    """The firmware scenarios, each on its machines, all of them on one kernel.

    :ivar cases: those to run.
    """

    cases: tuple[Case, ...]

    @classmethod
    def open(cls, workspace: Workspace) -> FirmwareLane:
        """Read what the lane needs.

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
    def name(self) -> str:
        """See `Lane`."""
        return "firmware"

    @property
    def title(self) -> str:
        """See `Lane`."""
        return "firmware scenarios under QEMU"

    @cached_property
    def _recipe(self) -> _Recipe:
        machine = self.cases[0].machine
        return _Recipe(arches.get(machine.arch), self.workspace.firmware_fragments(machine))

    def narrowed(self, tests: Collection[str]) -> FirmwareLane | None:
        """See `Lane`."""
        wanted = {test.rpartition(".")[0] for test in tests}
        found = tuple(case for case in self.cases if case.name in wanted)
        return replace(self, cases=found, quiet=True) if 0 < len(found) < len(self.cases) else None

    def hurried(self, limit: float) -> FirmwareLane:
        """Return the lane with guests that are given up if they need longer to their first suite.

        :param limit: seconds.
        """

        def hurry(machine: Machine) -> Machine:
            return replace(machine, boot_limit=min(limit, machine.boot_limit))

        cases = tuple(replace(case, machine=hurry(case.machine)) for case in self.cases)
        return replace(self, cases=cases)

    def runs_file(self, test: str, path: str) -> bool:
        """See `Lane`: another IOMMU's driver is there, and finds nothing to drive."""
        drivers = {case.machine.name: case.machine.driver for case in self.cases}
        whose = {name for name, driver in drivers.items() if driver and path.startswith(driver)}
        return not whose or test.partition(".")[0] in whose

    def run_key(self, image: Image) -> str:
        """See `Lane`."""
        kernel = from_image(image, "", self.workspace.base.kernel)
        keys = [run_key(kernel, case) for case in self.cases]
        return hashlib.sha256("\n".join(keys).encode()).hexdigest()

    def _run(self, image: Image, step: Step, *, again: bool) -> Run:
        base = self.workspace.base
        kernel = from_image(image, f"{base.spec.name} {step.label}", base.kernel)
        subject = self._subject(step)
        store = self.store or Store()
        key = self.run_key(image)
        runs = run_scenarios(kernel, self.cases, subject, store=store, again=again)
        results = tuple(result for run in runs for result in run.results)
        # A proof has one run a cell, with a history of its own. The scenarios have theirs.
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


# What `iommuq prove --suite` takes, each with what it runs on there.
_LANES: dict[str, Callable[[Workspace], Lane]] = {
    "kunit": lambda workspace: KunitLane.open(workspace, arches.get("um")),
    "selftest": lambda workspace: SelftestLane.open(workspace, "um"),
    "firmware": FirmwareLane.open,
}


def names() -> tuple[str, ...]:
    """Return the names of all lanes."""
    return tuple(_LANES)


def open_lanes(workspace: Workspace, wanted: Sequence[str] = ()) -> list[Lane]:
    """Return the lanes of these names, or all if there are none.

    :raises UserError: there is no lane of one of the names.
    """
    for name in wanted:
        if name not in _LANES:
            raise UserError(f"no suite {name!r} to prove with; there are {', '.join(_LANES)}")
    return [make(workspace) for name, make in _LANES.items() if not wanted or name in wanted]
