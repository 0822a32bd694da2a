# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq firmware``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from iommuq.bases.basefile import list_specs
from iommuq.cli import options
from iommuq.defaults import DEFAULT_BASE
from iommuq.firmware import packages, scenario
from iommuq.firmware.tables import classes as pci
from iommuq.firmware.tables.explain import explain
from iommuq.guests import machine as machines
from iommuq.proof import recording as feed
from iommuq.proof.matrix import Column, build
from iommuq.report import live, matrix
from iommuq.results.known import KnownFailures, Verdict, judge_run, sum_up
from iommuq.results.runs.recorder import recording
from iommuq.results.store import SuiteRun
from iommuq.suites.firmware.cases import Case, cases
from iommuq.suites.firmware.subjects import Tested, foreign, queued
from iommuq.system import progress
from iommuq.system.errors import EXIT_OK, UserError


class _RunByDefault(click.Group):
    """A group with the default command ``run``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert ``run`` if the first word is not a command."""
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help")):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_RunByDefault)
def firmware() -> None:
    """Test kernels on machines whose firmware reserves memory for devices.

    Without a command: `iommuq firmware [BASE] [SCENARIO]...` runs scenarios; see
    `iommuq firmware run --help` for its options.
    """


@firmware.command()
@click.argument("words", nargs=-1, metavar="[BASE] [SCENARIO]...")
@options.at_patch
@click.option(
    "--kernel",
    metavar="IMAGE|PACKAGE",
    help="Test this kernel instead of a base: a bzImage, a .deb, or the name of a Debian package.",
)
@click.option("--machine", "on", metavar="NAME", multiple=True, help="Only on this machine.")
@options.again
@options.no_known
@click.option("--full", is_flag=True, help="Print all checks, also those that pass.")
@options.json_lines
def run(
    words: tuple[str, ...],
    at: str | None,
    kernel: str | None,
    on: tuple[str, ...],
    again: bool,
    no_known: bool,
    full: bool,
    as_json: bool,
) -> int:
    """Run firmware scenarios on BASE with its queue, or on another kernel.

    SCENARIO is one of those that `iommuq firmware list` prints.
    """
    with live.json_lines(as_json):
        base, names = _split(words, kernel)
        scenarios = scenario.choose(names)
        for name in on:
            machines.load_machine(name)
        chosen = cases(scenarios, on)
        if not chosen:
            raise UserError(f"none of these scenarios is for {', '.join(on)}")
        if kernel is not None:
            if at is not None:
                raise UserError("--at and --kernel exclude each other")
            tested = foreign(packages.find(kernel))
        else:
            tested = queued(base, at)
        known = KnownFailures() if no_known else tested.known
        with recording(tested.subject.base) as recorder:
            with live.shown(
                tested.title,
                f"firmware/{kernel or base}",
                list(dict.fromkeys(case.scenario.name for case in chosen)),
                sorted({case.machine.name for case in chosen}),
                lambda run: judge_run(run, known, _ARCH),
            ) as board:
                board.keep((case.scenario.name, case.machine.name) for case in chosen)
                runs = tested.run(chosen, again=again)
            feed.firmware(recorder, tested, runs, known, _ARCH)
            recorder.exit_code = _report(tested, chosen, runs, known, full)
        live.emit("end", exit_code=recorder.exit_code, findings=[], errors=[])
        return recorder.exit_code


@firmware.command("list")
def list_() -> None:
    """List the scenarios."""
    found = scenario.choose([])
    width = max((len(one.name) for one in found), default=0)
    for one in found:
        print(f"{one.name:<{width}}  {progress.one_line(one.title)}")
    print()
    names = sorted({name for one in found for name in one.machines})
    width = max(map(len, names), default=0)
    for name in names:
        print(f"{name:<{width}}  {machines.load_machine(name).title}")


@firmware.command()
@click.option("--stored", is_flag=True, help="Use only stored results: build and run nothing.")
@click.option("--into", type=options.file, help="By default docs/generated/exposure.md.")
def exposure(stored: bool, into: Path | None) -> None:
    """Write docs/generated/exposure.md: each scenario on each kernel of selftests/exposure.toml."""
    from iommuq.report.exposure import write_exposure

    write_exposure(into, stored_only=stored)


@firmware.command()
@click.option("--kernel", metavar="IMAGE|PACKAGE", help="By default that of the table.")
@click.option("--stored", is_flag=True, help="Use only stored answers: boot nothing.")
@click.option("--into", type=options.file, help="By default docs/generated/calibration.md.")
@options.again
def calibrate(kernel: str | None, stored: bool, into: Path | None, again: bool) -> None:
    """Write docs/generated/calibration.md: what the emulated IOMMUs do and do not do."""
    from iommuq.report.calibration import write_calibration

    if stored and again:
        raise UserError("--stored and --again exclude each other")
    write_calibration(into, kernel, again=again, stored_only=stored)


@firmware.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--classes",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Output of `lspci -Dn` of that machine, or its /sys/bus/pci/devices.",
)
def table(file: Path, classes: Path | None) -> None:
    """Explain the DMAR, IVRS or IORT table in FILE.

    FILE is for example a copy of /sys/firmware/acpi/tables/DMAR.  Prints which devices have
    which regions, and which of them VFIO and iommufd will refuse.
    """
    for line in explain(file, None if classes is None else pci.read(classes)):
        print(line)


#: Maximal lines of a message; the log has all of them.
_MESSAGE_LINES = 6
_ARCH = "x86_64"


def _split(words: Sequence[str], kernel: str | None) -> tuple[str, Sequence[str]]:
    """Return the base, and the scenarios."""
    bases = [spec.name for spec in list_specs()]
    if kernel is None and words and words[0] in bases:
        return words[0], words[1:]
    there_are = scenario.names()
    if kernel is None and words and words[0] not in there_are:
        raise UserError(
            f"{words[0]!r} is neither a base nor a scenario",
            hint=f"bases: {', '.join(bases)}; `iommuq firmware list` shows the scenarios",
        )
    return DEFAULT_BASE, words


def _report(
    tested: Tested,
    chosen: Sequence[Case],
    runs: Sequence[SuiteRun],
    known: KnownFailures,
    full: bool,
) -> int:
    verdicts: dict[str, Verdict] = {}
    for run in runs:
        verdicts |= judge_run(run, known, _ARCH)
    ran = ", ".join(sorted({run.accelerator for run in runs} - {""})) or "not started"
    print(f"{tested.title}, firmware scenarios under QEMU ({ran})")
    columns = _columns(chosen, runs, verdicts)
    table = build(columns if full else _shortened(columns))
    # The columns are machines, not steps: there are no changes between them.
    matrix.show(replace(table, changes=()))
    _print_messages(runs, verdicts)
    code, verdict = sum_up(f"{tested.subject.base} {tested.subject.patch}", verdicts.values())
    if code == EXIT_OK and set(verdicts.values()) == {Verdict.SKIPPED}:
        reasons = dict.fromkeys(result.message for run in runs for result in run.results)
        raise UserError(f"no scenario can be tested: {'; '.join(reasons)}")
    print(verdict)
    return code


def _columns(
    chosen: Sequence[Case], runs: Sequence[SuiteRun], verdicts: dict[str, Verdict]
) -> list[Column]:
    columns: dict[str, dict[str, Verdict]] = {}
    for case, run in zip(chosen, runs, strict=True):
        column = columns.setdefault(case.machine.name, {})
        for result in run.results:
            column[result.test.removeprefix(f"{case.machine.name}.")] = verdicts[result.test]
    return [Column(name, verdicts=column) for name, column in sorted(columns.items())]


def _shortened(columns: Sequence[Column]) -> list[Column]:
    """Return the columns with one row for a scenario that passes or is skipped on all machines."""
    seen: dict[str, set[Verdict]] = {}
    for column in columns:
        for test, verdict in column.verdicts.items():
            seen.setdefault(test.partition(".")[0], set()).add(verdict)
    plain = {name for name, found in seen.items() if found <= {Verdict.OK, Verdict.SKIPPED}}
    short = []
    for column in columns:
        verdicts: dict[str, Verdict] = {}
        for test, verdict in column.verdicts.items():
            name = test.partition(".")[0]
            if name not in plain:
                verdicts[test] = verdict
            elif verdicts.get(name) is not Verdict.OK:
                verdicts[name] = verdict
        short.append(replace(column, verdicts=verdicts))
    return short


def _print_messages(runs: Sequence[SuiteRun], verdicts: dict[str, Verdict]) -> None:
    """Print the messages of checks that failed or have no verdict, each once per log."""
    told: set[tuple[str, str]] = set()
    for run in runs:
        for result in run.results:
            verdict = verdicts[result.test]
            if verdict in (Verdict.OK, Verdict.SKIPPED, Verdict.KNOWN):
                continue
            print(f"{verdict.word:<15} {progress.one_line(result.test)}")
            if (result.message, result.log) not in told:
                told.add((result.message, result.log))
                live.print_message(result, _MESSAGE_LINES)
