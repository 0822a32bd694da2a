# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq prove``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from iommuq.build.workspace import Workspace
from iommuq.cli import options
from iommuq.proof import bisection, flakes, lanes, promises, recording, records
from iommuq.proof.lanes import Lane
from iommuq.proof.matrix import fold
from iommuq.proof.prove import Outcome, Proof, conclude, steps_between
from iommuq.proof.prove import prove as prove_steps
from iommuq.queue.steps import Step
from iommuq.report import live, matrix
from iommuq.results.known import Verdict
from iommuq.results.runs.recorder import recording as recorded
from iommuq.system import progress
from iommuq.system.errors import EXIT_OK, EXIT_VERDICT
from iommuq.system.groups import pool


@click.command()
@options.base
@click.option(
    "--suite",
    "suites",
    metavar="NAME",
    multiple=True,
    help="Only this suite: kunit, kunit-tree, selftest, firmware, vfio.",
)
@click.option("--from", "first", metavar="PATCH", help="Begin with this patch.")
@click.option("--to", "last", metavar="PATCH", help="End with this patch.")
@click.option("--all", "unfolded", is_flag=True, help="Show a row for every test.")
@click.option("--bisect", metavar="TEST", help="Find the patch that breaks TEST.")
@options.json_lines
def prove(
    base: str,
    suites: tuple[str, ...],
    first: str | None,
    last: str | None,
    unfolded: bool,
    bisect: str | None,
    as_json: bool,
) -> int:
    """Test every step of the queue of BASE with every suite.

    The results are compared with patches/BASE/proof.toml: each patch names the
    tests that it turns from failing to passing, or a reason why there are none.
    """
    with live.json_lines(as_json):
        workspace = Workspace.open(base)
        chosen = lanes.open_lanes(
            workspace, suites or promises.load_promises(workspace.queue).suites
        )
        steps = steps_between(workspace, first, last)
        if bisect is not None:
            return _bisect(workspace, steps, chosen, bisect)
        whole = first is None and last is None
        return prove_queue(workspace, chosen, steps, folded=not unfolded, keep=whole)


def prove_queue(
    workspace: Workspace,
    chosen: Sequence[Lane],
    steps: Sequence[Step],
    *,
    folded: bool,
    strict: bool = True,
    keep: bool = False,
) -> int:
    """Test steps with lanes, print the table and the verdict, and return the exit code.

    :param folded: show one row for the tests of a group that no step changes.
    :param strict: fail without ``proof.toml``.
    :param keep: store the proof, for `iommuq mail`: the steps are the whole queue.
    """
    base = workspace.base.spec.name
    # Report errors in the file before hours of work.
    promises.load_promises(workspace.queue)
    key = records.key_of(workspace, [lane.name for lane in chosen]) if keep else ""
    with recorded(base) as recorder:

        def on_outcome(outcome: Outcome) -> None:
            recording.outcome(recorder, outcome, chosen)
            if outcome.failure is not None:
                progress.note(str(outcome.failure))

        recording.workspace(recorder, workspace, steps, chosen)
        with live.shown_lanes(workspace, steps, chosen), pool() as executor:
            outcomes = prove_steps(steps, chosen, executor, on_outcome=on_outcome)
            outcomes = flakes.settle(outcomes, chosen, executor)
        for outcome in outcomes:
            recording.outcome(recorder, outcome, chosen)
        proof = conclude(outcomes, chosen, workspace.queue, strict=strict)
        if keep and records.record(workspace, chosen, proof, key) is None:
            progress.note("proof not stored: the queue or its tests changed during the run")
        recorder.describe(findings=tuple(proof.findings), errors=tuple(proof.errors))
        recorder.exit_code = proof.exit_code
    print(f"{workspace.title}, {'; '.join(lane.title for lane in chosen)}")
    matrix.show(fold(proof.matrix) if folded else proof.matrix)
    print()
    for line in [*proof.findings, *proof.errors, *_flaky_logs(proof)]:
        print(line)
    live.emit("end", exit_code=proof.exit_code, findings=proof.findings, errors=proof.errors)
    print(proof.verdict(base))
    return proof.exit_code


def _flaky_logs(proof: Proof) -> list[str]:
    return [
        f"{outcome.step.label}: {test}: {log}"
        for outcome in proof.outcomes
        for test, verdict in outcome.verdicts.items()
        if verdict is Verdict.FLAKY
        for log in flakes.logs(outcome, test)
    ]


def _bisect(workspace: Workspace, steps: Sequence[Step], chosen: Sequence[Lane], test: str) -> int:
    lane, name = bisection.lane_of(chosen, test)
    live.begin(workspace.title, [step.label for step in steps], [lane.name])
    culprit = bisection.first_failing(steps, lane, name)
    if culprit is None:
        end = steps[-1].label
        whole = end == workspace.step(None).label
        print(f"PASS: {test} with {'the whole queue' if whole else end} applied")
        live.emit("end", exit_code=EXIT_OK, findings=[], errors=[])
        return EXIT_OK
    if culprit == steps[0]:
        said = f"FAIL: {test}: at {culprit.label} already, no patch after it breaks it"
    else:
        subject = culprit.patch.subject if culprit.patch else ""
        said = f"FAIL: {test}: broken by {culprit.label} {progress.one_line(subject)}"
    print(said)
    live.emit("end", exit_code=EXIT_VERDICT, findings=[said], errors=[])
    return EXIT_VERDICT
