# SPDX-License-Identifier: GPL-2.0-only
"""The tree's own KUnit suites: which of them a kernel has, and which lane runs them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from iommuq.build.image import Image, hashes_of
from iommuq.build.workspace import Workspace
from iommuq.proof.lanes import KunitLane, KunitTreeLane
from iommuq.queue.steps import Step
from iommuq.results.known import Verdict
from iommuq.results.store import SuiteRun
from iommuq.suites.kunit_tree import PLACE, load_tree
from iommuq.system import arches
from iommuq.system.errors import UserError
from iommuq.system.files import project_root
from lanes_toy import queue, steps

PAGE_TABLES = "CONFIG_IOMMU_PT_KUNIT_TEST=y\n"
LPAE = "CONFIG_IOMMU_IO_PGTABLE_LPAE_KUNIT_TEST=y\n"
TREE = load_tree(project_root())
#: Writes the filter that it was started with, and has one case of that name.
PROGRAM = """
import sys
glob = sys.argv[-1] if sys.argv[-1][0] != "-" else "none"
print("KTAP version 1\\n1..1\\n    KTAP version 1\\n    # Subtest: s\\n    1..1")
print(f"    ok 1 {glob}\\nok 1 s")
"""


def image(tmp_path: Path, config: str) -> Image:
    """Return an image with a configuration, whose kunit.py runs what it is asked for."""
    folder = tmp_path / "image"
    script = folder / "tools/testing/kunit/kunit.py"
    script.parent.mkdir(parents=True)
    script.write_text(PROGRAM)
    (folder / "linux").write_text("")
    (folder / ".kunitconfig").write_text("")
    (folder / ".config").write_text(config)
    return Image(
        "key", folder, arches.get("um"), frozenset(), tmp_path, built=False,
        hashes=hashes_of(folder),
    )  # fmt: skip


def lane(kind: type[KunitLane], tmp_path: Path, root: Path | None = None) -> KunitLane:
    workspace = SimpleNamespace(
        root=root or project_root(),
        base=SimpleNamespace(spec=SimpleNamespace(name="toy"), kernel="7.3"),
        queue=queue(tmp_path, "0001-a"),
    )
    return kind.open(cast(Workspace, workspace), arches.get("um"))


def ran(kind: KunitLane, found: Image) -> tuple[SuiteRun, set[str]]:
    """Run a lane, and return the filters of its boots."""
    step: Step = steps(kind.workspace.queue)[0]
    run = kind.run(found, step)
    tests = {result.test for result in run.results if result.test.startswith("s.")}
    return run, {test.removeprefix("s.") for test in tests}


def test_each_lane_runs_its_own_suites(tmp_path: Path) -> None:
    both = image(tmp_path, PAGE_TABLES + LPAE)
    own, of_tree = lane(KunitLane, tmp_path), lane(KunitTreeLane, tmp_path)
    assert ran(own, both)[1] == {"iommu_*"}
    run, globs = ran(of_tree, both)
    assert globs == {"*_fmt_test", "*_iommu_test.test_[!r]*", "io-pgtable-arm-test"}
    assert run.suite == "kunit-tree"
    assert {result.suite for result in run.results} == {"kunit-tree"}
    # One kernel, but neither takes the results of the other, and the slow cases are a run.
    slow = replace(cast(KunitTreeLane, of_tree), slow=True)
    assert ran(slow, both)[1] == {*globs, "*_iommu_test.test_r*"}
    assert len({each.run_key(both) for each in (own, of_tree, slow)}) == 3
    # A filter of the user is for all suites.
    mine = replace(own, filters=("x86_64_fmt_test",))
    assert ran(mine, both)[1] == {"x86_64_fmt_test"}


def test_a_kernel_without_them(tmp_path: Path) -> None:
    found = image(tmp_path, "# CONFIG_IOMMU_PT_KUNIT_TEST is not set\n")
    # All suites are ours: there is nothing to leave out.
    assert ran(lane(KunitLane, tmp_path), found)[1] == {"none"}
    of_tree = lane(KunitTreeLane, tmp_path)
    run, _ = ran(of_tree, found)
    assert of_tree.judge(run) == {"all": Verdict.SKIPPED}
    assert "no KUnit suite of drivers/iommu" in run.results[0].message


def test_a_project_without_the_file(tmp_path: Path) -> None:
    found = image(tmp_path, PAGE_TABLES)
    assert ran(lane(KunitLane, tmp_path, tmp_path), found)[1] == {"none"}


def test_the_glob_has_all_suites_of_the_project() -> None:
    """A suite that it does not match would not be run at all on a base with some of its own."""
    root = project_root()
    texts = [
        path.read_text() for each in ("kunit", "explore") for path in (root / each).rglob("*.c")
    ]
    suites = re.findall(r"struct kunit_suite \w+ = \{\n\t\.name = \"([^\"]+)\"", "\n".join(texts))
    assert len(suites) >= 7
    assert [name for name in suites if not fnmatch(name, TREE.own)] == []
    for one in TREE.suite:
        for glob in (*one.filters, *one.slow):
            assert not fnmatch("iommu_set_domain", glob.partition(".")[0])


def test_the_filters_name_all_cases_once() -> None:
    """As lib/glob.c matches them, which has the same classes as fnmatch."""
    (page_tables,) = (one for one in TREE.suite if one.symbol == "IOMMU_PT_KUNIT_TEST")
    cases = [
        "amdv1_fmt_test.test_init", "amdv1_iommu_test.test_map_simple",
        "x86_64_iommu_test.test_random_map", "vtdss_iommu_test.test_mixed",
    ]  # fmt: skip
    for case in cases:
        matching = [
            glob
            for glob in (*page_tables.filters, *page_tables.slow)
            if fnmatch(case, glob if "." in glob else f"{glob}.*")
        ]
        assert len(matching) == 1, (case, matching)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"own": "x"}, "suite: is missing"),
        ({"own": "x", "suite": [{"symbol": "a b", "filters": ["x"]}]}, "no name of a symbol"),
        ({"own": "x", "suite": [{"symbol": "A", "filters": []}]}, "filters is empty"),
    ],
)
def test_a_mistake_in_the_file(tmp_path: Path, data: dict[str, object], message: str) -> None:
    path = tmp_path / PLACE
    path.parent.mkdir()
    lines = [f"own = {json.dumps(data['own'])}"]
    for suite in cast(list[dict[str, object]], data.get("suite", [])):
        lines += ["[[suite]]", *(f"{key} = {json.dumps(value)}" for key, value in suite.items())]
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=message):
        load_tree(tmp_path)
