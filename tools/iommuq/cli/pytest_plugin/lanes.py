# SPDX-License-Identifier: GPL-2.0-only
"""Run the selected tests: each lane once per session of pytest.

The first worker of pytest-xdist that needs a lane runs it; the others wait for its outcome.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from iommuq.build.workspace import Workspace
from iommuq.cli.pytest_plugin import inventory
from iommuq.defaults import SUITES
from iommuq.firmware import packages, scenario
from iommuq.proof.lanes import KunitLane, Lane, SelftestLane
from iommuq.results.known import Failure, Verdict, excused, judge_run
from iommuq.results.store import SuiteRun
from iommuq.suites.firmware.cases import cases
from iommuq.suites.firmware.subjects import foreign, queued
from iommuq.suites.kunit import LOG_CASE, SPLAT_CASE, NoSuchCase
from iommuq.suites.selftest import BUILDS, ENDS, load_suites
from iommuq.system import arches, files
from iommuq.system.errors import InfraError, IommuqError, UserError, VerdictError
from iommuq.system.files import project_root
from iommuq.system.tables import Table, load_json

#: All lanes; also marks of pytest.
LANES = tuple(SUITES)
_BOOTS = "kernel.boots"
_ARCH = "x86_64"


@dataclass(frozen=True)
class Options:
    """The options of the command line.

    :ivar at: the step of the queue; None for the last.
    :ivar arch: the architecture of the KUnit kernel.
    :ivar on: ``um`` or ``qemu``: the guest of the userspace suites.
    :ivar configs: names of further fragments for KUnit.
    :ivar kernel: an image or a package for the scenarios, instead of the base.
    :ivar again: run even if the store has the results.
    """

    base: str
    at: str | None = None
    arch: str = "um"
    on: str = "qemu"
    configs: tuple[str, ...] = ()
    kernel: str | None = None
    again: bool = False


@dataclass(frozen=True)
class Told(Table):
    """The result of one test.

    :ivar verdict: value of a `Verdict`.
    :ivar reason: reason of a known failure; else empty.
    """

    test: str
    verdict: str
    message: str = ""
    log: str = ""
    reason: str = ""
    duration: float = 0.0

    @property
    def bad(self) -> bool:
        """Whether it failed or has no verdict."""
        verdict = Verdict(self.verdict)
        return verdict.fails or verdict is Verdict.ERROR


@dataclass(frozen=True)
class Outcome(Table):
    """The outcome of a lane.

    :ivar title: the kernel and its guest.
    :ivar kind: ``verdict``, ``user`` or ``infra`` if it could not run; else empty.
    :ivar failure: the error, if it could not run.
    :ivar extra: tests that ran, but are in no source that was searched.
    :ivar aside: bad results that belong to no selected test.
    """

    title: str = ""
    told: tuple[Told, ...] = ()
    kind: str = ""
    failure: str = ""
    extra: tuple[str, ...] = ()
    aside: tuple[Told, ...] = ()

    def of(self, test: str) -> list[Told]:
        """Return the results of a test: its own, or those of its parameters."""
        return [one for one in self.told if _stands_for(test, one.test)]

    def trouble(self, test: str) -> Told | None:
        """Return the result that explains why a test has none; None without one."""
        suite = test.partition(".")[0]
        builds = next((one for one in self.told if one.test == f"{suite}.{BUILDS}"), None)
        if builds is not None and builds.verdict != Verdict.OK.value:
            return builds
        lost = [one for one in self.told if one.verdict == Verdict.ERROR.value]
        # Of the same suite, or of an earlier one that crashed the kernel.
        own = [one for one in lost if one.test.startswith(f"{suite}.")]
        return next(iter(own or lost), None)


def _stands_for(test: str, result: str) -> bool:
    # A case with parameters has a result for each of them.
    return result == test or result.startswith(f"{test}.")


@dataclass
class Lanes:
    """The lanes of one session.

    :ivar shared: the directory shared by all workers.
    :ivar selected: the tests to run, by lane.
    """

    options: Options
    shared: Path
    selected: Mapping[str, Collection[str]] = field(default_factory=dict)
    _known: dict[str, Outcome] = field(default_factory=dict)

    def ran(self, lane: str) -> bool:
        """Tell whether this process has the outcome of a lane."""
        return lane in self._known

    def outcome(self, lane: str) -> Outcome:
        """Return the outcome of a lane; run it if no worker has."""
        if lane not in self._known:
            path = self.shared / f"{lane}.json"
            with files.hold(self.shared / f"{lane}.lock", "another worker"):
                found = load_json(Outcome, path)
                if found is None:
                    found = self._run(lane)
                    files.write_json(path, asdict(found))
            self._known[lane] = found
        return self._known[lane]

    def _run(self, lane: str) -> Outcome:
        selected = self.selected[lane]
        try:
            title, told = _RUNS[lane](self.options, selected)
        except IommuqError as error:
            kinds = {VerdictError: "verdict", UserError: "user", InfraError: "infra"}
            kind = next(word for root, word in kinds.items() if isinstance(error, root))
            return Outcome(kind=kind, failure=str(error))
        there = inventory.everything(lane, project_root(), self.options.base, self.options.at)
        sources = {found.test for found in there}
        extra = [
            one
            for one in told
            # A result without a verdict may have no valid name.
            if one.verdict != Verdict.ERROR.value
            and not any(_stands_for(test, one.test) for test in _heads(one.test) if test in sources)
        ]
        whole = (SPLAT_CASE, LOG_CASE, _BOOTS)
        aside = [
            one
            for one in told
            if one.bad
            and (one in extra or one.test in whole or one.test.endswith(f".{ENDS}"))
            and not any(head in selected for head in _heads(one.test))
        ]
        names = tuple(one.test for one in extra if one.test not in whole)
        return Outcome(title, tuple(told), extra=names, aside=tuple(aside))


def _heads(test: str) -> list[str]:
    """Return the name of a result, and its prefixes up to each dot."""
    words = test.split(".")
    return [".".join(words[:count]) for count in range(len(words), 0, -1)]


def _kunit(options: Options, selected: Collection[str]) -> tuple[str, list[Told]]:
    workspace = Workspace.open(options.base)
    filters = _filters(sorted(selected))
    lane = KunitLane.open(workspace, arches.get(options.arch), options.configs, filters)
    try:
        return _on_step(workspace, lane, options)
    except NoSuchCase:
        # Each test then reports why the kernel does not have it.
        lane = replace(lane, filters=())
        return _on_step(workspace, lane, options)


def _filters(tests: Sequence[str]) -> tuple[str, ...]:
    """Return one filter for all the tests, or none: each filter is a boot."""
    cases = [test for test in tests if test != SPLAT_CASE]
    if len(cases) < len(tests):
        return ()
    if len(cases) == 1:
        return (cases[0],)
    suites = {test.partition(".")[0] for test in cases}
    return tuple(suites) if len(suites) == 1 else ()


def _selftest(options: Options, selected: Collection[str]) -> tuple[str, list[Told]]:
    workspace = Workspace.open(options.base)
    wanted = {test.partition(".")[0] for test in selected}
    names = [suite.name for suite in load_suites(workspace.root) if suite.name in wanted]
    lane = SelftestLane.open(workspace, options.on, names)
    return _on_step(workspace, lane, options)


def _on_step(workspace: Workspace, lane: Lane, options: Options) -> tuple[str, list[Told]]:
    step = workspace.step(options.at)
    run = lane.run(lane.image(step), step, again=options.again)
    base = workspace.base
    title = f"Linux {base.kernel} ({base.version}) {step.label}: {lane.title}"
    return title, _tell(run, lane.judge(run), lane.excuses(run))


def _firmware(options: Options, selected: Collection[str]) -> tuple[str, list[Told]]:
    wanted = {(word[0], word[1]) for word in (test.split(".") for test in selected)}
    names = sorted({name for _, name in wanted})
    scenarios = [scenario.load_scenario(name) for name in names]
    chosen = [
        case for case in cases(scenarios) if (case.machine.name, case.scenario.name) in wanted
    ]
    if options.kernel is not None:
        tested = foreign(packages.find(options.kernel))
    else:
        tested = queued(options.base, options.at)
    told: list[Told] = []
    for run in tested.run(chosen, again=options.again):
        entries = excused(run, tested.known, _ARCH)
        told += _tell(run, judge_run(run, tested.known, _ARCH), entries)
    return f"{tested.title}: firmware scenarios under QEMU", told


_RUNS = {"kunit": _kunit, "selftest": _selftest, "firmware": _firmware}


def _tell(
    run: SuiteRun, verdicts: Mapping[str, Verdict], entries: Mapping[str, Failure]
) -> list[Told]:
    told = []
    for result in run.results:
        entry = entries.get(result.test)
        reason = "" if entry is None else f"{' '.join(entry.reason.split())} ({entry.link})"
        test, verdict = result.test, verdicts[result.test].value
        told.append(Told(test, verdict, result.message, result.log, reason, result.duration))
    return told
