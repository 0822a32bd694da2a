# SPDX-License-Identifier: GPL-2.0-only
"""The real lane of the queue's upkeep: the queue of 6.12 against real kernels."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from realrun import iommuq
from upstreamcases import Case, Measure, Versions

from iommuq import basefile, bases
from iommuq.objects import Store
from iommuq.targets import TreeTarget

pytestmark = pytest.mark.real

#: Files whose changes from 6.12 to 7.3 are taken for patches.
FILES = (
    "drivers/iommu/iommu.c",
    "drivers/iommu/intel/iommu.c",
    "drivers/iommu/amd/iommu.c",
    "drivers/iommu/dma-iommu.c",
    "include/linux/iommu.h",
)


def plain(name: str, where: Path) -> TreeTarget:
    base = bases.open_base(basefile.load_spec(name))
    return TreeTarget(Store(base.git_dir, where), base.commit)


def verdicts(against: str) -> dict[str, str]:
    """Return the verdict on each patch of 6.12, by the end of its name."""
    begin = time.monotonic()
    done = iommuq("queue", "upstream", "6.12", "--against", against, "--json")
    assert done.returncode == 0, done.stderr
    print(f"{against}: {time.monotonic() - begin:.1f} s")
    patches = json.loads(done.stdout)["patches"]
    return {patch["patch"][:16]: patch["verdict"] for patch in patches}


def test_resv_direct_is_in_7_3() -> None:
    found = verdicts("7.3")
    assert found["resv-direct/0001"] == "present with drift"
    assert found["resv-direct/0002"] == "present with drift"
    assert found["mock/0001-iommuf"] == "absent"


def test_resv_direct_is_in_plain_6_12() -> None:
    """Written anew, the core's patch differs; what VT-d lost is lost to the line."""
    found = verdicts("6.12")
    assert found["resv-direct/0001"] == "present with drift"
    assert found["resv-direct/0002"].startswith("present")
    assert found["mock/0001-iommuf"] == "absent"


def test_measure_on_real_changes(tmp_path: Path) -> None:
    """Changes of two years, as patches, against trees with and without each of them."""
    old, new = plain("6.12", tmp_path), plain("7.3", tmp_path)
    choice = random.Random(3)

    def cases() -> Iterator[Case]:
        for path in FILES:
            texts = [tree.read(path) for tree in (old, new)]
            versions = Versions(path, *(text.decode() for text in texts if text is not None))
            for number in choice.sample(range(len(versions.changes)), 5):
                yield from versions.cases(number)

    measure = Measure.of(cases())
    print(measure)
    assert measure.there + measure.not_there >= 100
    assert len(measure.false) <= 0.02 * measure.not_there, measure.false
    assert len(measure.missed) <= 0.15 * measure.there, measure.missed
