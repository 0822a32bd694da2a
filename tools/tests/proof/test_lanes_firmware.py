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
from iommuq.build.image import Image, ImageDamaged
from iommuq.build.workspace import Workspace
from iommuq.cli.commands import mutate
from iommuq.firmware import scenario
from iommuq.firmware.kernels import Kernel
from iommuq.proof.lanes import FirmwareLane
from iommuq.queue.model import load_queue
from iommuq.results.known import Failure, KnownFailures, Verdict
from iommuq.results.store import Status, Store, SuiteRun
from iommuq.suites.firmware.cases import Case, cases, run_key
from iommuq.suites.kunit import Subject
from iommuq.system import arches
from iommuq.system.errors import UserError
from iommuq.system.files import project_root
from lanes_toy import queue, steps

KERNEL = Kernel("toy 0001", "6.12", "", Path("/x"), (), None, "key")
REFUSED = Failure(
    ("firmware.*.claim-group.claim_refused",),
    "read",
    "https://example.org",
    datetime.date(2999, 1, 1),
    archs=("x86_64",),
    steps=("baseline",),
)
FAILURE = '[[reason.failure]]\ntests = ["firmware.{}"]\n'


def open_lane(tmp_path: Path) -> FirmwareLane:
    """Return a lane of one scenario on two machines; a check of it is known to fail at first."""
    toy = SimpleNamespace(
        base=SimpleNamespace(spec=SimpleNamespace(name="toy"), kernel="6.12"),
        queue=queue(tmp_path, "0001-a", "0002-b"),
    )
    chosen = tuple(cases([scenario.load_scenario("claim-group")], ["q35-amd", "q35-intel"]))
    return FirmwareLane(cast(Workspace, toy), chosen, known=KnownFailures((REFUSED,)))


def test_a_damaged_image_is_built_again_but_not_that_of_a_mutant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel of the step must not be tested in the place of the mutant."""
    lane = open_lane(tmp_path)
    step = steps(lane.workspace.queue)[0]
    tried: list[str] = []

    def run(_self: FirmwareLane, image: Image, _step: object, *, again: bool) -> SuiteRun:
        tried.append(image.key)
        if len(tried) % 2:
            raise ImageDamaged("linux: sha256 is other")
        return cast(SuiteRun, again)

    def image(key: str) -> Image:
        return Image(key, tmp_path, arches.get("um"), frozenset(), tmp_path, built=False)

    quiet = replace(lane, quiet=True)
    monkeypatch.setattr(FirmwareLane, "_run", run)
    monkeypatch.setattr(FirmwareLane, "image_key", lambda *_: "step")
    monkeypatch.setattr(FirmwareLane, "image", lambda *_: image("step"))
    assert quiet.run(image("step"), step, again=True)
    assert tried == ["step", "step"]
    with pytest.raises(ImageDamaged):
        quiet.run(image("mutant"), step)
    assert tried[2:] == ["mutant"]


def test_all_cases_are_one_run_judged_by_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = open_lane(tmp_path)

    def run(
        kernel: Kernel, wanted: Sequence[Case], subject: Subject, *, store: object, again: bool
    ) -> list[SuiteRun]:
        assert (kernel, again) == (KERNEL, True)
        assert isinstance(store, Store)
        special = {"claim_refused": (Status.FAIL, "claimed")}
        return [made_run(case, subject, special) for case in wanted]

    monkeypatch.setattr("iommuq.suites.firmware.run.run_scenarios", run)
    monkeypatch.setattr("iommuq.suites.firmware.subjects.from_image", lambda *_words: KERNEL)
    monkeypatch.setattr("iommuq.proof.lanes.run_key", lambda _kernel, case: case.name)
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


def of(folder: Path) -> Workspace:
    """Return a workspace with a queue in a folder, and nothing else."""
    return cast(Workspace, SimpleNamespace(queue=queue(folder, "0001-a")))


def test_the_lane_has_every_scenario(tmp_path: Path) -> None:
    lane = FirmwareLane.open(of(tmp_path))
    assert {one.scenario.name for one in lane.cases} == set(scenario.names())
    # One kernel is for all of them.
    assert {one.machine.config for one in lane.cases} == {lane.cases[0].machine.config}


@pytest.mark.parametrize("base", ["6.1", "6.12", "7.3"])
def test_known_failures_of_our_bases(base: str) -> None:
    ours = load_queue(project_root() / "patches" / base, base)
    lane = FirmwareLane.open(cast(Workspace, SimpleNamespace(queue=ours)))
    assert lane.known.failures


@pytest.mark.parametrize("check", ["q35-amd.release.no_such", "q36.release.no_splat"])
def test_known_failure_of_no_check(tmp_path: Path, check: str) -> None:
    entry = f'[[reason]]\ntext = "t"\nlink = "l"\nexpires = 2999-01-01\n{FAILURE}'
    path = tmp_path / "known-failures.toml"
    path.write_text(entry.format("q35-amd.*.no_splat"))
    assert FirmwareLane.open(of(tmp_path)).known.failures
    path.write_text(entry.format(check))
    with pytest.raises(UserError) as caught:
        FirmwareLane.open(of(tmp_path))
    assert caught.value.what == f"{path}: firmware.{check}: no scenario has this check"


def test_machines_that_run_a_file(tmp_path: Path) -> None:
    """The real ones: each driver is that of some machine, and the core is for all."""
    lane = FirmwareLane.open(of(tmp_path))
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
    (found,) = mutate.make_lanes(lane.workspace, ("firmware",), arches.get("um"), (), 30)
    assert isinstance(found, FirmwareLane)
    pairs = list(zip(lane.cases, found.cases, strict=True))
    assert all(long.machine.boot_limit > short.machine.boot_limit for long, short in pairs)
    keys = [(run_key(KERNEL, long), run_key(KERNEL, short)) for long, short in pairs]
    assert all(long == short for long, short in keys)
