# SPDX-License-Identifier: GPL-2.0-only
"""Try mutants: build each, run the KUnit suites on it, and say what became of it.

A mutant is the tree with all patches and one file of it changed, built incrementally
where every other step is.  Its image is removed after its run, and what was found out
is kept: a second run builds and boots nothing.
"""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from iommuq import locks, progress
from iommuq.arches import Arch
from iommuq.build import Image, build_image, image_key
from iommuq.dirs import cache_dir
from iommuq.errors import VerdictError
from iommuq.fragments import Fragments
from iommuq.mutants.faults import Mutant
from iommuq.mutants.plan import Plan
from iommuq.objects import Store as Objects
from iommuq.results import Run, Status, Store
from iommuq.suites.kunit import SPLAT_CASE, Subject, run_kunit
from iommuq.tree import Step
from iommuq.workspace import Workspace

#: Seconds that a mutant's guest may take: the suites need a tenth of one under UML, and
#: a loop that never ends costs all of it, twice.
LIMIT = 30.0
#: Part of every key; to be raised when the same mutant would be judged otherwise.
_GENERATION = "1"
#: Tests that are named of all those that noticed.
_NAMES = 3
#: Appended to a file to find out whether it is compiled at all.
_PROBE = b"\n#error not a mutant, but a question\n"


class Fate(StrEnum):
    """What became of a mutant."""

    #: A test failed that passes without it, or the guest was lost.
    KILLED = "killed"
    SURVIVED = "survived"
    #: The kernel is the same, to the byte: the code means the same.
    SAME = "same kernel"
    #: The compiler noticed.
    BROKEN = "does not compile"
    #: The kernel that was asked for does not have the file in it.
    ABSENT = "not in this kernel"


@dataclass(frozen=True)
class Trial:
    """One mutant, and what became of it.

    :ivar why: the tests that killed it, or what the compiler said.
    """

    mutant: Mutant
    fate: Fate
    why: str = ""


@dataclass(frozen=True)
class Bench:
    """Where the mutants of a plan are tried.

    :ivar objects: the objects of the base.
    :ivar limit: seconds for one boot.
    """

    workspace: Workspace
    plan: Plan
    objects: Objects
    arch: Arch
    fragments: Fragments
    limit: float = LIMIT

    def run(
        self,
        mutants: Sequence[Mutant],
        count: int | None = None,
        on_trial: Callable[[Trial], None] | None = None,
    ) -> tuple[Trial, ...]:
        """Try mutants one after the other.

        :param count: try no more than so many, of those whose file is in the kernel.
        :param on_trial: called with each.
        :raises VerdictError: the tree does not build without a mutant, or no test passes.
        """
        name = self.workspace.base.spec.name
        home = cache_dir() / "mutants" / name
        home.mkdir(parents=True, exist_ok=True)
        with locks.hold(home / "lock", f"another run of mutants of {name}"):
            image = self.workspace.image(self.plan.step, self.arch, self.fragments)
            ran = run_kunit(image, self._subject(self.plan.step), limit=self.limit)
            judge = _Judge(self, home, image, _passing(ran))
            judge.sweep()
            trials = []
            with (
                progress.step("Trying mutants") as step,
                tempfile.TemporaryDirectory(prefix="iommuq-mutants-") as folder,
            ):
                step.update(total=len(mutants) if count is None else min(count, len(mutants)))
                tried = 0
                for mutant in mutants:
                    if not judge.is_built(mutant.path):
                        trial = Trial(mutant, Fate.ABSENT)
                    elif count is not None and tried >= count:
                        continue
                    else:
                        tried += 1
                        trial = judge.judge(mutant, Store(Path(folder, "results.sqlite")))
                        step.update(done=tried, note=f"{mutant.function} {trial.fate}")
                    trials.append(trial)
                    if on_trial is not None:
                        on_trial(trial)
        return tuple(trials)

    def _subject(self, step: Step) -> Subject:
        base = self.workspace.base
        return Subject(base.spec.name, step.label, base.kernel)


def _passing(run: Run) -> frozenset[str]:
    passing = frozenset(result.test for result in run.results if result.status is Status.PASS)
    if not passing - {SPLAT_CASE}:
        raise VerdictError(
            f"no test passes on {run.patch} as it is, so none can notice a mutant",
            hint="`iommuq kunit` shows why",
        )
    return passing


@dataclass
class _Judge:
    """Judges mutants against the kernel without one.

    :ivar home: where what was found out is kept.
    :ivar image: the kernel without a mutant.
    :ivar passing: the tests that pass on it.
    """

    bench: Bench
    home: Path
    image: Image
    passing: frozenset[str]

    def __post_init__(self) -> None:
        bench = self.bench
        words = [_GENERATION, image_key(bench.plan.step, bench.arch, bench.fragments)]
        self._key = _hash(*words, *sorted(self.passing))
        self._built: dict[str, bool] = {}
        self._count = 0

    @property
    def _pending(self) -> Path:
        """The file that names the image that is to be removed."""
        return self.home / "pending"

    def sweep(self) -> None:
        """Remove the image that a run left which was killed."""
        with contextlib.suppress(OSError):
            key = self._pending.read_text(encoding="ascii").strip()
            if len(key) == 64 and key.isalnum() and key != self.image.key:
                shutil.rmtree(cache_dir() / "images" / key, ignore_errors=True)
            self._pending.unlink()

    def is_built(self, path: str) -> bool:
        """Tell whether the kernel has a file in it, by trying to build it with an #error."""
        if path not in self._built:
            text = self.bench.plan.texts[path] + _PROBE
            known = self._recall(path, text)
            if known is None:
                try:
                    with self._build(path, text):
                        known = Fate.ABSENT, ""
                except VerdictError:
                    known = Fate.BROKEN, ""
                self._remember(path, text, *known)
            self._built[path] = known[0] is not Fate.ABSENT
        return self._built[path]

    def judge(self, mutant: Mutant, results: Store) -> Trial:
        """Build a mutant, run the suites on it and say what became of it.

        :param results: for the results, which are of no use to anybody later.
        """
        text = mutant.apply(self.bench.plan.texts[mutant.path])
        known = self._recall(mutant.path, text)
        if known is None:
            try:
                with self._build(mutant.path, text) as image:
                    known = self._run(image, results)
            except VerdictError as error:
                # Not the name of the step, which is another one each time.
                known = Fate.BROKEN, error.what.partition(f" {self.bench.arch.name}: ")[2]
            self._remember(mutant.path, text, *known)
        return Trial(mutant, *known)

    def _run(self, image: Image, results: Store) -> tuple[Fate, str]:
        file = image.arch.image
        if filecmp.cmp(self.image.folder / file, image.folder / file, shallow=False):
            return Fate.SAME, ""
        subject = self.bench._subject(self.bench.plan.step)
        # A lost guest may be the machine's fault; twice in a row it is the mutant's.
        for again in (False, True):
            ran = run_kunit(image, subject, limit=self.bench.limit, store=results, again=again)
            status = {result.test: result.status for result in ran.results}
            failed = [test for test in status if self._fails(test, status)]
            if failed:
                more = f" and {len(failed) - _NAMES} more" if len(failed) > _NAMES else ""
                return Fate.KILLED, ", ".join(failed[:_NAMES]) + more
            lost = [test for test in sorted(self.passing) if self._is_lost(test, status)]
            if not lost:
                return Fate.SURVIVED, ""
        return Fate.KILLED, f"guest lost, {len(lost)} tests without a verdict"

    def _fails(self, test: str, status: Mapping[str, Status]) -> bool:
        return test in self.passing and status[test] is Status.FAIL

    def _is_lost(self, test: str, status: Mapping[str, Status]) -> bool:
        return status.get(test, Status.ERROR) is Status.ERROR

    @contextlib.contextmanager
    def _build(self, path: str, text: bytes) -> Iterator[Image]:
        """Build the tree with another text for one of its files, for as long as the block runs.

        :raises VerdictError: it does not compile.
        """
        bench, plan = self.bench, self.bench.plan
        self._count += 1
        mode = bench.objects.entries(plan.step.tree, [path])[path].split()[0]
        (blob,) = bench.objects.write_blobs([text])
        tree = bench.objects.replace(plan.step.tree, {path: f"{mode} blob {blob}"})
        step = Step(f"mutant-{self._count}", None, plan.step.commit, tree)
        self._pending.write_text(image_key(step, bench.arch, bench.fragments), encoding="ascii")
        image = build_image(bench.workspace.base, step, bench.arch, bench.fragments)
        try:
            yield image
        finally:
            if image.built:
                shutil.rmtree(image.folder, ignore_errors=True)
            self._pending.unlink(missing_ok=True)

    def _file(self, path: str, text: bytes) -> Path:
        return self.home / f"{_hash(self._key, path, hashlib.sha256(text).hexdigest())}.json"

    def _recall(self, path: str, text: bytes) -> tuple[Fate, str] | None:
        """Return what was found out before about a file with this text."""
        try:
            data = json.loads(self._file(path, text).read_text(encoding="utf-8"))
            return Fate(data["fate"]), str(data["why"])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _remember(self, path: str, text: bytes, fate: Fate, why: str) -> None:
        file = self._file(path, text)
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps({"fate": fate.value, "why": why}), encoding="utf-8")
        temporary.replace(file)


def _hash(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()
