# SPDX-License-Identifier: GPL-2.0-only
"""The pytest nodes of kernel tests: files, and tests in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from iommuq.cli.pytest_plugin import inventory
from iommuq.cli.pytest_plugin.inventory import Found
from iommuq.cli.pytest_plugin.lanes import Lanes, Options, Outcome, Told
from iommuq.results.known import Verdict
from iommuq.system.errors import IommuqError
from iommuq.system.logtext import escape

#: Key in the stash of the configuration.
LANES = pytest.StashKey[Lanes]()

# The verdict of a test with several results is the first of these.
_WORST = (
    Verdict.FAILED, Verdict.UNEXPECTED_PASS, Verdict.EXPIRED, Verdict.FLAKY, Verdict.ERROR,
    Verdict.KNOWN, Verdict.OK, Verdict.SKIPPED,
)  # fmt: skip


class KernelFailure(Exception):
    """A test failed; the text is from the kernel."""


class NoVerdict(Exception):
    """No verdict on the test, because of an error of the machine."""


class KernelFile(pytest.File):
    """A file with tests of one lane."""

    lane: str
    found: Callable[[], Iterable[Found]]

    @classmethod
    def make(
        cls, parent: pytest.Collector, path: Path, lane: str, found: Callable[[], Iterable[Found]]
    ) -> KernelFile:
        """Make the node of a file; *found* is called when its tests are collected."""
        made: KernelFile = cls.from_parent(parent, path=path)
        made.lane, made.found = lane, found
        made.add_marker(lane)
        return made

    def collect(self) -> Iterator[KernelItem]:
        """Yield a node for each test."""
        try:
            found = list(self.found())
        except IommuqError as error:
            raise self.CollectError(str(error)) from error
        for each in found:
            yield KernelItem.from_parent(self, name=each.test, found=each, lane=self.lane)


class KernelItem(pytest.Item):
    """One kernel test."""

    def __init__(self, *, found: Found, lane: str, **rest: Any) -> None:
        super().__init__(**rest)
        self.found = found
        self.lane = lane
        self.told: list[Told] = []
        #: Seconds, reported by the kernel.
        self.result_duration = 0.0
        #: File and line for a skip.
        self.place = (str(self.path), found.line or 1)

    def setup(self) -> None:
        """Run the lane if it has not run yet; failures other than the kernel's are errors."""
        outcome = self._outcome()
        if outcome.kind in ("user", "infra"):
            raise NoVerdict(outcome.failure)
        self.told = outcome.of(self.name)
        trouble = self._trouble(outcome)
        if trouble is not None:
            raise NoVerdict(_text([trouble]))

    def _outcome(self) -> Outcome:
        lanes = self.config.stash[LANES]
        if not lanes.ran(self.lane):
            plugins = self.config.pluginmanager
            terminal = plugins.getplugin("terminalreporter")
            if terminal is not None:
                terminal.ensure_newline()
            # Show the progress: a lane may take minutes.
            with plugins.getplugin("capturemanager").global_and_fixture_disabled():
                return lanes.outcome(self.lane)
        return lanes.outcome(self.lane)

    def _trouble(self, outcome: Outcome) -> Told | None:
        worst = self._worst()
        if worst is None:
            trouble = outcome.trouble(self.name)
            lost = trouble is not None and trouble.verdict == Verdict.ERROR.value
            return trouble if lost else None
        return next(
            (one for one in self.told if Verdict(one.verdict) is worst is Verdict.ERROR), None
        )

    def _worst(self) -> Verdict | None:
        verdicts = {Verdict(one.verdict) for one in self.told}
        return next((verdict for verdict in _WORST if verdict in verdicts), None)

    def runtest(self) -> None:
        """Report the result of the kernel."""
        outcome = self.config.stash[LANES].outcome(self.lane)
        if outcome.kind:
            raise KernelFailure(outcome.failure)
        worst = self._worst()
        if worst is None:
            self._did_not_run(outcome)
            return
        self.result_duration = sum(one.duration for one in self.told)
        those = [one for one in self.told if Verdict(one.verdict) is worst]
        match worst:
            case Verdict.OK:
                return
            case Verdict.SKIPPED:
                pytest.skip(_words(those[0].message) or "skipped by the kernel")
            case Verdict.KNOWN:
                pytest.xfail(those[0].reason)
            case Verdict.UNEXPECTED_PASS:
                raise KernelFailure(f"passes, but is listed as known: {those[0].reason}")
            case Verdict.EXPIRED:
                raise KernelFailure(f"the known failure has expired: {those[0].reason}")
            case _:
                raise KernelFailure(_text(those))

    def _did_not_run(self, outcome: Outcome) -> None:
        trouble = outcome.trouble(self.name)
        if trouble is not None and trouble.verdict == Verdict.SKIPPED.value:
            pytest.skip(_words(trouble.message))
        if trouble is not None:
            raise KernelFailure(_text([trouble]))
        if self.found.condition:
            # The same place for all: pytest reports them in one line.
            self.place = (str(self.path), 1)
            pytest.skip(f"not in this kernel: {self.found.condition}")
        raise KernelFailure("the kernel did not run it, no #if in the source excludes it")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the text from the kernel, without a traceback."""
        if isinstance(excinfo.value, KernelFailure | NoVerdict):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return file, line and name of the test."""
        return self.path, self.found.line - 1 if self.found.line else None, self.name


def _text(those: Sequence[Told]) -> str:
    """Return the messages, safe for any terminal."""
    lines = []
    for one in those:
        if len(those) > 1:
            lines.append(f"{one.test}:")
        lines += one.message.splitlines() or ["failed without a message"]
    lines += [f"full log: {log}" for log in dict.fromkeys(one.log for one in those) if log]
    return "\n".join(escape(ln).rstrip() for ln in lines)


def _words(text: str) -> str:
    return " ".join(text.split())


def file_node(
    path: Path, parent: pytest.Collector, options: Options, root: Path
) -> KernelFile | None:
    """Return the node of a file; None if it has no kernel tests.

    :param root: the checkout.
    """
    if not path.is_relative_to(root):
        return None
    place = path.relative_to(root)
    here = place.parts[0]
    if place.parent == Path("selftests/scenarios") and path.suffix == ".toml":
        return KernelFile.make(parent, path, "firmware", lambda: inventory.checks(path.stem))
    if options.kernel is not None:
        # A foreign kernel has no other tests.
        return None
    if here in inventory.KUNIT_FOLDERS and path.suffix == ".c":
        option = inventory.KUNIT_FOLDERS[here]
        return KernelFile.make(parent, path, "kunit", lambda: inventory.kunit_cases(path, option))
    if place == inventory.KUNIT_WHOLE:
        return KernelFile.make(parent, path, "kunit", inventory.kunit_whole)
    if place == inventory.SELFTEST_WHOLE:
        base, at = options.base, options.at
        return KernelFile.make(
            parent, path, "selftest", lambda: inventory.selftest_whole(root, base, at)
        )
    suite = inventory.own_programs(root).get(path) if here == "selftests" else None
    if suite is None:
        return None
    return KernelFile.make(
        parent,
        path,
        "selftest",
        lambda: inventory.program_cases(suite.name, path.read_text("utf-8", "replace")),
    )
