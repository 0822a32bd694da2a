# SPDX-License-Identifier: GPL-2.0-only
"""Run suites side by side, with a Ctrl-C that ends them all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

from iommuq import groups

#: GiB that a guest and what is around it may take.
_GUEST_MEMORY = 4.0


def workers() -> int:
    """Return how many guests this machine can run at once."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return max(1, min(len(os.sched_getaffinity(0)), int(memory / _GUEST_MEMORY)))


@contextlib.contextmanager
def pool(size: int | None = None) -> Iterator[Executor]:
    """Return an executor whose threads, and what they started, end with the block.

    :param size: threads; by default `workers`.
    """
    executor = ThreadPoolExecutor(size or workers(), thread_name_prefix="iommuq")
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        with groups.end_other_threads():
            executor.shutdown(wait=True)
        raise
    executor.shutdown()
