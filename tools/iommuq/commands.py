# SPDX-License-Identifier: GPL-2.0-only
"""What the suites' commands do: run, and print what came of it."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from iommuq import arches, coverage, progress
from iommuq.arches import Arch
from iommuq.errors import EXIT_INFRA, EXIT_OK, EXIT_VERDICT, InfraError, UserError
from iommuq.guests.machine import load as load_machine
from iommuq.known import KnownFailures, Verdict
from iommuq.known import load as load_known
from iommuq.objects import Store
from iommuq.prove import Outcome, judge_run, known_steps, prove
from iommuq.report import matrix
from iommuq.report.coverage import report_lines, to_json
from iommuq.results import Result, Run
from iommuq.suites.kselftest import run_selftests as run_programs
from iommuq.suites.kunit import Subject, run_kunit
from iommuq.suites.programs import addition, choose, load_suites
from iommuq.touched import is_kernel_source, touched_functions
from iommuq.workspace import Workspace

#: Failures of the userspace suites that are known.
SELFTEST_KNOWN = "selftests/known-failures.toml"
#: The machine that is meant by the name of a guest.
_MACHINES = {"um": "um", "qemu": "q35"}
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
    return _report_kunit(workspace, run, arch)


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
        image = counting.image(step, arch, workspace.fragments(arch, configs), extra)
        subject = Subject(base, step.label, workspace.base.kernel)
        counters = Path(folder) / "counters"
        counters.mkdir()
        environment = {coverage.PREFIX: str(counters)}
        run = run_kunit(
            image, subject, filters=filters, limit=limit, again=True, environment=environment
        )
        code = _report_kunit(workspace, run, arch)
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
    if json_path is not None:
        text = json.dumps(to_json(covers, touched, base, step.label), indent=1)
        try:
            json_path.write_text(f"{text}\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{json_path}: {error.strerror}") from error
    return code


def _report_kunit(workspace: Workspace, run: Run, arch: Arch) -> int:
    """Print the results of a run, and return the exit code."""
    # Not from trees: a later patch that does not apply is of no interest here.
    verdicts = judge_run(run, workspace.known, known_steps(workspace.queue), arch.name)
    for result in run.results:
        _print_result(result, verdicts[result.test])
    print(_heading(workspace, arch))
    return _summary(run, verdicts)


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
    known = KnownFailures() if all_fail else load_known(workspace.root / SELFTEST_KNOWN)
    machine = load_machine(_MACHINES[on])
    suites = choose(load_suites(workspace.root), names)
    step = workspace.step(at)
    image = workspace.image(
        step,
        arches.get(machine.arch),
        workspace.selftest_fragments(machine),
        addition(workspace.root),
    )
    subject = Subject(base, step.label, workspace.base.kernel)
    run = run_programs(image, machine, suites, subject, again=again)
    verdicts = judge_run(run, known, known_steps(workspace.queue), machine.arch)
    for result in run.results:
        _print_result(result, verdicts[result.test])
    print(f"{_kernel(workspace)}, selftests on {machine.title} ({run.accelerator})")
    return _summary(run, verdicts)


def _kernel(workspace: Workspace) -> str:
    base = workspace.base
    return f"Linux {base.kernel} ({base.version})"


def _heading(workspace: Workspace, arch: Arch) -> str:
    ran = arch.title if arch.accelerator == "native" else f"{arch.title} ({arch.accelerator})"
    return f"{_kernel(workspace)}, KUnit on {ran}"


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
