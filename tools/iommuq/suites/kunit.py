# SPDX-License-Identifier: GPL-2.0-only
"""Run the KUnit suites of an image, with the kunit.py of its tree, which the image contains."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from iommuq.build.image import Image
from iommuq.defaults import KUNIT_LIMIT
from iommuq.guests.boot import CONSOLE_LIMIT
from iommuq.results.console import ktap, splats, stacks
from iommuq.results.store import Complaint, Result, Status, Store, SuiteRun, new_id
from iommuq.system import files, progress
from iommuq.system.errors import CommandTimeout, ToolMissing, TooMuchOutput, UserError
from iommuq.system.files import cache_dir, hash_of
from iommuq.system.logtext import LINES, lines_of
from iommuq.system.run import run, tail
from iommuq.system.temporary import temporary_folder

SUITE = "kunit"
#: Seconds after the limit until kunit.py is killed.
_GRACE = 15.0
#: Part of every key; raise it when logs are read in another way.
_GENERATION = "1"
#: Lines of the console that the message of a lost guest quotes.
_TAIL = 12
#: Kernel output that the user's locale cannot encode must not stop kunit.py.
_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "PYTHONIOENCODING": "utf-8:backslashreplace",
    # The image has no files but those that were built.
    "PYTHONDONTWRITEBYTECODE": "1",
}
_WORST = (Status.ERROR, Status.FAIL, Status.PASS, Status.SKIP)
#: The case that is an error when the log is incomplete.
LOG_CASE = "kernel.log_is_whole"
#: The case that fails when there is a splat outside of every case.
SPLAT_CASE = "kernel.no_splat_outside_of_cases"


class NoSuchCase(UserError):
    """A filter matches no case of the kernel."""


@dataclass(frozen=True)
class Subject:
    """The names of what is tested: base, label of the step, release of the kernel."""

    base: str
    patch: str
    kernel: str


def run_kunit(
    image: Image,
    subject: Subject,
    *,
    filters: Sequence[str] = (),
    limit: float = KUNIT_LIMIT,
    store: Store | None = None,
    again: bool = False,
    environment: Mapping[str, str] | None = None,
    suite: str = SUITE,
) -> SuiteRun:
    """Run the suites, or take the results from the store if nothing changed.

    :param filters: globs ``suite`` or ``suite.case``, one boot for each; empty: all suites.
    :param limit: seconds for one boot.
    :param again: run even if the store has the results.
    :param environment: further environment variables for kunit.py and a UML guest.
    :param suite: the name of the suite in results.
    :return: a complete run, whose results may be errors.
    :raises NoSuchCase: a filter matches no case.
    :raises ToolMissing: a tool that boots the image is not installed.
    """
    store = store or Store()
    for tool in image.arch.needs:
        if shutil.which(tool) is None:
            raise ToolMissing(
                f"{tool} is not installed, kernels for {image.arch.name} need it",
                hint="`iommuq doctor` names the package",
            )
    key = run_key(image, filters, suite)
    found = None if again else store.find(key)
    # An error is no verdict on the kernel, so the suites run again.
    if found is not None and not found.has_errors:
        return renamed(found, subject)
    started = time.time()
    current = SuiteRun(
        new_id(started), subject.base, subject.patch, suite, key, subject.kernel,
        image.arch.guest, image.arch.accelerator, started, image=image.check(),
    )  # fmt: skip
    store.begin(current)
    results: list[Result] = []
    found_splats: list[Complaint] = []
    for glob in filters or ("",):
        some, complaints = _boot(image, current, glob, limit, environment or {})
        results += some
        found_splats += complaints
    found_splats = stacks.decoded(found_splats, image.folder / image.arch.image)
    return store.finish(current, _merged(results), splats=found_splats)


def run_key(image: Image, filters: Sequence[str] = (), suite: str = SUITE) -> str:
    """Return the content key of all that the results depend on."""
    return hash_of(_GENERATION, image.key, suite, *filters)


def renamed(found: SuiteRun, subject: Subject) -> SuiteRun:
    """Return a stored run as one of *subject*: several steps may have the same image."""
    base, patch = subject.base, subject.patch
    results = tuple(replace(result, base=base, patch=patch) for result in found.results)
    return replace(found, base=base, patch=patch, results=results)


def _boot(
    image: Image, current: SuiteRun, glob: str, limit: float, environment: Mapping[str, str]
) -> tuple[list[Result], list[Complaint]]:
    log = files.new_log(f"{current.suite}-{current.base}-{image.arch.name}-{current.patch}")
    boots = cache_dir() / "boots"
    boots.mkdir(parents=True, exist_ok=True)
    title = f"KUnit's {glob}" if current.suite != SUITE else "KUnit"
    with (
        progress.task(f"Running {title} on {current.base} {current.patch}", log=log) as step,
        temporary_folder("kunit", boots) as folder,
    ):
        cases = 0

        def on_line(line: str) -> None:
            nonlocal cases
            if line.lstrip().startswith(("ok ", "not ok ")):
                cases += 1
                step.update(done=cases, note=line.strip())

        reason = ""
        try:
            done = run(
                [
                    *(sys.executable, "tools/testing/kunit/kunit.py", "exec"),
                    *("--arch", image.arch.make_arch),
                    *("--build_dir", _lay_out(image, folder)),
                    f"--timeout={limit:.0f}",
                    "--raw_output=all",
                    *([glob] if glob else []),
                ],
                cwd=image.folder,
                env={**_ENVIRONMENT, **environment},
                timeout=limit + _GRACE,
                log_path=log,
                on_line=on_line,
                most=CONSOLE_LIMIT,
                check=False,
                watched=True,
            )
            output = done.output
            if done.returncode != 0:
                reason = f"kunit.py ended with {done.returncode}"
        except (CommandTimeout, TooMuchOutput) as error:
            output = log.read_text(errors="backslashreplace")
            reason = error.what
        if "timed out after" in output and "Command" in output:
            reason = f"the kernel did not end within {limit:g} s"
        if output.count("\n") > LINES:
            reason = f"the kernel wrote more than {LINES} lines"
    return _results(current, glob, output, reason, log), _complaints(output, log)


def _merged(results: Sequence[Result]) -> list[Result]:
    """Return one result a test, the worst of all boots: each boot has those of the whole log."""
    found: dict[str, Result] = {}
    for result in results:
        before = found.setdefault(result.test, result)
        if _WORST.index(result.status) < _WORST.index(before.status):
            found[result.test] = result
    return list(found.values())


def _lay_out(image: Image, folder: Path) -> str:
    """Make a build directory for kunit.py, and return its path."""
    image.check()
    target = folder / image.arch.image
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(image.folder / image.arch.image)
    shutil.copy2(image.folder / ".kunitconfig", folder / ".kunitconfig")
    return str(folder)


def _complaints(output: str, log: Path) -> list[Complaint]:
    lines = lines_of(output)
    found = splats.find(lines)
    return stacks.complaints(ktap.parse(lines), found, splats.expected(lines), log)


def _results(current: SuiteRun, glob: str, output: str, reason: str, log: Path) -> list[Result]:
    lines = lines_of(output)
    report = ktap.parse(lines)
    report, loose = splats.fail_cases(report, splats.find(lines), splats.expected(lines))

    def result(test: str, status: Status, message: str, duration: float = 0.0) -> Result:
        return Result(
            current.base, current.patch, current.suite, test, status, duration, message, str(log)
        )

    if not report.tests:
        if glob and "1..0" in output:
            raise NoSuchCase(
                f"no case matches {glob!r}",
                hint="a filter is suite or suite.case, with * and ?; without one all suites run",
            )
        why = reason or "the kernel ended without running a test"
        return [result("kernel.boots", Status.ERROR, f"guest lost: {why}\n{tail(output, _TAIL)}")]
    results = []
    for case in report.tests:
        message = case.message
        if case.status is Status.ERROR:
            message = "\n".join(filter(None, [message, reason, tail(output, _TAIL)]))
        results.append(result(case.name, case.status, message, case.duration or 0.0))
    failed = any(case.status is Status.ERROR for case in report.tests)
    if (report.problems or reason) and not failed:
        # The log is incomplete, or the kernel did not end: tests may be missing.
        problems = "\n".join(filter(None, [*report.problems, reason, tail(output, _TAIL)]))
        results.append(result(LOG_CASE, Status.ERROR, problems))
    text = "\n".join(splat.text for splat in loose)
    results.append(result(SPLAT_CASE, Status.FAIL if loose else Status.PASS, text))
    return results
