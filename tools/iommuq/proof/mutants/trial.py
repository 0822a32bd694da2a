# SPDX-License-Identifier: GPL-2.0-only
"""Find the mutants to try, and try them: build each incrementally, run the suites on it.

They are of the functions that a queue touches, or of its patches.  Images of mutants are removed
after their run.  Results are cached.
"""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from iommuq.build.image import Image
from iommuq.build.workspace import Workspace
from iommuq.proof.lanes import Lane
from iommuq.proof.mutants.faults import Mutant, mutants_of
from iommuq.proof.mutants.hunks import Superseded, hunk_faults
from iommuq.queue.csource import Touched, parse, touched_functions
from iommuq.queue.steps import Step
from iommuq.results.store import Status, Store
from iommuq.suites.kunit import SPLAT_CASE
from iommuq.system import files, progress
from iommuq.system.errors import UserError, VerdictError
from iommuq.system.files import cache_dir
from iommuq.system.git.objects import Objects
from iommuq.system.tables import Table, load_json
from iommuq.system.temporary import temporary_folder

#: Part of every key.  Raise it when the same mutant is judged differently.
_GENERATION = "4"
#: The compiler's warning for an empty statement after an `if`.
_EMPTY = "[-Wempty-body]"
#: The most tests to name.
_NAMES = 3
#: The file with the key of the image to remove, in case of a kill.
_PENDING = "pending"
#: Appended to a file to test whether it is compiled.
_PROBE = b"\n#error not a mutant, but a question\n"


@dataclass(frozen=True)
class Unparsed:
    """A place that could not be parsed."""

    path: str
    function: str
    line: int


@dataclass(frozen=True)
class Plan:
    """The mutants of one tree.

    :ivar step: the last step, with the overlay.
    :ivar texts: the files that the patches touch, by path.
    :ivar touched: the functions that the patches touch.
    :ivar gone: the touched functions that the tree lacks.
    :ivar mutants: the mutants to try, in the order of the files.
    :ivar known: also those of other functions, for the list of explained ones.
    :ivar unparsed: places in the functions to try.
    :ivar by_patch: the mutants are hunks and lines of the patches.
    :ivar superseded: hunks that a later patch changes again.
    :ivar silent: the number of hunks that change no code.
    """

    step: Step
    texts: dict[str, bytes]
    touched: tuple[Touched, ...]
    gone: tuple[Touched, ...]
    mutants: tuple[Mutant, ...]
    known: tuple[Mutant, ...]
    unparsed: tuple[Unparsed, ...]
    by_patch: bool = False
    superseded: tuple[Superseded, ...] = ()
    silent: int = 0


def make_plan(
    store: Objects,
    steps: Sequence[Step],
    only: Sequence[str] = (),
    also: Collection[str] = (),
    patches: Sequence[str] = (),
) -> Plan:
    """Find the mutants of a queue.

    :param steps: all steps of the queue, with the overlay.
    :param only: functions to try instead of the touched ones, in files that the queue touches.
    :param also: functions whose mutants are listed, but not tried.
    :param patches: labels of patches whose functions to try; empty for all.
    :raises UserError: there is no such function.
    """
    step = steps[-1]
    touched = touched_functions(store, steps)
    labels = set(patches)
    wanted = {
        (each.path, each.name) for each in touched if not labels or labels & set(each.patches)
    }
    texts: dict[str, bytes] = {}
    defined: set[tuple[str, str]] = set()
    mutants: list[Mutant] = []
    known: list[Mutant] = []
    unparsed: list[Unparsed] = []
    for path in dict.fromkeys(each.path for each in touched):
        text = store.read_file(step.tree, path)
        if text is None:
            continue
        texts[path] = text
        source = parse(text)
        for function in source.functions:
            defined.add((path, function.name))
            chosen = function.name in only if only else (path, function.name) in wanted
            if not chosen and (path, function.name) not in wanted and function.name not in also:
                continue
            found = mutants_of(source, path, function)
            known += found.mutants
            if chosen:
                mutants += found.mutants
                unparsed += [Unparsed(path, function.name, line) for line in found.unparsed]
    for name in only:
        if name not in {each for _, each in defined}:
            raise UserError(
                f"no function {name!r} in a file that the queue touches",
                hint=f"the files are {', '.join(texts) or 'none'}",
            )
    return Plan(
        step,
        texts,
        touched,
        tuple(each for each in touched if (each.path, each.name) not in defined),
        tuple(mutants),
        tuple(known),
        tuple(unparsed),
    )


def make_hunk_plan(
    store: Objects, steps: Sequence[Step], only: Sequence[str] = (), patches: Sequence[str] = ()
) -> Plan:
    """Find the hunks and lines that can be removed from the patches of a queue.

    :param steps: all steps of the queue, with the overlay.
    :param only: functions to try; empty for all, and for code outside of functions.
    :param patches: labels of patches to try; empty for all.
    :raises UserError: no patch changes a function of one of the names.
    """
    found = hunk_faults(store, steps)
    check_functions(only, found.mutants, "patch")
    return Plan(
        steps[-1],
        found.texts,
        (),
        (),
        tuple(
            mutant
            for mutant in found.mutants
            if (not only or mutant.function in only) and (not patches or mutant.patch in patches)
        ),
        found.mutants,
        (),
        by_patch=True,
        superseded=tuple(each for each in found.superseded if not patches or each.patch in patches),
        silent=found.silent,
    )


def check_functions(only: Sequence[str], mutants: Sequence[Mutant], what: str) -> None:
    """Check that each function has a mutant.

    :param only: names of functions.
    :param what: what makes the mutants, for the message.
    :raises UserError: one has none.
    """
    names = sorted({mutant.function for mutant in mutants} - {""})
    for name in only:
        if name not in names:
            raise UserError(
                f"no {what} changes a function {name!r}",
                hint=f"there are {', '.join(names) or 'none'}",
            )


class Fate(StrEnum):
    """The result of a mutant."""

    #: A test failed that passes without it, or the guest was lost.
    KILLED = "killed"
    SURVIVED = "survived"
    #: The kernel image is identical.
    SAME = "same kernel"
    BROKEN = "does not compile"
    WARNED = "adds a warning"
    #: The kernel does not have the file.
    ABSENT = "not in this kernel"


#: The fates of mutants that the compiler or a test noticed.
NOTICED = frozenset({Fate.KILLED, Fate.BROKEN, Fate.WARNED})


@dataclass(frozen=True)
class MutantVerdict(Table):
    """The verdict of a suite on a mutant.

    :ivar why: the first tests that killed it, or the message of the compiler.
    :ivar tests: all tests that killed it, by their names in the suite.
    """

    fate: Fate
    why: str = ""
    tests: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """One mutant and its fate.

    :ivar why: the first tests that killed it, or the message of the compiler.
    :ivar tests: all tests that killed it, as ``<lane>.<test>``; empty if the guest was lost.
    :ivar lane: the suite that noticed it; or empty.
    """

    mutant: Mutant
    fate: Fate
    why: str = ""
    tests: tuple[str, ...] = ()
    lane: str = ""


@dataclass(frozen=True)
class Bench:
    """Tries the mutants of a plan.

    :ivar lanes: the suites in the order to run, until one notices a mutant.
    :ivar promises: the tests that prove a patch, as ``<lane>.<test>``, by its label.  They run
        first on the mutants of that patch.
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

        :param count: the most mutants to try, of those whose file is in a kernel.
        :param on_trial: called with each result.
        :raises VerdictError: the tree does not build without a mutant, or no test passes.
        """
        name = self.workspace.base.spec.name
        home = cache_dir() / "mutants" / name
        home.mkdir(parents=True, exist_ok=True)
        with (
            files.hold(home / "lock", f"another run of mutants of {name}"),
            temporary_folder("mutants") as folder,
        ):
            # A temporary store: the results of mutants are not kept.
            results = Store(Path(folder, "results.sqlite"))
            judges = [_Judge(self, lane, home, results) for lane in self.lanes]
            _sweep(home, {lane.image_key(self.plan.step) for lane in self.lanes})
            trials = []
            with progress.task("Trying mutants") as step:
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
    """Run the suites until one notices the mutant."""
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
    """Remove the image that a killed run left, unless its key is in *keep*."""
    pending = home / _PENDING
    with contextlib.suppress(OSError):
        key = pending.read_text(encoding="ascii").strip()
        if len(key) == 64 and key.isalnum() and key not in keep:
            shutil.rmtree(cache_dir() / "images" / key, ignore_errors=True)
        pending.unlink()


@dataclass
class _Judge:
    """Judges mutants by one suite; *home* is the cache of verdicts."""

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
        """The tests that pass without a mutant."""
        run = self.lane.run(self.image, self.bench.plan.step)
        passing = frozenset(result.test for result in run.results if result.status is Status.PASS)
        if not passing - {SPLAT_CASE}:
            raise VerdictError(
                f"no test passes on {run.patch} without a mutant",
                hint=f"`iommuq {run.suite}` shows why",
            )
        return passing

    @cached_property
    def _key(self) -> str:
        words = [_GENERATION, self.lane.name, self.lane.run_key(self.image)]
        return files.hash_of(*words, *sorted(self.passing))

    def is_built(self, path: str) -> bool:
        """Return whether the kernel has a file, by a build with an #error in it."""
        if path not in self._built:
            text = self.bench.plan.texts[path] + _PROBE
            known = load_json(MutantVerdict, self._file(path, text))
            if known is None:
                try:
                    with self._build(path, text):
                        known = MutantVerdict(Fate.ABSENT)
                except VerdictError:
                    known = MutantVerdict(Fate.BROKEN)
                files.write_json(self._file(path, text), asdict(known))
            self._built[path] = known.fate is not Fate.ABSENT
        return self._built[path]

    def judge(self, mutant: Mutant) -> MutantVerdict:
        """Build a mutant, run the suite on it, and return its verdict."""
        text = mutant.apply(self.bench.plan.texts[mutant.path])
        file = self._file(mutant.path, text)
        known = load_json(MutantVerdict, file)
        if known is None:
            try:
                with self._build(mutant.path, text) as image:
                    known = self._warned(image) or self._run(
                        image, self._first(mutant), self._able(mutant.path)
                    )
            except VerdictError as error:
                # Without the name of the step, which changes.
                why = error.what.partition(f" {self.image.arch.name}: ")[2]
                known = MutantVerdict(Fate.BROKEN, why)
            files.write_json(file, asdict(known))
        if known.fate is Fate.KILLED:
            self._killers.update(known.tests)
        return known

    def _first(self, mutant: Mutant) -> Lane | None:
        """Return the lane with only the promised tests of the patch, if that is less."""
        own = f"{self.lane.name}."
        promised = self.bench.promises.get(mutant.patch, ())
        return self.lane.narrowed([t.removeprefix(own) for t in promised if t.startswith(own)])

    def _able(self, path: str) -> frozenset[str]:
        """Return the passing tests whose guests run a file."""
        return frozenset(test for test in self.passing if self.lane.runs_file(test, path))

    def _warned(self, image: Image) -> MutantVerdict | None:
        """Return a verdict if a kernel adds a compiler warning, so that no boot is needed."""
        # An empty body is only the result of a removed statement.
        new = sorted(
            warning for warning in image.warnings - self.image.warnings if _EMPTY not in warning
        )
        return MutantVerdict(Fate.WARNED, new[0]) if new else None

    def _run(self, image: Image, first: Lane | None, able: frozenset[str]) -> MutantVerdict:
        """Run the tests *able* on a mutant, those of the lane *first* before others."""
        file = image.arch.image
        if filecmp.cmp(self.image.folder / file, image.folder / file, shallow=False):
            return MutantVerdict(Fate.SAME)
        told: set[str] = set()
        if first is not None:
            verdict = self._ask(first, image, frozenset(), told)
            if verdict.fate is Fate.KILLED:
                return verdict
        # Tests that killed a mutant before are likely to kill the next.
        likely = sorted(able.intersection(self._killers).difference(told))
        then = self.lane.narrowed(likely) if likely else None
        if then is not None:
            verdict = self._ask(then, image, frozenset(), told)
            if verdict.fate is Fate.KILLED:
                return verdict
        rest = able.difference(told)
        if not rest:
            return MutantVerdict(Fate.SURVIVED)
        lane = self.lane if rest == self.passing else self.lane.narrowed(rest) or self.lane
        return self._ask(lane, image, rest, told)

    def _ask(self, lane: Lane, image: Image, able: frozenset[str], told: set[str]) -> MutantVerdict:
        """Run a mutant in some guests.

        :param able: the tests that count as lost without a result.
        :param told: gets the tests with a result.
        """
        # A guest that is lost twice in a row is lost because of the mutant.
        for again in (False, True):
            ran = lane.keeping(self.results).run(image, self.bench.plan.step, again=again)
            status = {result.test: result.status for result in ran.results}
            told.update(status)
            ours = self.passing.intersection(able.union(status))
            failed = tuple(t for t in status if t in ours and status[t] is Status.FAIL)
            if failed:
                more = f" and {len(failed) - _NAMES} more" if len(failed) > _NAMES else ""
                return MutantVerdict(Fate.KILLED, ", ".join(failed[:_NAMES]) + more, failed)
            lost = sorted(t for t in ours if status.get(t, Status.ERROR) is Status.ERROR)
            if not lost:
                return MutantVerdict(Fate.SURVIVED)
            lane = lane.narrowed(lost) or lane
            able = able.intersection(lost)
        return MutantVerdict(Fate.KILLED, f"guest lost, {len(lost)} tests without a verdict")

    @contextlib.contextmanager
    def _build(self, path: str, text: bytes) -> Iterator[Image]:
        """Build the tree with another text for one file, for the duration of the block."""
        objects, plan = self.bench.objects, self.bench.plan
        self._count += 1
        mode = objects.entries(plan.step.tree, [path])[path].split()[0]
        (blob,) = objects.write_blobs([text])
        tree = objects.replace(plan.step.tree, {path: f"{mode} blob {blob}"})
        step = Step(f"mutant-{self._count}", None, plan.step.commit, tree)
        pending = self.home / _PENDING
        pending.write_text(self.lane.image_key(step), encoding="ascii")
        image = self.lane.image(step)
        try:
            yield image
        finally:
            if image.built:
                shutil.rmtree(image.folder, ignore_errors=True)
            pending.unlink(missing_ok=True)

    def _file(self, path: str, text: bytes) -> Path:
        """Return the place of the cached verdict for a file with this text."""
        key = files.hash_of(self._key, path, hashlib.sha256(text).hexdigest())
        return self.home / f"{key}.json"
