# SPDX-License-Identifier: GPL-2.0-only
"""Try mutants: build each, run the suites on it, and say what became of it.

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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from iommuq.build.image import Image
from iommuq.build.workspace import Workspace
from iommuq.proof.lanes import Lane
from iommuq.proof.mutants.faults import Mutant
from iommuq.proof.mutants.plan import Plan
from iommuq.queue.steps import Step
from iommuq.results.store import Run, Status, Store
from iommuq.suites.kunit import SPLAT_CASE
from iommuq.system import files, progress
from iommuq.system.errors import VerdictError
from iommuq.system.files import cache_dir
from iommuq.system.git.objects import Store as Objects

#: Part of every key; to be raised when the same mutant would be judged otherwise.
_GENERATION = "4"
#: What the compiler says of a mutant that has nothing left behind an `if`.
_EMPTY = "[-Wempty-body]"
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
    #: The compiler noticed, and so would `iommuq prove`.
    WARNED = "adds a warning"
    #: The kernel that was asked for does not have the file in it.
    ABSENT = "not in this kernel"


#: Somebody noticed.
NOTICED = frozenset({Fate.KILLED, Fate.BROKEN, Fate.WARNED})


@dataclass(frozen=True)
class Verdict:
    """What a suite says of a mutant.

    :ivar why: the tests that killed it, cut short, or what the compiler said.
    :ivar tests: all that killed it, by the names that they have in their suite.
    """

    fate: Fate
    why: str = ""
    tests: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """One mutant, and what became of it.

    :ivar why: the tests that killed it, cut short, or what the compiler said.
    :ivar tests: all that killed it, as the table of `iommuq prove` names them; none where
        the guest was lost.
    :ivar lane: the suite that noticed it, if one did.
    """

    mutant: Mutant
    fate: Fate
    why: str = ""
    tests: tuple[str, ...] = ()
    lane: str = ""


@dataclass(frozen=True)
class Bench:
    """Where the mutants of a plan are tried.

    :ivar objects: the objects of the base.
    :ivar lanes: the suites, in the order in which they are asked; the first that notices
        a mutant is the last.
    :ivar promises: by label of a patch the tests that prove it, as the table of `iommuq prove`
        names them. They are asked first of what is taken out of that patch.
    """

    workspace: Workspace
    plan: Plan
    objects: Objects
    lanes: Sequence[Lane]
    promises: Mapping[str, Collection[str]] = field(default_factory=dict)

    def run(
        self,
        mutants: Sequence[Mutant],
        count: int | None = None,
        on_trial: Callable[[Trial], None] | None = None,
    ) -> tuple[Trial, ...]:
        """Try mutants one after the other.

        :param count: try no more than so many, of those whose file is in a kernel.
        :param on_trial: called with each.
        :raises VerdictError: the tree does not build without a mutant, or no test passes.
        """
        name = self.workspace.base.spec.name
        home = cache_dir() / "mutants" / name
        home.mkdir(parents=True, exist_ok=True)
        with (
            files.hold(home / "lock", f"another run of mutants of {name}"),
            tempfile.TemporaryDirectory(prefix="iommuq-mutants-") as folder,
        ):
            # For results that are of no use to anybody later.
            results = Store(Path(folder, "results.sqlite"))
            judges = [_Judge(self, lane, home, results) for lane in self.lanes]
            _sweep(home, {lane.image_key(self.plan.step) for lane in self.lanes})
            trials = []
            with progress.step("Trying mutants") as step:
                step.update(total=len(mutants) if count is None else min(count, len(mutants)))
                tried = 0
                for mutant in mutants:
                    if not any(judge.is_built(mutant.path) for judge in judges):
                        trial = Trial(mutant, Fate.ABSENT)
                    elif count is not None and tried >= count:
                        continue
                    else:
                        tried += 1
                        trial = _try(mutant, judges)
                        step.update(done=tried, note=f"{mutant.function} {trial.fate}")
                    trials.append(trial)
                    if on_trial is not None:
                        on_trial(trial)
        return tuple(trials)


def _try(mutant: Mutant, judges: Sequence[_Judge]) -> Trial:
    """Ask one suite after the other, until one notices."""
    fate = Fate.SAME
    for judge in judges:
        if not judge.is_built(mutant.path):
            continue
        verdict = judge.judge(mutant)
        if verdict.fate in NOTICED:
            tests = tuple(f"{judge.lane.name}.{test}" for test in verdict.tests)
            return Trial(mutant, verdict.fate, verdict.why, tests, judge.lane.name)
        if verdict.fate is Fate.SURVIVED:
            fate = Fate.SURVIVED
    return Trial(mutant, fate)


def _sweep(home: Path, keep: set[str]) -> None:
    """Remove the image that a run left which was killed.

    :param home: where what was found out is kept.
    :param keep: keys of images that stay.
    """
    pending = _pending(home)
    with contextlib.suppress(OSError):
        key = pending.read_text(encoding="ascii").strip()
        if len(key) == 64 and key.isalnum() and key not in keep:
            shutil.rmtree(cache_dir() / "images" / key, ignore_errors=True)
        pending.unlink()


def _pending(home: Path) -> Path:
    """Return the file that names the image that is to be removed."""
    return home / "pending"


def _passing(run: Run) -> frozenset[str]:
    passing = frozenset(result.test for result in run.results if result.status is Status.PASS)
    if not passing - {SPLAT_CASE}:
        raise VerdictError(
            f"no test passes on {run.patch} as it is, so none can notice a mutant",
            hint=f"`iommuq {run.suite}` shows why",
        )
    return passing


@dataclass
class _Judge:
    """Judges mutants by one suite, against the kernel without one.

    :ivar home: where what was found out is kept.
    :ivar results: for the results of mutants.
    """

    bench: Bench
    lane: Lane
    home: Path
    results: Store
    _built: dict[str, bool] = field(default_factory=dict)
    _killers: set[str] = field(default_factory=set)
    _count: int = 0

    @cached_property
    def image(self) -> Image:
        """The kernel without a mutant."""
        return self.lane.image(self.bench.plan.step)

    @cached_property
    def passing(self) -> frozenset[str]:
        """The tests that pass on it."""
        return _passing(self.lane.run(self.image, self.bench.plan.step))

    @cached_property
    def _key(self) -> str:
        words = [_GENERATION, self.lane.name, self.lane.run_key(self.image)]
        return _hash(*words, *sorted(self.passing))

    def is_built(self, path: str) -> bool:
        """Tell whether the kernel has a file in it, by trying to build it with an #error."""
        if path not in self._built:
            text = self.bench.plan.texts[path] + _PROBE
            known = self._recall(path, text)
            if known is None:
                try:
                    with self._build(path, text):
                        known = Verdict(Fate.ABSENT)
                except VerdictError:
                    known = Verdict(Fate.BROKEN)
                self._remember(path, text, known)
            self._built[path] = known.fate is not Fate.ABSENT
        return self._built[path]

    def judge(self, mutant: Mutant) -> Verdict:
        """Build a mutant, run the suite on it and say what became of it."""
        text = mutant.apply(self.bench.plan.texts[mutant.path])
        known = self._recall(mutant.path, text)
        if known is None:
            try:
                with self._build(mutant.path, text) as image:
                    known = self._warned(image) or self._run(
                        image, self._first(mutant), self._able(mutant.path)
                    )
            except VerdictError as error:
                # Not the name of the step, which is another one each time.
                why = error.what.partition(f" {self.image.arch.name}: ")[2]
                known = Verdict(Fate.BROKEN, why)
            self._remember(mutant.path, text, known)
        if known.fate is Fate.KILLED:
            self._killers.update(known.tests)
        return known

    def _first(self, mutant: Mutant) -> Lane | None:
        """Return what most likely notices a mutant, if that is less than all there is."""
        own = f"{self.lane.name}."
        promised = self.bench.promises.get(mutant.patch, ())
        return self.lane.narrowed([t.removeprefix(own) for t in promised if t.startswith(own)])

    def _able(self, path: str) -> frozenset[str]:
        """Return the tests that could notice a mutant in a file."""
        return frozenset(test for test in self.passing if self.lane.runs_file(test, path))

    def _warned(self, image: Image) -> Verdict | None:
        """Say whether a kernel adds a warning of the compiler; then nobody need boot it."""
        # A statement that is gone may leave an empty one, which is of our making.
        new = sorted(
            warning for warning in image.warnings - self.image.warnings if _EMPTY not in warning
        )
        return Verdict(Fate.WARNED, new[0]) if new else None

    def _run(self, image: Image, first: Lane | None, able: frozenset[str]) -> Verdict:
        """Say what becomes of a mutant.

        :param first: whom to ask before all others.
        :param able: the tests to ask.
        """
        file = image.arch.image
        if filecmp.cmp(self.image.folder / file, image.folder / file, shallow=False):
            return Verdict(Fate.SAME)
        told: set[str] = set()
        if first is not None:
            verdict = self._ask(first, image, frozenset(), told)
            if verdict.fate is Fate.KILLED:
                return verdict
        # What is near to a mutant that was killed is likely to be seen by the same test.
        likely = sorted(able.intersection(self._killers).difference(told))
        then = self.lane.narrowed(likely) if likely else None
        if then is not None:
            verdict = self._ask(then, image, frozenset(), told)
            if verdict.fate is Fate.KILLED:
                return verdict
        rest = able.difference(told)
        if not rest:
            return Verdict(Fate.SURVIVED)
        lane = self.lane if rest == self.passing else self.lane.narrowed(rest) or self.lane
        return self._ask(lane, image, rest, told)

    def _ask(self, lane: Lane, image: Image, able: frozenset[str], told: set[str]) -> Verdict:
        """Say what becomes of a mutant in some guests.

        :param able: the tests that are missed if they say nothing at all.
        :param told: gets the tests that said something.
        """
        # A lost guest may be the machine's fault; twice in a row it is the mutant's.
        for again in (False, True):
            status = self._status(lane, image, again=again)
            told.update(status)
            failed = self._failed(status)
            if failed:
                return _killed(failed)
            lost = [test for test in sorted(able.union(status)) if self._is_lost(test, status)]
            if not lost:
                return Verdict(Fate.SURVIVED)
            lane = lane.narrowed(lost) or lane
            able = able.intersection(lost)
        return Verdict(Fate.KILLED, f"guest lost, {len(lost)} tests without a verdict")

    def _status(self, lane: Lane, image: Image, *, again: bool = False) -> dict[str, Status]:
        ran = lane.keeping(self.results).run(image, self.bench.plan.step, again=again)
        return {result.test: result.status for result in ran.results}

    def _failed(self, status: Mapping[str, Status]) -> tuple[str, ...]:
        return tuple(test for test in status if self._fails(test, status))

    def _fails(self, test: str, status: Mapping[str, Status]) -> bool:
        return test in self.passing and status[test] is Status.FAIL

    def _is_lost(self, test: str, status: Mapping[str, Status]) -> bool:
        return test in self.passing and status.get(test, Status.ERROR) is Status.ERROR

    @contextlib.contextmanager
    def _build(self, path: str, text: bytes) -> Iterator[Image]:
        """Build the tree with another text for one of its files, for as long as the block runs.

        :raises VerdictError: it does not compile.
        """
        objects, plan = self.bench.objects, self.bench.plan
        self._count += 1
        mode = objects.entries(plan.step.tree, [path])[path].split()[0]
        (blob,) = objects.write_blobs([text])
        tree = objects.replace(plan.step.tree, {path: f"{mode} blob {blob}"})
        step = Step(f"mutant-{self._count}", None, plan.step.commit, tree)
        pending = _pending(self.home)
        pending.write_text(self.lane.image_key(step), encoding="ascii")
        image = self.lane.image(step)
        try:
            yield image
        finally:
            if image.built:
                shutil.rmtree(image.folder, ignore_errors=True)
            pending.unlink(missing_ok=True)

    def _file(self, path: str, text: bytes) -> Path:
        return self.home / f"{_hash(self._key, path, hashlib.sha256(text).hexdigest())}.json"

    def _recall(self, path: str, text: bytes) -> Verdict | None:
        """Return what was found out before about a file with this text."""
        try:
            data = json.loads(self._file(path, text).read_text(encoding="utf-8"))
            return Verdict(Fate(data["fate"]), str(data["why"]), tuple(map(str, data["tests"])))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _remember(self, path: str, text: bytes, verdict: Verdict) -> None:
        file = self._file(path, text)
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        data = {"fate": verdict.fate.value, "why": verdict.why, "tests": list(verdict.tests)}
        temporary.write_text(json.dumps(data), encoding="utf-8")
        temporary.replace(file)


def _killed(failed: tuple[str, ...]) -> Verdict:
    more = f" and {len(failed) - _NAMES} more" if len(failed) > _NAMES else ""
    return Verdict(Fate.KILLED, ", ".join(failed[:_NAMES]) + more, failed)


def _hash(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()
