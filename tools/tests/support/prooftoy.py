# SPDX-License-Identifier: GPL-2.0-only
"""A whole proof of a toy queue, on lanes whose results are written down."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from typing import Any

from iommuq.proof import flakes, promises
from iommuq.proof.prove import Proof, conclude, prove
from iommuq.queue.model import Queue
from iommuq.results.store import Store
from lanes_toy import ToyLane, steps


class Inline(Executor):
    """Run what is submitted at once: another executor than that of threads."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def lane(store: Store, name: str = "kunit", **tests: str) -> ToyLane:
    """Make a lane of a queue with two patches: for each test a word of letters a step."""
    labels = ("baseline", "0001", "0002")
    says = {
        label: {test: words.split()[number] for test, words in tests.items()}
        for number, label in enumerate(labels)
    }
    return ToyLane(says, store, name)


def promise(toy: Queue, text: str) -> None:
    (toy.folder / promises.NAME).write_text(text)


GOOD = """
[[patch]]
name = "s/0001"
fixes = ["kunit.s.a"]
[[patch]]
name = "0002"
reason = "a clean-up"
"""


def proven(
    toy: Queue, lanes: Sequence[ToyLane], *, executor: Executor | None = None, strict: bool = True
) -> Proof:
    outcomes = prove(steps(toy), lanes, executor or Inline())
    outcomes = flakes.settle(outcomes, lanes, executor or Inline(), lanes[0].store)
    return conclude(outcomes, lanes, toy, strict=strict)
