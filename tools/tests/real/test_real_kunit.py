# SPDX-License-Identifier: GPL-2.0-only
"""The real lane: Linux 6.12, its queue, real builds, real boots.

What these tests build stays in the user's cache, so that only the first run pays.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from iommuq.build.workspace import Workspace
from iommuq.mail.export import lay, load_exports
from iommuq.system import files
from iommuq.system.git.objects import Objects
from realrun import iommuq

pytestmark = pytest.mark.real

#: The rule in one line, as patch 0001 adds it.
CONDITION = "+\tif (dev->iommu->require_direct &&\n"


def labels(lines: list[str]) -> list[str]:
    """Read the steps from the two lines over a table: the series, and the numbers in it."""
    at = next(at for at, line in enumerate(lines) if re.match(r"^ +baseline ", line))
    series = {match.end(): match[0] for match in re.finditer(r"\S+", lines[at - 1])}
    return [
        f"{series[match.end()]}/{match[0]}" if match.end() in series else match[0]
        for match in re.finditer(r"\S+", lines[at])
    ]


def table(text: str) -> dict[str, dict[str, str]]:
    """Read the printed table: by test, the word under each step."""
    lines = text.splitlines()
    steps = labels(lines)
    assert len(set(steps)) == len(steps)
    rows = {}
    for line in lines:
        words = line.split()
        if line.startswith("  ") and len(words) == len(steps) + 1:
            rows[words[0]] = dict(zip(steps, words[1:], strict=True))
    return rows


def fixed_by_the_first(rows: dict[str, dict[str, str]], test: str) -> bool:
    """Tell whether a test fails on every step before 0001 and passes from there on."""
    words = rows[test]
    first = list(words).index("0001")
    before, after = list(words.values())[:first], list(words.values())[first:]
    return bool(before) and set(before) == {"FAIL"} and set(after) == {"pass"}


def test_each_patch_is_proven_under_uml() -> None:
    done = iommuq("run", "6.12")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = table(done.stdout)
    assert fixed_by_the_first(rows, "blocked_refused")
    assert fixed_by_the_first(rows, "claim_direct_refused")
    assert set(rows["blocked_allowed_plain"].values()) == {"pass"}
    # A known failure is shown as one, and is not a pass.
    assert rows["untrusted_joins_no_identity"]["0001"] == "known"
    # The last series leaves the failures of the kernel itself, which are known.
    left = {name: last for name, row in rows.items() if (last := list(row.values())[-1]) != "pass"}
    assert left == {
        "region_at_zero_is_shared": "known",
        "region_of_second_is_no_dma_address": "known",
        "dma_api_of_late_joiner": "known",
        "untrusted_joins_no_identity": "known",
        "release_beside_shared_rid": "known",
        "explored_refused_region_is_cut": "known",
    }
    assert re.search(r"^0001 iommu: .*: fixes 18 ", done.stdout, re.MULTILINE)


def test_each_patch_builds_and_passes_on_x86_64() -> None:
    done = iommuq("run", "6.12", "--arch", "x86_64")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tcg" in done.stdout
    assert fixed_by_the_first(table(done.stdout), "blocked_refused")


def test_the_suite_notices_when_the_rule_is_taken_out(tmp_path: Path) -> None:
    for part in ("patches", "kunit"):
        shutil.copytree(files.project_root() / part, tmp_path / part)
    (patch,) = (tmp_path / "patches/6.12/resv-direct").glob("0001-*.patch")
    text = patch.read_text()
    assert text.count(CONDITION) == 1
    patch.write_text(text.replace(CONDITION, CONDITION.replace("if (", "if (0 && ")))
    done = iommuq("kunit", "6.12", "--at", "0001", root=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    failed = set(re.findall(r"^FAIL +(\S+)", done.stdout, re.MULTILINE))
    assert "iommu_set_domain.blocked_refused" in failed
    assert "iommu_dma_owner.claim_direct_refused" in failed
    assert "iommu_set_domain.blocked_allowed_plain" not in failed


def test_our_reading_of_the_log_agrees_with_kunit_py() -> None:
    done = iommuq("kunit", "6.12", "--again")
    assert done.returncode == 0, done.stdout + done.stderr
    counted = re.search(r"(\d+) pass(?:, (\d+) known)?$", done.stdout.strip())
    assert counted is not None
    logs = sorted(files.log_dir().glob("*-kunit-6.12-um-*.log"), key=lambda p: p.stat().st_mtime)
    kunit_py = next((files.cache_dir() / "images").glob("*/tools/testing/kunit/kunit.py"))
    parsed = subprocess.run(
        [sys.executable, kunit_py, "parse", "--json=stdout", str(logs[-1])],
        cwd=kunit_py.parents[3],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    start = parsed.index("{\n")
    data, _ = json.JSONDecoder().raw_decode(parsed[start:])
    counts: dict[str, int] = {}
    groups = [data]
    while groups:
        # A case with parameters is a group.
        group = groups.pop()
        groups += group.get("sub_groups", [])
        for case in group.get("test_cases", []):
            counts[case["status"]] = counts.get(case["status"], 0) + 1
    # One of ours is not KUnit's: that there was no splat outside of the cases.
    assert counts.get("PASS") == int(counted[1]) - 1
    assert counts.get("FAIL", 0) == int(counted[2] or 0)


@pytest.mark.full
def test_the_tree_s_own_page_tables_pass() -> None:
    done = iommuq("prove", "7.3", "--suite", "kunit-tree", "--from", "static-attach/0015", "--all")
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("amdv1_fmt_test", "vtdss_iommu_test", "arm_lpae_do_selftests"):
        assert words in done.stdout
    # It takes minutes: `iommuq kunit --tree` is for it.
    assert "test_random_map" not in done.stdout


@pytest.mark.full
@pytest.mark.parametrize("base", ["6.12", "7.3"])
def test_the_source_that_is_mailed_says_the_same(base: str, tmp_path: Path) -> None:
    root = files.project_root()
    for part in ("explore", "kunit", "patches", "selftests"):
        shutil.copytree(root / part, tmp_path / part)
    space = Workspace.open(base)
    store = Objects(space.base.git_dir, tmp_path)
    tree = space.step(None).tree
    folder, one = next(each for each in load_exports(root) if each[1].overlay)
    laid = lay(store, tree, folder, one, space.exported, space.base.kernel)
    where = tmp_path / "kunit/drivers/iommu/tests"
    shutil.rmtree(where)
    where.mkdir()
    for name in ("Kconfig", ".kunitconfig", "iommu_kunit.c", "iommu_kunit_compat.h"):
        data = store.read_file(laid, f"drivers/iommu/tests/{name}")
        # The step's tree has the parts, too.
        if data is not None:
            (where / name).write_bytes(data)
    assert not re.search(rb'^#include "\w+\.c"', (where / "iommu_kunit.c").read_bytes(), re.M)
    mailed, parts = iommuq("kunit", base, root=tmp_path), iommuq("kunit", base)
    assert mailed.returncode == parts.returncode == 0, mailed.stdout + mailed.stderr
    told = [
        {line for line in done.stdout.splitlines() if re.match(r"(pass|known) ", line)}
        for done in (mailed, parts)
    ]
    assert told[0] == told[1]
    assert len(told[0]) > 100
