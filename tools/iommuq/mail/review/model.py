# SPDX-License-Identifier: GPL-2.0-only
"""The results of a review: the answer of the sandbox, and what it means for the series."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from iommuq.mail.review.fetch import Posted
from iommuq.mail.review.place import Place
from iommuq.queue.parse import Mail
from iommuq.system.errors import EXIT_INFRA, EXIT_OK, EXIT_VERDICT


@dataclass(frozen=True)
class Remark:
    """A finding of a check.

    :ivar text: one line; a leading number and colon name a line of the patch's mail.
    """

    status: str
    text: str
    where: str = ""


@dataclass(frozen=True)
class Checked:
    """The findings of one check about one patch."""

    check: str
    label: str
    findings: tuple[Remark, ...] = ()


@dataclass(frozen=True)
class Ran:
    """The results of one suite at one step.

    :ivar failure: why no kernel was built; None if one was.
    :ivar messages: the output of failed tests, by test.
    """

    label: str
    lane: str
    failure: str | None
    warnings: tuple[str, ...]
    passed: tuple[str, ...]
    failed: tuple[str, ...]
    skipped: tuple[str, ...]
    flaky: tuple[str, ...]
    unknown: tuple[str, ...]
    messages: dict[str, str]
    accelerator: str


@dataclass(frozen=True)
class Answer:
    """The answer of the sandbox; untrusted.

    :ivar lanes: name of a suite -> its title.
    """

    lanes: dict[str, str]
    compiler: str
    outcomes: tuple[Ran, ...]
    reports: tuple[Checked, ...]


@dataclass(frozen=True)
class Reviewed:
    """A series, and the results of its review.

    :ivar labels: of its steps, as in `Ran`; the first is the tree before the series.
    :ivar texts: the lines of each patch's mail, as findings count them.
    :ivar refusal: the number of the patch that does not apply, from 1, and why.
    :ivar trusted: it ran without a sandbox.
    """

    posted: Posted
    place: Place
    mails: tuple[Mail, ...]
    texts: tuple[tuple[str, ...], ...] = ()
    labels: tuple[str, ...] = ()
    answer: Answer | None = None
    refusal: tuple[int, str] | None = None
    trusted: bool = False
    seconds: float = 0.0
    logs: Path | None = None

    @property
    def names(self) -> dict[str, str]:
        """The name of each step: ``base``, ``1/2``, ``2/2``."""
        total = len(self.labels) - 1
        titles = ["base", *(f"{number}/{total}" for number in range(1, total + 1))]
        return dict(zip(self.labels, titles, strict=True))

    @property
    def clean(self) -> bool:
        """Whether it applies, builds without warnings, and breaks no test."""
        if self.answer is None or self.refusal is not None:
            return False
        good = all(
            ran.failure is None and not ran.warnings and not ran.flaky
            for ran in self.answer.outcomes
            if ran.label != self.labels[0]
        )
        return good and not any(change.broke for change in self.changes)

    @property
    def changes(self) -> list[SuiteChange]:
        """The effect of each patch on the tests of each suite."""
        if self.answer is None:
            return []
        found = []
        for lane in self.answer.lanes:
            ran = {each.label: each for each in self.answer.outcomes if each.lane == lane}
            # A step that does not build is left out of the comparison.
            before: Ran | None = None
            for label in self.labels:
                now = ran.get(label)
                if now is None or now.failure is not None:
                    continue
                if before is not None:
                    failed, passed = set(before.failed), set(before.passed)
                    fixed = [test for test in now.passed if test in failed]
                    broke = [test for test in now.failed if test in passed]
                    found.append(SuiteChange(label, lane, tuple(fixed), tuple(broke)))
                before = now
        return found


@dataclass(frozen=True)
class SuiteChange:
    """The effect of one patch on the tests of one suite."""

    label: str
    lane: str
    fixed: tuple[str, ...]
    broke: tuple[str, ...]


def exit_code(found: Reviewed) -> int:
    """Return the exit code for a review."""
    if found.answer is None or not found.clean:
        return EXIT_VERDICT
    unknown = any(outcome.unknown for outcome in found.answer.outcomes)
    return EXIT_INFRA if unknown else EXIT_OK
