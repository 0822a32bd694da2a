# SPDX-License-Identifier: GPL-2.0-only
"""What the suites' commands do: run, and print what came of it."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from iommuq.build.workspace import Workspace
from iommuq.proof import bisection, coverage, flakes, lanes, promises, records
from iommuq.proof import recording as feed
from iommuq.proof.coverage_table import report_lines, to_json
from iommuq.proof.lanes import KunitLane, Lane, SelftestLane
from iommuq.proof.matrix import fold
from iommuq.proof.prove import Outcome, Proof, conclude, prove
from iommuq.proof.watched import watched
from iommuq.queue.steps import Step
from iommuq.queue.touched import is_kernel_source, touched_functions
from iommuq.report import matrix
from iommuq.report.live import events
from iommuq.results import events as told
from iommuq.results.known import Verdict
from iommuq.results.runs.recorder import Recorder, recording
from iommuq.results.store import Result, Run
from iommuq.suites.kunit import Subject, run_kunit
from iommuq.system import progress
from iommuq.system.arches import Arch
from iommuq.system.errors import EXIT_INFRA, EXIT_OK, EXIT_VERDICT, InfraError, UserError
from iommuq.system.git.objects import Store
from iommuq.system.groups import pool

#: Lines of a failing test's message that are printed; the log has all.
_MESSAGE_LINES = 12


def run_matrix(base: str, arch: Arch, configs: Sequence[str], limit: float) -> int:
    """Test every step of a queue with KUnit and print the table.

    :param configs: names of further Kconfig fragments.
    :param limit: seconds for one boot.
    :return: the exit code.
    """
    workspace = Workspace.open(base)
    lane = KunitLane.open(workspace, arch, configs, limit=limit)
    with recording(base) as recorder:
        return _prove(recorder, workspace, [lane], None, None, folded=False, strict=False)


def run_proof(
    base: str,
    suites: Sequence[str],
    *,
    first: str | None,
    last: str | None,
    folded: bool,
    bisect: str | None,
) -> int:
    """Test every step of a queue with every suite, and hold it against what it promises.

    :param suites: names of lanes; none for those that the base is proven with.
    :param first: the patch to begin with, seen against the step before it; None for all.
    :param last: the patch to end with; None for the last.
    :param folded: show one row for tests of a group that no step changes.
    :param bisect: say in place of all that which patch breaks this test.
    :return: the exit code.
    """
    workspace = Workspace.open(base)
    chosen = lanes.open_lanes(workspace, suites or promises.load(workspace.queue).suites)
    if bisect is not None:
        return _bisect(workspace, _steps(workspace, first, last), chosen, bisect)
    with recording(base) as recorder:
        return _prove(recorder, workspace, chosen, first, last, folded=folded, strict=True)


def _prove(
    recorder: Recorder,
    workspace: Workspace,
    chosen: Sequence[Lane],
    first: str | None,
    last: str | None,
    *,
    folded: bool,
    strict: bool,
) -> int:
    def on_outcome(outcome: Outcome) -> None:
        feed.outcome(recorder, outcome, chosen)
        if outcome.failure is not None:
            progress.note(str(outcome.failure))

    # Before hours of work: a mistake in it is told at once.
    promises.load(workspace.queue)
    steps = _steps(workspace, first, last)
    feed.workspace(recorder, workspace, steps, chosen)
    # What is mailed must have a proof of all of it.
    whole = strict and first is None and last is None
    key = records.key_of(workspace, [lane.name for lane in chosen]) if whole else ""
    lanes_told = watched(chosen)
    board = events.shown(
        _kernel(workspace),
        _kind(workspace, chosen),
        [step.label for step in steps],
        [lane.name for lane in chosen],
    )
    with board, pool() as executor:
        outcomes = prove(steps, lanes_told, executor, on_outcome=on_outcome)
        outcomes = flakes.settle(outcomes, lanes_told, executor)
    for outcome in outcomes:
        feed.outcome(recorder, outcome, chosen)
    proof = conclude(outcomes, chosen, workspace.queue, strict=strict)
    if whole and records.record(workspace, chosen, proof, key) is None:
        progress.note("what is proven was edited meanwhile: the proof is not kept")
    recorder.describe(findings=tuple(proof.findings), errors=tuple(proof.errors))
    recorder.exit_code = proof.exit_code
    print(f"{_kernel(workspace)}, {'; '.join(lane.title for lane in chosen)}")
    matrix.show(fold(proof.matrix) if folded else proof.matrix)
    print()
    for line in [*proof.findings, *proof.errors, *_flaky_logs(proof)]:
        print(line)
    events.emit("end", exit_code=proof.exit_code, findings=proof.findings, errors=proof.errors)
    print("The queue is as it should be." if proof.exit_code == EXIT_OK else "The queue is not.")
    return proof.exit_code


def _kind(workspace: Workspace, chosen: Sequence[Lane]) -> str:
    """Return a name for the same work another day."""
    return f"{workspace.base.spec.name}/{', '.join(lane.title for lane in chosen)}"


def _flaky_logs(proof: Proof) -> list[str]:
    return [
        f"{outcome.step.label}: {test}: {log}"
        for outcome in proof.outcomes
        for test, verdict in outcome.verdicts.items()
        if verdict is Verdict.FLAKY
        for log in flakes.logs(outcome, test)
    ]


def _steps(workspace: Workspace, first: str | None, last: str | None) -> list[Step]:
    """Return the steps that are asked for, and the one that the first is seen against.

    :raises UserError: there is no such step, or they are the wrong way round.
    """
    steps = workspace.steps(last)
    if first is None:
        return steps
    labels = [step.label for step in steps]
    wanted = workspace.step(first).label
    if wanted not in labels and last is None:
        raise UserError(f"{first} is no step of the queue", hint="it begins with the baseline")
    if wanted not in labels:
        raise UserError(f"{first} does not come before {last}")
    return steps[max(0, labels.index(wanted) - 1) :]


def _bisect(workspace: Workspace, steps: Sequence[Step], chosen: Sequence[Lane], test: str) -> int:
    lane, name = bisection.lane_of(chosen, test)
    events.begin(_kernel(workspace), [step.label for step in steps], [lane.name])
    culprit = bisection.first_failing(steps, watched([lane])[0], name)
    if culprit is None:
        end = steps[-1].label
        whole = end == workspace.step(None).label
        print(f"{test} passes with {'the whole queue' if whole else end} applied.")
        events.emit("end", exit_code=EXIT_OK, findings=[], errors=[])
        return EXIT_OK
    if culprit == steps[0]:
        said = f"{test} fails at {culprit.label} already: no patch after it breaks it."
    else:
        subject = culprit.patch.subject if culprit.patch else ""
        said = f"{test} is broken by {culprit.label} {progress.one_line(subject)}"
    print(said)
    events.emit("end", exit_code=EXIT_VERDICT, findings=[said], errors=[])
    return EXIT_VERDICT


def run_suites(
    base: str,
    filters: Sequence[str],
    *,
    at: str | None,
    arch: Arch,
    configs: Sequence[str],
    limit: float,
    again: bool,
) -> int:
    """Run the KUnit suites on one step and print what failed.

    :param filters: globs; none for all suites.
    :param at: the step, or None for the whole queue.
    :param configs: names of further Kconfig fragments.
    :param limit: seconds for one boot.
    :param again: run even if the store has the results.
    :return: the exit code.
    """
    workspace = Workspace.open(base)
    lane = KunitLane.open(workspace, arch, configs, filters, limit)
    return _run_lane(workspace, lane, at, again)


def run_coverage(
    base: str,
    filters: Sequence[str],
    *,
    at: str | None,
    arch: Arch,
    configs: Sequence[str],
    limit: float,
    json_path: Path | None,
) -> int:
    """Run the suites on one step, and print how much of the queue's files they execute.

    :param filters: globs; none for all suites.
    :param at: the step, or None for the whole queue.
    :param configs: names of further Kconfig fragments.
    :param limit: seconds for one boot.
    :param json_path: file to write the figures to.
    :return: the exit code of the suites.
    """
    coverage.check_arch(arch.name)
    workspace = Workspace.open(base)
    with recording(base) as recorder:
        recorder.exit_code = _cover(
            recorder, workspace, filters, at, arch, configs, limit, json_path
        )
        return recorder.exit_code


def _cover(
    recorder: Recorder,
    workspace: Workspace,
    filters: Sequence[str],
    at: str | None,
    arch: Arch,
    configs: Sequence[str],
    limit: float,
    json_path: Path | None,
) -> int:
    """Do what `run_coverage` says, in a workspace."""
    base = workspace.base.spec.name
    plain = workspace.step(at)
    paths = sorted(
        {
            change.path
            for patch in workspace.queue.sent
            for change in patch.changes
            if is_kernel_source(change.path)
        }
    )
    with tempfile.TemporaryDirectory(prefix="iommuq-coverage-") as folder:
        (Path(folder) / "objects").mkdir()
        objects = Store(workspace.base.git_dir, Path(folder) / "objects")
        overlay = coverage.instrument(workspace.overlay, objects, plain.tree, paths)
        counting = replace(workspace, overlay=overlay)
        step = counting.step(at)
        extra = coverage.addition(paths)
        lane = KunitLane.open(workspace, arch, configs, filters, limit)
        subject = Subject(base, step.label, workspace.base.kernel)
        counters = Path(folder) / "counters"
        counters.mkdir()
        environment = {coverage.PREFIX: str(counters)}
        cell = step.label, lane.name
        kind = _kind(workspace, [lane])
        with events.shown(_kernel(workspace), kind, [step.label], [lane.name]):
            told.busy(*cell, "building")
            image = counting.image(step, arch, workspace.fragments(arch, configs), extra)
            told.busy(*cell, "running")
            run = run_kunit(
                image, subject, filters=filters, limit=limit, again=True, environment=environment
            )
            told.done(*cell, run, lane.judge)
        feed.workspace(recorder, workspace, [plain], [lane])
        feed.run(recorder, lane, run, None)
        code = _report(workspace, lane, run)
        read = ((path, objects.read_file(step.tree, path)) for path in paths)
        texts = {path: text for path, text in read if text is not None}
        try:
            covers = coverage.collect(image, counters, texts)
        except InfraError as error:
            if code == EXIT_OK:
                raise
            # A guest that was lost wrote none; what was lost with it has been said.
            progress.note(str(error))
            return code
        touched = {(each.path, each.name) for each in touched_functions(objects, workspace.steps())}
    print()
    for line in report_lines(covers, touched):
        print(line)
    figures = to_json(covers, touched, base, step.label)
    recorder.describe(coverage=figures)
    if json_path is not None:
        text = json.dumps(figures, indent=1)
        try:
            json_path.write_text(f"{text}\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{json_path}: {error.strerror}") from error
    return code


def run_selftests(
    base: str, names: Sequence[str], *, at: str | None, on: str, again: bool, all_fail: bool
) -> int:
    """Run the userspace suites on one step and print what failed.

    :param names: the suites; none for all.
    :param at: the step, or None for the whole queue.
    :param on: ``um`` or ``qemu``.
    :param again: run even if the store has the results.
    :param all_fail: take no failure for a known one.
    :return: the exit code.
    """
    workspace = Workspace.open(base)
    lane = SelftestLane.open(workspace, on, names, all_fail=all_fail)
    return _run_lane(workspace, lane, at, again)


def _run_lane(workspace: Workspace, lane: Lane, at: str | None, again: bool) -> int:
    """Run one lane on one step and print what failed."""
    step = workspace.step(at)
    (told_lane,) = watched([lane])
    with recording(workspace.base.spec.name) as recorder:
        feed.workspace(recorder, workspace, [step], [lane])
        with events.shown(_kernel(workspace), _kind(workspace, [lane]), [step.label], [lane.name]):
            image = told_lane.image(step)
            run = told_lane.run(image, step, again=again)
        recorder.exit_code = _report(workspace, lane, run)
        feed.run(recorder, lane, run, image.warnings)
        return recorder.exit_code


def _report(workspace: Workspace, lane: Lane, run: Run) -> int:
    """Print the results of a run, and return the exit code."""
    verdicts = lane.judge(run)
    for result in run.results:
        _print_result(result, verdicts[result.test])
    ran = "" if f"({run.accelerator})" in lane.title else f" ({run.accelerator})"
    print(f"{_kernel(workspace)}, {lane.title}{ran}")
    return _summary(run, verdicts)


def _kernel(workspace: Workspace) -> str:
    base = workspace.base
    return f"Linux {base.kernel} ({base.version})"


def _print_result(result: Result, verdict: Verdict) -> None:
    if verdict in (Verdict.OK, Verdict.SKIPPED) and not sys.stdout.isatty():
        print(f"{verdict.value:<15} {result.test}")
        return
    if verdict is Verdict.OK:
        return
    print(f"{verdict.value:<15} {result.test}")
    if verdict in (Verdict.FAILED, Verdict.ERROR):
        lines = result.message.splitlines()
        for line in lines[:_MESSAGE_LINES]:
            print(f"    {progress.one_line(line)}")
        if len(lines) > _MESSAGE_LINES:
            print(f"    … {len(lines) - _MESSAGE_LINES} more lines")
        print(f"    full log: {result.log}")


def _summary(run: Run, verdicts: dict[str, Verdict]) -> int:
    counts = {verdict: list(verdicts.values()).count(verdict) for verdict in Verdict}
    parts = [f"{count} {verdict.value}" for verdict, count in counts.items() if count]
    print(f"{run.base} {run.patch}: {', '.join(parts)}")
    code = EXIT_INFRA if counts[Verdict.ERROR] else EXIT_OK
    if any(verdict.fails for verdict in verdicts.values()):
        code = EXIT_VERDICT
    events.emit("end", exit_code=code, findings=[], errors=[])
    return code
