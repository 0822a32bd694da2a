# SPDX-License-Identifier: GPL-2.0-only
"""An exploration as a suite, and the overlay that it needs, on kernels that are scripts."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fakeguest
from iommuq.build import workspace as workspaces
from iommuq.explore.exceptions import Exceptions
from iommuq.explore.lane import ExploreLane
from iommuq.explore.rules import all_rules
from iommuq.queue.overlay import load_overlay
from iommuq.results.known import KnownFailures
from iommuq.results.store import Status
from iommuq.system.errors import UserError
from iommuq.system.files import project_root

WORKSPACE: Any = SimpleNamespace(
    base=SimpleNamespace(spec=SimpleNamespace(name="7.3"), kernel="7.3.4")
)
SIM = "drivers/iommu/tests/iommu_sim.c"


def lane(**changes: Any) -> ExploreLane:
    """Return a lane that ends soon."""
    values: dict[str, Any] = {"exceptions": Exceptions(), "seconds": 4.0, "known": KnownFailures()}
    return ExploreLane(WORKSPACE, **{**values, **changes})


def image(name: str) -> Any:
    """Return an image with a key."""
    return SimpleNamespace(key=name)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("loses", {"regions.lost": Status.FAIL}),
        ("good", {}),
        ("exits", dict.fromkeys((rule.name for rule in all_rules()), Status.ERROR)),
    ],
)
def test_each_rule_is_a_test(sims: Path, name: str, bad: dict[str, Status]) -> None:
    """What is found fails the test of its rule; without a guest each is an error."""
    run = lane()._results(fakeguest.kernel(sims, name), _run(), sims / "lane-log")
    fakeguest.assert_gone(sims)
    assert {each.test: each.status for each in run} == {
        **{rule.name: Status.PASS for rule in all_rules()},
        **bad,
    }
    assert all("claims group" in each.message for each in run if each.status is Status.FAIL)


def _run() -> Any:
    return SimpleNamespace(base="7.3", patch="a/0001")


def test_another_list_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored results are for one image, one list, one seed and one code."""
    made = image("good")
    keys = {
        lane().run_key(made),
        lane(seed=2).run_key(made),
        lane(seconds=5.0).run_key(made),
        lane(exceptions=Exceptions(known=(_known(),))).run_key(made),
    }
    assert len(keys) == 4
    monkeypatch.setattr("iommuq.explore.lane.file_sha256", lambda _path: "another")
    assert lane().run_key(made) not in keys


def _known() -> Any:
    return SimpleNamespace(signatures=("x",))


@pytest.mark.parametrize(
    ("kernel", "has"), [("6.1.192", False), ("6.12.117", True), ("7.3.4", True), ("x", False)]
)
def test_a_kernel_with_static_domains_gets_the_simulation(kernel: str, *, has: bool) -> None:
    """The overlay of older kernels is that of the suites alone."""
    root = project_root()
    assert workspaces.has_simulation(root, kernel) == has
    names = {name for name, _, _ in workspaces.tests_of(root, kernel).files}
    assert (SIM in names) == has
    assert names >= {name for name, _, _ in load_overlay(root / "kunit").files}


def test_a_project_without_the_simulation(tmp_path: Path) -> None:
    """It is no error: such a project has the suites alone."""
    shutil.copytree(project_root() / "kunit", tmp_path / "kunit")
    assert workspaces.tests_of(tmp_path, "7.3.4") == load_overlay(tmp_path / "kunit")


def test_two_overlays_with_one_file() -> None:
    """It is an error that names the file: one of them would be lost."""
    overlay = load_overlay(project_root() / "explore")
    with pytest.raises(UserError, match=r"two overlays have .*iommu_sim\.c"):
        overlay.over(overlay)
