# SPDX-License-Identifier: GPL-2.0-only
"""The lanes of a proof: each is a suite and its guest, and judges its results.

A lane builds the image of a step and runs its suite on it, or takes both from the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Protocol, Self

from iommuq.build.image import Addition, Image, ImageDamaged, build_image, image_key
from iommuq.build.kconfig import Fragments
from iommuq.build.workspace import Workspace
from iommuq.defaults import GUESTS, KUNIT_LIMIT
from iommuq.firmware import scenario
from iommuq.guests.machine import Machine, load_machine
from iommuq.queue.steps import Step
from iommuq.results import events
from iommuq.results.known import NAME as KNOWN_NAME
from iommuq.results.known import Failure, KnownFailures, Verdict, excused, judge_run, load_known
from iommuq.results.store import Store, SuiteRun, new_id
from iommuq.suites import kunit, kunit_tree, selftest
from iommuq.suites.firmware.cases import Case, cases, run_key
from iommuq.suites.kunit import Subject, run_kunit
from iommuq.suites.kunit_tree import Tree, load_tree, run_nothing
from iommuq.suites.selftest import Suite, addition, choose, load_suites, run_selftests
from iommuq.suites.vfio import programs
from iommuq.suites.vfio.suite import VfioSuite, load_suite
from iommuq.suites.vfio.suite import choose as choose_machines
from iommuq.system import arches, progress
from iommuq.system.arches import Arch
from iommuq.system.errors import UserError, VerdictError
from iommuq.system.files import hash_of


class Lane(Protocol):
    """One suite on one kind of guest."""

    @property
    def name(self) -> str:
        """The name of the suite, ``kunit``; tests are named ``<lane>.<test>``."""

    @property
    def title(self) -> str:
        """The suite and its guest, in words."""

    @property
    def lacks(self) -> tuple[str, ...]:
        """How the names of tests begin that its kernels cannot have."""

    def image(self, step: Step) -> Image:
        """Return the image of a step, as `build.build_image` does."""

    def run(self, image: Image, step: Step, *, again: bool = False) -> SuiteRun:
        """Run the suite on an image; take results from the store unless *again*."""

    def judge(self, run: SuiteRun) -> dict[str, Verdict]:
        """Return the verdicts of a run by test, which consider known failures."""

    def excuses(self, run: SuiteRun) -> dict[str, Failure]:
        """Return the known failures that apply to a run, by test."""

    def image_key(self, step: Step) -> str:
        """Return the content key of the image of a step."""

    def run_key(self, image: Image) -> str:
        """Return the content key of all inputs of a run on an image."""

    def keeping(self, store: Store) -> Self:
        """Return the lane with another store for its results."""

    def narrowed(self, tests: Collection[str]) -> Lane | None:
        """Return the lane with only the guests of some tests; None if that is all or none."""

    def runs_file(self, test: str, path: str) -> bool:
        """Return whether the guest of a test runs code of a file that is in the kernel."""


@dataclass(frozen=True)
class Recipe:
    """The architecture, configuration and additions of an image."""

    arch: Arch
    fragments: Fragments
    addition: Addition | None = None


@dataclass(frozen=True)
class Common:
    """What all lanes share: builds, progress, and judgement by the known failures.

    :ivar quiet: report no progress: it is part of another lane.
    """

    name: ClassVar[str]
    workspace: Workspace
    known: KnownFailures = field(kw_only=True)
    store: Store | None = field(default=None, kw_only=True)
    quiet: bool = field(default=False, kw_only=True)

    @property
    def recipe(self) -> Recipe:
        """How its images are made."""
        raise NotImplementedError

    @property
    def _arch(self) -> str:
        raise NotImplementedError

    def image(self, step: Step) -> Image:
        recipe = self.recipe
        events.busy(step.label, self.name, "building")
        try:
            return build_image(self.workspace, step, recipe.arch, recipe.fragments, recipe.addition)
        except VerdictError as error:
            events.failed(step.label, self.name, str(error), "does not build")
            raise

    def run(self, image: Image, step: Step, *, again: bool = False) -> SuiteRun:
        if not self.quiet:
            events.busy(step.label, self.name, "running")
        try:
            run = self._run(image, step, again=again)
        except ImageDamaged as error:
            if image.key != self.image_key(step):  # That of a mutant.
                raise
            progress.note(f"{error.what}: building it again")
            run = self._run(self.image(step), step, again=again)
        if not self.quiet:
            events.done(step.label, self.name, run, self.judge)
        return run

    def _run(self, image: Image, step: Step, *, again: bool) -> SuiteRun:
        raise NotImplementedError

    def image_key(self, step: Step) -> str:
        recipe = self.recipe
        return image_key(step, recipe.arch, recipe.fragments, recipe.addition)

    def keeping(self, store: Store) -> Self:
        return replace(self, store=store)

    def narrowed(self, tests: Collection[str]) -> Lane | None:  # noqa: ARG002
        """See `Lane`: all tests run in one guest."""
        return None

    def runs_file(self, test: str, path: str) -> bool:  # noqa: ARG002
        return True

    @property
    def lacks(self) -> tuple[str, ...]:
        return ()

    def _subject(self, step: Step) -> Subject:
        return Subject(self.workspace.base.spec.name, step.label, self.workspace.base.kernel)

    def judge(self, run: SuiteRun) -> dict[str, Verdict]:
        return judge_run(run, self.known, self._arch)

    def excuses(self, run: SuiteRun) -> dict[str, Failure]:
        return excused(run, self.known, self._arch)


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
    ) -> Self:
        """Read the known failures of a queue and make the lane.

        :raises UserError: the list of known failures is malformed.
        """
        known = load_known(workspace.queue)
        return cls(workspace, arch, tuple(configs), tuple(filters), limit, known=known)

    @property
    def _arch(self) -> str:
        return self.arch.name

    @property
    def lacks(self) -> tuple[str, ...]:
        # The simulated IOMMU is for User-mode Linux.
        return () if self.arch.name == "um" else ("iommu_explored.",)

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
        return kunit.run_key(image, self._globs(image), self.name)

    @cached_property
    def _tree(self) -> Tree:
        return load_tree(self.workspace.root)

    def _globs(self, image: Image) -> tuple[str, ...]:
        """Return the filters for a kernel, which may also have suites of the tree."""
        return self.filters or ((self._tree.own,) if self._tree.built(image) else ())

    def _run(self, image: Image, step: Step, *, again: bool) -> SuiteRun:
        return run_kunit(
            image,
            self._subject(step),
            filters=self._globs(image),
            limit=self.limit,
            store=self.store,
            again=again,
            environment=self.environment,
            suite=self.name,
        )


@dataclass(frozen=True)
class KunitTreeLane(KunitLane):
    """The tree's own KUnit suites of drivers/iommu, which are in the same kernel.

    :ivar slow: also those that take minutes.
    """

    name: ClassVar[str] = kunit_tree.SUITE
    slow: bool = False

    @property
    def title(self) -> str:
        return f"the tree's {super().title}"

    def _globs(self, image: Image) -> tuple[str, ...]:
        return self.filters or self._tree.filters(image, slow=self.slow)

    def _run(self, image: Image, step: Step, *, again: bool) -> SuiteRun:
        if not self._globs(image):
            return run_nothing(image, self._subject(step), self.store or Store())
        return super()._run(image, step, again=again)


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


class OnMachines(Common):
    """What lanes share whose kernel is that of the firmware scenarios."""

    @property
    def _machine(self) -> Machine:
        """One of their machines: the kernel is the same for all."""
        raise NotImplementedError

    @property
    def _arch(self) -> str:
        return self._machine.arch

    @cached_property
    def recipe(self) -> Recipe:
        fragments = self.workspace.firmware_fragments(self._machine)
        return Recipe(arches.get(self._arch), fragments)


@dataclass(frozen=True)
class FirmwareLane(OnMachines):
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
    def _machine(self) -> Machine:
        return self.cases[0].machine

    @property
    def title(self) -> str:
        return "firmware scenarios under QEMU"

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
        return hash_of(*keys)

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


@dataclass(frozen=True)
class VfioLane(OnMachines):
    """The tree's selftests/vfio, on the kernel of the firmware scenarios.

    :ivar machines: names of the machines; each has a guest.
    """

    name: ClassVar[str] = "vfio"
    suite: VfioSuite
    machines: tuple[str, ...]

    @classmethod
    def open(
        cls, workspace: Workspace, machines: Sequence[str] = (), *, all_fail: bool = False
    ) -> VfioLane:
        """Read the files of a queue and make the lane.

        :param machines: empty for all of the suite.
        :param all_fail: ignore the list of known failures.
        :raises UserError: one of the files is malformed, or the suite has no such machine.
        """
        known = KnownFailures() if all_fail else load_known(workspace.queue)
        suite = load_suite(workspace.root)
        return cls(workspace, suite, choose_machines(suite, tuple(machines)), known=known)

    @cached_property
    def _machine(self) -> Machine:
        return load_machine(self.machines[0])

    @property
    def title(self) -> str:
        return "selftests/vfio under QEMU"

    def image(self, step: Step) -> Image:
        # The image is that of the firmware scenarios; the programs are kept by themselves.
        image = super().image(step)
        programs.build(self.workspace, step)
        return image

    def has_programs(self, step: Step) -> bool:
        """Return whether the tree of a step has the programs."""
        return bool(programs.key(self.workspace, step))

    def narrowed(self, tests: Collection[str]) -> VfioLane | None:
        wanted = {test.partition(".")[0] for test in tests}
        found = tuple(name for name in self.machines if name in wanted)
        narrower = 0 < len(found) < len(self.machines)
        return replace(self, machines=found, quiet=True) if narrower else None

    def runs_file(self, test: str, path: str) -> bool:
        """See `Lane`: the driver of another IOMMU has no device."""
        drivers = {name: load_machine(name).driver for name in self.machines}
        whose = {name for name, driver in drivers.items() if driver and path.startswith(driver)}
        return not whose or test.partition(".")[0] in whose

    def run_key(self, image: Image) -> str:
        from iommuq.suites.firmware.subjects import from_image
        from iommuq.suites.vfio.run import run_key

        kernel = from_image(image, "", self.workspace.base.kernel)
        return run_key(kernel, self._programs, self.suite, self.machines)

    @cached_property
    def _programs(self) -> str:
        return programs.key(self.workspace, self.workspace.step(None))

    def _run(self, image: Image, step: Step, *, again: bool) -> SuiteRun:
        from iommuq.suites.firmware.subjects import from_image
        from iommuq.suites.vfio.run import Built, run_vfio

        base = self.workspace.base
        kernel = from_image(image, f"{base.spec.name} {step.label}", base.kernel)
        key = programs.key(self.workspace, step)
        tested = Built(kernel, programs.build(self.workspace, step), key)
        subject = self._subject(step)
        return run_vfio(tested, self.suite, self.machines, subject, store=self.store, again=again)


# The suites of `iommuq prove --suite`.  A new one needs a class here, a line in this table,
# and its name in `iommuq.defaults.SUITES`.
_LANES: dict[str, Callable[[Workspace], Lane]] = {
    "kunit": lambda workspace: KunitLane.open(workspace, arches.get("um")),
    "kunit-tree": lambda workspace: KunitTreeLane.open(workspace, arches.get("um")),
    "selftest": lambda workspace: SelftestLane.open(workspace, "um"),
    "firmware": FirmwareLane.open,
    "vfio": VfioLane.open,
}


def open_lanes(workspace: Workspace, wanted: Sequence[str] = ()) -> list[Lane]:
    """Return the lanes of some names; all if empty.

    :raises UserError: there is no lane of one of the names.
    """
    for name in wanted:
        if name not in _LANES:
            raise UserError(f"no suite {name!r}; there are {', '.join(_LANES)}")
    return [make(workspace) for name, make in _LANES.items() if not wanted or name in wanted]
