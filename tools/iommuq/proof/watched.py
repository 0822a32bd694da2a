# SPDX-License-Identifier: GPL-2.0-only
"""Lanes that tell what is done in them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Self

from iommuq.build.image import Image
from iommuq.proof.lanes import Lane
from iommuq.queue.steps import Step
from iommuq.results.events import busy, done, failed
from iommuq.results.known import Failure, Verdict
from iommuq.results.store import Run, Store
from iommuq.system.errors import VerdictError


@dataclass(frozen=True)
class _Watched:
    """A lane that tells what is done in it."""

    lane: Lane

    @property
    def name(self) -> str:
        return self.lane.name

    @property
    def title(self) -> str:
        return self.lane.title

    def image(self, step: Step) -> Image:
        busy(step.label, self.name, "building")
        try:
            return self.lane.image(step)
        except VerdictError as error:
            failed(step.label, self.name, str(error), "does not build")
            raise

    def run(self, image: Image, step: Step, *, again: bool = False) -> Run:
        busy(step.label, self.name, "running")
        run = self.lane.run(image, step, again=again)
        done(step.label, self.name, run, self.lane.judge)
        return run

    def judge(self, run: Run) -> dict[str, Verdict]:
        return self.lane.judge(run)

    def excuses(self, run: Run) -> dict[str, Failure]:
        return self.lane.excuses(run)

    def image_key(self, step: Step) -> str:
        return self.lane.image_key(step)

    def run_key(self, image: Image) -> str:
        return self.lane.run_key(image)

    def keeping(self, store: Store) -> Self:
        return replace(self, lane=self.lane.keeping(store))

    def narrowed(self, tests: Collection[str]) -> Lane | None:
        return self.lane.narrowed(tests)

    def runs_file(self, test: str, path: str) -> bool:
        return self.lane.runs_file(test, path)


def watched(lanes: Sequence[Lane]) -> list[Lane]:
    """Return the lanes, telling what is done in them."""
    return [_Watched(lane) for lane in lanes]
