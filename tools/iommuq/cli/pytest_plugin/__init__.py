# SPDX-License-Identifier: GPL-2.0-only
"""A plugin for pytest: ``pytest kunit selftests --iommu-base 6.12``.

Every pytest of the environment loads it: without its options it imports and does nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from iommuq.defaults import GUESTS, SUITES
from iommuq.system.logtext import escape

if TYPE_CHECKING:
    from iommuq.cli.pytest_plugin.lanes import Options, Outcome

#: Key of the shared directory in the input of a worker of xdist.
_SHARED = "iommuq_shared"
_FOLDER = pytest.StashKey[Path]()
_OPTIONS = pytest.StashKey["Options"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("iommuq", "tests of a kernel, in kunit/ and selftests/")
    group.addoption("--iommu-base", metavar="BASE", help="Run them on this base, such as 6.12.")
    group.addoption("--iommu-at", metavar="PATCH", help="Stop at this patch of its queue.")
    group.addoption("--iommu-arch", metavar="ARCH", default="um", help="KUnit for um or x86_64.")
    group.addoption(
        "--iommu-on", choices=tuple(GUESTS), default="qemu", help="Where selftests run."
    )
    group.addoption(
        "--iommu-config", metavar="NAME", action="append", default=[],
        help="KUnit with kunit/configs/NAME.config, such as debug.",
    )  # fmt: skip
    group.addoption(
        "--iommu-kernel", metavar="IMAGE|PACKAGE",
        help="Firmware scenarios on this kernel, and not on a base.",
    )  # fmt: skip
    group.addoption(
        "--iommu-again", action="store_true", help="Run even if nothing changed since the last run."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Check the options before anything is collected."""
    for name, meaning in SUITES.items():
        config.addinivalue_line("markers", f"{name}: {meaning} (iommuq)")
    if config.option.iommu_base is None and config.option.iommu_kernel is None:
        return
    from iommuq.system.errors import UserError
    from iommuq.system.git.command import leave_hook

    leave_hook()

    try:
        config.stash[_OPTIONS] = _options(config.option)
    except UserError as error:
        raise pytest.UsageError(str(error)) from error
    workerinput = getattr(config, "workerinput", None)
    if workerinput is not None:
        config.stash[_FOLDER] = Path(workerinput[_SHARED])
    else:
        from iommuq.system.temporary import temporary_folder

        stack = contextlib.ExitStack()
        config.add_cleanup(stack.close)
        config.stash[_FOLDER] = stack.enter_context(temporary_folder("pytest"))
    from iommuq.cli.pytest_plugin.lanes import Lanes
    from iommuq.cli.pytest_plugin.nodes import LANES
    from iommuq.system import progress

    # No live lines: pytest has its own display, and workers have no terminal.
    progress.configure(quiet=config.get_verbosity() < 0, plain=True)
    config.stash[LANES] = Lanes(config.stash[_OPTIONS], config.stash[_FOLDER])


def _options(given: Any) -> Options:
    from iommuq.bases.basefile import load_spec
    from iommuq.cli.pytest_plugin.lanes import Options
    from iommuq.defaults import DEFAULT_BASE
    from iommuq.queue.model import find_step, load_queue
    from iommuq.system import arches

    if given.iommu_base is None:
        return Options(DEFAULT_BASE, kernel=given.iommu_kernel, again=given.iommu_again)
    spec = load_spec(given.iommu_base)
    arches.get(given.iommu_arch)
    if given.iommu_at is not None:
        find_step(load_queue(spec.folder, spec.name), given.iommu_at)
    return Options(
        given.iommu_base, given.iommu_at, given.iommu_arch, given.iommu_on,
        tuple(given.iommu_config), given.iommu_kernel, given.iommu_again,
    )  # fmt: skip


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Pass the shared directory to a worker of xdist."""
    if _FOLDER in node.config.stash:
        node.workerinput[_SHARED] = str(node.config.stash[_FOLDER])


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Return the node of a file with kernel tests."""
    options = parent.config.stash.get(_OPTIONS, None)
    if options is None:
        return None
    from iommuq.cli.pytest_plugin.nodes import file_node
    from iommuq.system.files import project_root

    return file_node(file_path, parent, options, project_root())


def pytest_collection_finish(session: pytest.Session) -> None:
    """Store the selected tests: a lane runs no others."""
    if _OPTIONS not in session.config.stash:
        return
    from iommuq.cli.pytest_plugin.nodes import LANES, KernelItem

    selected: dict[str, set[str]] = {}
    for item in session.items:
        if isinstance(item, KernelItem):
            selected.setdefault(item.lane, set()).add(item.name)
    session.config.stash[LANES].selected = selected


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Set the place of a skip, and the duration from the kernel."""
    report = yield
    if _OPTIONS in item.config.stash:
        from iommuq.cli.pytest_plugin.nodes import KernelItem

        if isinstance(item, KernelItem):
            if report.skipped and isinstance(report.longrepr, tuple):
                report.longrepr = (*item.place, report.longrepr[2])
            if report.failed and call.excinfo is not None:
                # pytest calls it only for the phase "call".
                report.longrepr = item.repr_failure(call.excinfo)
            if call.when == "call" and item.result_duration:
                report.duration = item.result_duration
    return report


def _outcomes(config: pytest.Config) -> list[Outcome]:
    """Return the outcomes of the lanes; none in a worker of xdist."""
    if _FOLDER not in config.stash or hasattr(config, "workerinput"):
        return []
    from iommuq.cli.pytest_plugin.lanes import LANES, Outcome
    from iommuq.system.tables import load_json

    found = (load_json(Outcome, config.stash[_FOLDER] / f"{lane}.json") for lane in LANES)
    return [outcome for outcome in found if outcome is not None]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail if something outside the selected tests failed."""
    if any(one.aside for one in _outcomes(session.config)) and session.exitstatus in (
        pytest.ExitCode.OK,
        pytest.ExitCode.NO_TESTS_COLLECTED,
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Report the kernels, and failures outside the selected tests."""
    say = terminalreporter
    outcomes = _outcomes(config)
    if not outcomes:
        _hint(say, config)
        return
    say.section("kernels", "-")
    for one in outcomes:
        if one.title:
            say.line(f"{one.title}: {len(one.told)} results")
        if one.extra:
            say.line(f"  ran, but not collected: {', '.join(one.extra)}", yellow=True)
        for told in one.aside:
            say.line(f"  {told.verdict}, not selected: {told.test}", red=True)
            for line in told.message.splitlines():
                say.line(f"    {escape(line).rstrip()}")


def _hint(say: pytest.TerminalReporter, config: pytest.Config) -> None:
    if _OPTIONS in config.stash or hasattr(config, "workerinput"):
        return
    names = {Path(word.partition("::")[0]).parts[:1] for word in config.args}
    if names & {("kunit",), ("selftests",)}:
        say.line("kunit and selftests need a kernel: add --iommu-base 6.12", yellow=True)
