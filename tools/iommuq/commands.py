# SPDX-License-Identifier: GPL-2.0-only
"""What the suites' commands do: run, and print what came of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from iommuq import progress
from iommuq.arches import Arch
from iommuq.errors import EXIT_INFRA, EXIT_OK, EXIT_VERDICT
from iommuq.known import Verdict
from iommuq.prove import Outcome, judge_run, known_steps, prove
from iommuq.report import matrix
from iommuq.results import Result, Run
from iommuq.suites.kunit import Subject, run_kunit
from iommuq.workspace import Workspace

#: Lines of a failing test's message that are printed; the log has all.
_MESSAGE_LINES = 12


def run_matrix(base: str, arch: Arch, configs: Sequence[str], limit: float) -> int:
    """Test every step of a queue and print the table.

    :param configs: names of further Kconfig fragments.
    :param limit: seconds for one boot.
    :return: the exit code.
    """
    workspace = Workspace.open(base)

    def on_outcome(outcome: Outcome) -> None:
        if outcome.failure is not None:
            progress.note(str(outcome.failure))

    proof = prove(
        workspace, arch, workspace.fragments(arch, configs), limit=limit, on_outcome=on_outcome
    )
    print(_heading(workspace, arch))
    matrix.show(proof.matrix)
    print()
    for line in proof.findings + proof.errors:
        print(line)
    print("The queue is as it should be." if proof.exit_code == EXIT_OK else "The queue is not.")
    return proof.exit_code


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
    """Run the suites on one step and print what failed.

    :param filters: globs; none for all suites.
    :param at: the step, or None for the whole queue.
    :param configs: names of further Kconfig fragments.
    :param limit: seconds for one boot.
    :param again: run even if the store has the results.
    :return: the exit code.
    """
    workspace = Workspace.open(base)
    step = workspace.step(at)
    image = workspace.image(step, arch, workspace.fragments(arch, configs))
    subject = Subject(base, step.label, workspace.base.kernel)
    run = run_kunit(image, subject, filters=filters, limit=limit, again=again)
    # Not from trees: a later patch that does not apply is of no interest here.
    verdicts = judge_run(run, workspace.known, known_steps(workspace.queue), arch.name)
    for result in run.results:
        _print_result(result, verdicts[result.test])
    print(_heading(workspace, arch))
    return _summary(run, verdicts)


def _heading(workspace: Workspace, arch: Arch) -> str:
    base = workspace.base
    ran = arch.title if arch.accelerator == "native" else f"{arch.title} ({arch.accelerator})"
    return f"Linux {base.kernel} ({base.version}), KUnit on {ran}"


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
    if any(verdict.fails for verdict in verdicts.values()):
        return EXIT_VERDICT
    return EXIT_INFRA if counts[Verdict.ERROR] else EXIT_OK
