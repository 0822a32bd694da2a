# SPDX-License-Identifier: GPL-2.0-only
"""Find the first patch that breaks a test, by bisection.  Cached builds and runs are reused."""

from __future__ import annotations

from collections.abc import Sequence

from iommuq.proof.lanes import Lane
from iommuq.queue.steps import Step
from iommuq.results.known import Verdict
from iommuq.system import progress
from iommuq.system.errors import InfraError, UserError, VerdictError

_GOOD = (Verdict.OK, Verdict.UNEXPECTED_PASS)


def lane_of(lanes: Sequence[Lane], test: str) -> tuple[Lane, str]:
    """Return the lane of a test, and its name there.

    :param test: ``<lane>.<test>``.
    :raises UserError: no lane has that name.
    """
    for lane in lanes:
        name = test.removeprefix(f"{lane.name}.")
        if name != test:
            return lane, name
    raise UserError(
        f"{test!r} does not begin with a suite",
        hint="give it as in the table: " + ", ".join(f"{lane.name}.…" for lane in lanes),
    )


def first_failing(steps: Sequence[Step], lane: Lane, test: str) -> Step | None:
    """Return the first step where a test fails; None if it passes at the last.

    :param test: its name in the lane.
    :raises UserError: the last step has no such test.
    :raises InfraError: a step gives no verdict.
    """
    if _passes(steps[-1], lane, test, last=True):
        return None
    # A step without the test counts as good.
    good, bad = -1, len(steps) - 1
    while bad - good > 1:
        middle = (good + bad) // 2
        if _passes(steps[middle], lane, test, last=False):
            good = middle
        else:
            bad = middle
    return steps[bad]


def _passes(step: Step, lane: Lane, test: str, *, last: bool) -> bool:
    try:
        run = lane.run(lane.image(step), step)
    except VerdictError as error:
        progress.note(str(error))
        return False  # A step that does not build counts as bad.
    verdict = lane.judge(run).get(test)
    if verdict is None and last:
        raise UserError(
            f"{step.label} has no test {test!r}", hint=f"{lane.title} has {len(run.results)}"
        )
    if verdict is Verdict.ERROR:
        raise InfraError(f"{step.label}: {test}: no verdict", hint="run this test alone")
    progress.note(f"{step.label}: {test}: {verdict.value if verdict else 'no such test'}")
    return verdict in _GOOD or verdict is None or verdict is Verdict.SKIPPED
