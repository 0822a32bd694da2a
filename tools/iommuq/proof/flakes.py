# SPDX-License-Identifier: GPL-2.0-only
"""Find flaky tests, which pass and fail on the same image.

Unexpected results are run again.  Three runs must agree, or the test is flaky: no pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace

from iommuq.proof.lanes import Lane
from iommuq.proof.prove import Outcome
from iommuq.results.known import Verdict
from iommuq.results.store import Status, Store, SuiteRun

#: The number of runs that must agree.
AGREE = 3

_BAD = (Verdict.FAILED, Verdict.UNEXPECTED_PASS)


def settle(
    outcomes: Sequence[Outcome],
    lanes: Sequence[Lane],
    executor: Executor,
    store: Store | None = None,
) -> list[Outcome]:
    """Run doubtful tests again, and return the outcomes of `prove.prove` with flaky verdicts."""
    store = store or Store()
    by_name = {lane.name: lane for lane in lanes}
    doubts = [_doubtful(outcomes, number, store) for number in range(len(outcomes))]
    futures: list[Future[SuiteRun]] = []
    keys: dict[int, str] = {}
    for number, (outcome, tests) in enumerate(zip(outcomes, doubts, strict=True)):
        if not tests or outcome.run is None:
            continue
        lane = by_name[outcome.lane]
        image = lane.image(outcome.step)
        # Only in the guests that run these tests.
        asked = lane.narrowed(tests) or lane
        key = outcome.run.key if asked is lane else asked.run(image, outcome.step).key
        opinions = _opinions(store, key)
        keys[number] = key
        # After a difference AGREE new runs are needed.
        for _ in range(AGREE if _differing(opinions) else AGREE - len(opinions)):
            futures.append(executor.submit(asked.run, image, outcome.step, again=True))
    for future in futures:
        future.result()
    return [
        _marked(outcome, tests, store, keys[number]) if number in keys else outcome
        for number, (outcome, tests) in enumerate(zip(outcomes, doubts, strict=True))
    ]


def _doubtful(outcomes: Sequence[Outcome], number: int, store: Store) -> set[str]:
    """Return unexpected failures, at the last step or after a pass, and tests that differ."""
    outcome = outcomes[number]
    if outcome.run is None:
        return set()
    same_lane = [other for other in outcomes if other.lane == outcome.lane]
    at = same_lane.index(outcome)
    earlier = same_lane[at - 1].verdicts if at else {}
    bad = {
        test
        for test, verdict in outcome.verdicts.items()
        if verdict in _BAD and (outcome is same_lane[-1] or earlier.get(test) is Verdict.OK)
    }
    opinions = _opinions(store, outcome.run.key)
    return (bad if len(opinions) < AGREE else set()) | _differing(opinions)


def _opinions(store: Store, key: str) -> list[dict[str, Status]]:
    """Return the statuses of the latest runs of an image by test, without errors."""
    return [
        {r.test: r.status for r in other.results if r.status is not Status.ERROR}
        for other in store.history(key, AGREE)
    ]


def _differing(opinions: Sequence[dict[str, Status]]) -> set[str]:
    tests = {test for opinion in opinions for test in opinion}
    return {
        test
        for test in tests
        if len({opinion[test] for opinion in opinions if test in opinion}) > 1
    }


def _marked(outcome: Outcome, tests: set[str], store: Store, key: str) -> Outcome:
    flaky = tests & _differing(_opinions(store, key))
    verdicts = {
        test: Verdict.FLAKY if test in flaky else verdict
        for test, verdict in outcome.verdicts.items()
    }
    return replace(outcome, verdicts=verdicts, settled_by=key)


def logs(outcome: Outcome, test: str, store: Store | None = None) -> list[str]:
    """Return a log for each status of a flaky test, such as ``fail: /…/x.log``."""
    if outcome.run is None:
        return []
    found: dict[Status, str] = {}
    for run in (store or Store()).history(outcome.settled_by or outcome.run.key, AGREE):
        for result in run.results:
            if result.test == test:
                found.setdefault(result.status, result.log)
    return [f"{status.value}: {log}" for status, log in found.items()]
