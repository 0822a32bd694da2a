# SPDX-License-Identifier: GPL-2.0-only
"""What pytest sees of the tests of a kernel: files with tests in them."""

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

#: Set by the plugin, in the stash of a session's configuration.
LANES = pytest.StashKey[Lanes]()

# The first of these that a test with several results has is that of the test.
_WORST = (
    Verdict.FAILED, Verdict.UNEXPECTED_PASS, Verdict.EXPIRED, Verdict.FLAKY, Verdict.ERROR,
    Verdict.KNOWN, Verdict.OK, Verdict.SKIPPED,
)  # fmt: skip


class KernelFailure(Exception):
    """A test failed; the text is what the kernel says."""


class NoVerdict(Exception):
    """The machine is at fault, and nobody knows about the test."""


class KernelFile(pytest.File):
    """A file that tests of one lane are in."""

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
    """One test that a kernel runs."""

    def __init__(self, *, found: Found, lane: str, **rest: Any) -> None:
        super().__init__(**rest)
        self.found = found
        self.lane = lane
        self.told: list[Told] = []
        #: Seconds that the kernel says it took.
        self.result_duration = 0.0
        #: What a skip is told to come from: file and line.
        self.place = (str(self.path), found.line or 1)

    def setup(self) -> None:
        """Have the lane run, unless it has; what failed but the kernel is an error."""
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
            # It may take minutes: the user shall see how far it is.
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
        """Say what the kernel said."""
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
                raise KernelFailure(f"the list's entry is past its date: {those[0].reason}")
            case _:
                raise KernelFailure(_text(those))

    def _did_not_run(self, outcome: Outcome) -> None:
        trouble = outcome.trouble(self.name)
        if trouble is not None and trouble.verdict == Verdict.SKIPPED.value:
            pytest.skip(_words(trouble.message))
        if trouble is not None:
            raise KernelFailure(_text([trouble]))
        if self.found.condition:
            # With one place for all that a file lacks, they are told in one line.
            self.place = (str(self.path), 1)
            pytest.skip(f"this kernel has it not: {self.found.condition}")
        raise KernelFailure("the kernel did not run it, and nothing in the source says why")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show what the kernel said, and no line of Python."""
        if isinstance(excinfo.value, KernelFailure | NoVerdict):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Say where the test is."""
        return self.path, self.found.line - 1 if self.found.line else None, self.name


def _text(those: Sequence[Told]) -> str:
    """Return what the kernel said, safe for any terminal."""
    lines = []
    for one in those:
        if len(those) > 1:
            lines.append(f"{one.test}:")
        lines += one.message.splitlines() or ["it failed without a word"]
    lines += [f"full log: {log}" for log in dict.fromkeys(one.log for one in those) if log]
    return "\n".join("".join(c if c.isprintable() else " " for c in ln).rstrip() for ln in lines)


def _words(text: str) -> str:
    return " ".join(text.split())


def file_node(
    path: Path, parent: pytest.Collector, options: Options, root: Path
) -> KernelFile | None:
    """Return the node of a file, if it has tests of a kernel.

    :param root: the checkout.
    """
    try:
        place = path.relative_to(root)
    except ValueError:
        return None
    here = place.parts[0]
    if (
        here == "selftests"
        and place.parent == Path("selftests/scenarios")
        and path.suffix == ".toml"
    ):
        return KernelFile.make(parent, path, "firmware", lambda: inventory.checks(path.stem))
    if options.kernel is not None:
        # It is as it is: nothing of ours is in it.
        return None
    if here == "kunit" and path.suffix == ".c":
        return KernelFile.make(parent, path, "kunit", lambda: inventory.kunit_cases(path))
    if place == inventory.KUNIT_WHOLE:
        return KernelFile.make(parent, path, "kunit", inventory.kunit_whole)
    if place == inventory.SELFTEST_WHOLE:
        return KernelFile.make(
            parent,
            path,
            "selftest",
            lambda: inventory.selftest_whole(root, options.base, options.at),
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
