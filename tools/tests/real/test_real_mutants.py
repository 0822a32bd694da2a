# SPDX-License-Identifier: GPL-2.0-only
"""The real lane: mutants and coverage of what the first patch of 6.12 changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from realrun import iommuq

pytestmark = pytest.mark.real

IOMMU_C = "drivers/iommu/iommu.c"
#: What the first patch adds; short, and with both of its conditions tested.
FUNCTION = "iommu_domain_blocks"


def mutants(*words: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the report of `iommuq mutate`, and the mutants of the function in it."""
    done = iommuq("mutate", "6.12", "--json", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    return report, [each for each in report["mutants"] if each["function"] == FUNCTION]


def test_all_of_what_the_first_patch_changes_is_understood() -> None:
    report, found = mutants("--list")
    touched = {each["function"] for each in report["mutants"] if each["file"] == IOMMU_C}
    assert {FUNCTION, "__iommu_device_set_domain"} <= touched
    assert not [each for each in report["unparsed"] if each["file"] == IOMMU_C]
    kinds = [each["operator"] for each in found]
    assert kinds.count("drop-condition") == 2
    assert kinds.count("swap-logic") == 1


def test_no_fault_of_the_new_function_goes_unnoticed() -> None:
    _, found = mutants("--function", FUNCTION)
    fates = {(each["operator"], each["after"]): each["fate"] for each in found}
    assert len(fates) == len(found)
    assert set(fates.values()) <= {"killed", "does not compile", "adds a warning"}
    assert list(fates.values()).count("killed") >= 5


def test_the_new_function_is_executed(tmp_path: Path) -> None:
    path = tmp_path / "coverage.json"
    done = iommuq("kunit", "6.12", "--coverage-json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    files = {each["file"]: each for each in json.loads(path.read_text())["files"]}
    # Hardware that UML does not have.
    assert not files["drivers/iommu/intel/iommu.c"]["built"]
    functions = {each["name"]: each for each in files[IOMMU_C]["functions"]}
    assert functions[FUNCTION]["touched"]
    assert functions[FUNCTION]["missed"] == []
    # One that no suite calls: not all is counted as executed.
    assert functions["iommu_group_set_name"]["lines_executed"] == 0
    assert not any("kunit" in name for name in functions)
