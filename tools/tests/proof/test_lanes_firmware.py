# SPDX-License-Identifier: GPL-2.0-only
"""The firmware scenarios as a lane of a proof; nothing is built or booted."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from firmwareguests import made_run
from iommuq.build.image import Image
from iommuq.build.workspace import Workspace
from iommuq.cli.commands import mutate
from iommuq.firmware import scenario
from iommuq.firmware.kernels import Kernel
from iommuq.firmware.scenario import Known
from iommuq.proof import lanes
from iommuq.proof.lanes import FirmwareLane
from iommuq.results.known import KnownFailures, Verdict
from iommuq.results.store import Run, Status, Store
from iommuq.suites.firmware.cases import Case, cases, run_key
from iommuq.suites.firmware.subjects import known_failures
from iommuq.suites.kunit import Subject
from lanes_toy import queue, steps

KERNEL = Kernel("toy 0001", "6.12", "", Path("/x"), (), None, "key")
MARK = Known(
    "claim_refused",
    ("toy",),
    "read",
    "https://example.org",
    datetime.date(2999, 1, 1),
    until="s/0001",
)


def open_lane(tmp_path: Path) -> FirmwareLane:
    """Return a lane of one scenario on two machines; a check of it is known to fail at first."""
    marked = replace(scenario.load("claim-group"), known=(MARK,))
    object.__setattr__(marked, "name", "claim-group")
    toy = SimpleNamespace(
        base=SimpleNamespace(spec=SimpleNamespace(name="toy"), kernel="6.12"),
        queue=queue(tmp_path, "0001-a", "0002-b"),
    )
    chosen = tuple(cases([marked], ["q35-amd", "q35-intel"]))
    return FirmwareLane(cast(Workspace, toy), chosen, known_failures([marked]))


def test_all_cases_are_one_run_judged_by_the_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = open_lane(tmp_path)

    def run(
        kernel: Kernel, wanted: Sequence[Case], subject: Subject, *, store: object, again: bool
    ) -> list[Run]:
        assert (kernel, again) == (KERNEL, True)
        assert isinstance(store, Store)
        special = {"claim_refused": (Status.FAIL, "claimed")}
        return [made_run(case, subject, special) for case in wanted]

    monkeypatch.setattr(lanes, "run_scenarios", run)
    monkeypatch.setattr(lanes, "from_image", lambda *_words: KERNEL)
    monkeypatch.setattr(lanes, "run_key", lambda _kernel, case: case.name)
    _baseline, first, _second = steps(lane.workspace.queue)
    for step, verdict in ((_baseline, Verdict.KNOWN), (first, Verdict.FAILED)):
        found = lane.run(cast(Image, None), step, again=True)
        judged = lane.judge(found)
        assert found.patch == step.label
        assert len(judged) == sum(len(one.scenario.checks(one.machine.name)) for one in lane.cases)
        refused = {test: one for test, one in judged.items() if test.endswith(".claim_refused")}
        assert refused == {
            "q35-amd.claim-group.claim_refused": verdict,
            "q35-intel.claim-group.claim_refused": verdict,
        }
        # A proof finds it again by its own key, whole.
        again = Store().find(lane.run_key(cast(Image, None)))
        assert again is not None
        assert len(again.results) == len(judged)
        others = {one for test, one in judged.items() if test not in refused}
        assert others == {Verdict.OK}


def test_the_lane_has_every_scenario() -> None:
    lane = FirmwareLane.open(cast(Workspace, None))
    assert {one.scenario.name for one in lane.cases} == set(scenario.names())
    # One kernel is for all of them.
    assert {one.machine.config for one in lane.cases} == {lane.cases[0].machine.config}


def test_machines_that_run_a_file() -> None:
    """The real ones: each driver is that of some machine, and the core is everybody's."""
    lane = FirmwareLane(cast(Workspace, None), tuple(cases(scenario.choose([]))), KnownFailures())
    names = {case.machine.name for case in lane.cases}

    def those(path: str) -> set[str]:
        return {name for name in names if lane.runs_file(f"{name}.release.no_splat", path)}

    assert those("drivers/iommu/amd/iommu.c") == {"q35-amd"}
    assert those("drivers/iommu/intel/iommu.c") == {"q35-intel", "q35-intel-scalable"}
    assert those("drivers/iommu/virtio-iommu.c") == {"q35-virtio"}
    assert those("drivers/iommu/iommu.c") == those("kernel/fork.c") == names


@pytest.mark.parametrize(
    ("tests", "left"),
    [
        (["q35-intel.claim-group.no_splat"], ["q35-intel.claim-group"]),
        (["q35-intel.claim.no_splat"], None),
        ([], None),
        (["q35-intel.claim-group.no_splat", "q35-amd.claim-group.no_splat"], None),
    ],
)
def test_narrowed_it_boots_what_was_asked_for(
    tmp_path: Path, tests: list[str], left: list[str] | None
) -> None:
    narrow = open_lane(tmp_path).narrowed(tests)
    assert (narrow and [case.name for case in narrow.cases]) == left


def test_mutants_do_not_wait_long_for_a_kernel_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine's own limit is longer; and the key does not depend on it."""
    lane = open_lane(tmp_path)
    monkeypatch.setattr(mutate, "open_lanes", lambda _workspace, _names: [lane])
    (found,) = mutate.Guests(("firmware",), "um", (), 30).lanes(lane.workspace)
    assert isinstance(found, FirmwareLane)
    pairs = list(zip(lane.cases, found.cases, strict=True))
    assert all(long.machine.boot_limit > short.machine.boot_limit for long, short in pairs)
    keys = [(run_key(KERNEL, long), run_key(KERNEL, short)) for long, short in pairs]
    assert all(long == short for long, short in keys)
