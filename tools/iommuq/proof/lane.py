# SPDX-License-Identifier: GPL-2.0-only
"""A lane of a proof: a suite, its guest, and how its results are judged.

A lane builds the image of a step and runs its suite on it, or takes both from the cache.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol, Self

from iommuq.build.image import Addition, Image, ImageDamaged, build_image, image_key
from iommuq.build.kconfig import Fragments
from iommuq.build.workspace import Workspace
from iommuq.queue.steps import Step
from iommuq.results import events
from iommuq.results.known import Failure, KnownFailures, Verdict, excused, judge_run
from iommuq.results.store import Store, SuiteRun
from iommuq.suites.kunit import Subject
from iommuq.system import progress
from iommuq.system.arches import Arch
from iommuq.system.errors import VerdictError


class Lane(Protocol):
    """One suite on one kind of guest."""

    @property
    def name(self) -> str:
        """The name of the suite, ``kunit``; tests are named ``<lane>.<test>``."""

    @property
    def title(self) -> str:
        """The suite and its guest, in words."""

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

    def _subject(self, step: Step) -> Subject:
        return Subject(self.workspace.base.spec.name, step.label, self.workspace.base.kernel)

    def judge(self, run: SuiteRun) -> dict[str, Verdict]:
        return judge_run(run, self.known, self._arch)

    def excuses(self, run: SuiteRun) -> dict[str, Failure]:
        return excused(run, self.known, self._arch)
