# SPDX-License-Identifier: GPL-2.0-only
"""A lane without kernels: what each test does at each step is written down."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import cast

from iommuq.build.image import Image
from iommuq.queue.model import Patch, Queue
from iommuq.queue.steps import Step
from iommuq.results.known import Failure, Verdict
from iommuq.results.store import Result, Status, Store, SuiteRun
from iommuq.system.errors import VerdictError

_STATUS = {"p": Status.PASS, "f": Status.FAIL, "s": Status.SKIP, "e": Status.ERROR}
_VERDICT = {
    Status.PASS: Verdict.OK,
    Status.FAIL: Verdict.FAILED,
    Status.SKIP: Verdict.SKIPPED,
    Status.ERROR: Verdict.ERROR,
}


def patch(name: str) -> Patch:
    """Make a patch of a queue; what is in it does not matter."""
    label = name.partition("-")[0]
    return Patch("", "", name, "", b"", 0, (), "0", Path(name), f"s/{name}.patch", "s", label)


def queue(folder: Path, *names: str) -> Queue:
    """Make a queue of some patches."""
    return Queue("toy", folder, tuple(map(patch, names)))


def steps(of: Queue) -> list[Step]:
    """Return the steps of a queue."""
    return [Step("baseline", None, "c", "t"), *(Step(p.label, p, "c", "t") for p in of.sent)]


@dataclass
class ToyLane:
    """A lane whose runs are written down.

    :ivar says: by label and test, one letter a run: p, f, s or e; the last one is
        for all runs after it. A label that is missing does not build.
    :ivar known: tests that are listed as known failures, for steps at which they fail.
    :ivar guests: the tests of each guest, if there are several.
    """

    says: Mapping[str, Mapping[str, str]]
    store: Store
    name: str = "kunit"
    title: str = "a toy"
    runs: list[str] = field(default_factory=list)
    warnings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    known: frozenset[str] = frozenset()
    guests: Mapping[str, Collection[str]] = field(default_factory=dict)
    prefix: str = ""
    lacks: tuple[str, ...] = ()
    _ids: Iterator[int] = field(default_factory=count)

    def image(self, step: Step) -> Image:
        """See `iommuq.proof.lanes.Lane`."""
        if step.label not in self.says:
            raise VerdictError(f"{step.label} does not build")
        warnings = frozenset(self.warnings.get(step.label, ()))
        return Image(step.label, Path(), cast(object, None), warnings, Path(), built=False)  # type: ignore[arg-type]

    def run(self, image: Image, step: Step, *, again: bool = False) -> SuiteRun:  # noqa: ARG002
        """See `iommuq.proof.lanes.Lane`."""
        key = f"{self.prefix or self.name}-{step.label}"
        found = None if again else self.store.find(key)
        if found is not None:
            return found
        whole = self.store.find(f"{self.name}-{step.label}") if self.prefix else None
        if whole is not None and not again:
            # What its guests said is in the store already.
            results = [result for result in whole.results if result.test in self.says[step.label]]
        else:
            results = self._results(step.label)
        number = next(self._ids)
        current = SuiteRun(
            f"{self.name}-{number}", "toy", step.label, self.name, key, "6", "um", "native", number
        )
        return self.store.finish(current, results, finished=float(number))

    def _results(self, label: str) -> list[Result]:
        times = self.runs.count(label)
        self.runs.append(label)
        return [
            Result(
                "toy",
                label,
                self.name,
                test,
                _STATUS[letters[min(times, len(letters) - 1)]],
                log=f"/log/{times}",
            )
            for test, letters in self.says[label].items()
        ]

    def judge(self, run: SuiteRun) -> dict[str, Verdict]:
        """See `iommuq.proof.lanes.Lane`."""
        verdicts = {result.test: _VERDICT[result.status] for result in run.results}
        known = self.known & {test for test, said in verdicts.items() if said is Verdict.FAILED}
        return verdicts | dict.fromkeys(known, Verdict.KNOWN)

    def excuses(self, run: SuiteRun) -> dict[str, Failure]:  # noqa: ARG002
        """See `iommuq.proof.lanes.Lane`."""
        return {}

    def image_key(self, step: Step) -> str:
        """See `iommuq.proof.lanes.Lane`."""
        return step.label

    def run_key(self, image: Image) -> str:
        """See `iommuq.proof.lanes.Lane`."""
        return f"{self.prefix or self.name}-{image.key}"

    def keeping(self, store: Store) -> ToyLane:
        """See `iommuq.proof.lanes.Lane`."""
        return replace(self, store=store)

    def runs_file(self, test: str, path: str) -> bool:  # noqa: ARG002
        """See `iommuq.proof.lanes.Lane`."""
        return True

    def narrowed(self, tests: Collection[str]) -> ToyLane | None:
        """See `iommuq.proof.lanes.Lane`: some guests have the same name, and another key."""
        wanted = {name: own for name, own in self.guests.items() if {*own} & {*tests}}
        if not wanted or len(wanted) == len(self.guests):
            return None
        own = {test for of in wanted.values() for test in of}
        says = {
            label: {test: letters for test, letters in of.items() if test in own}
            for label, of in self.says.items()
        }
        key = f"{self.prefix or self.name}-{'-'.join(wanted)}"
        return replace(self, says=says, guests=wanted, prefix=key)
