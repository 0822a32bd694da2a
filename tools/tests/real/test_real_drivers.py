# SPDX-License-Identifier: GPL-2.0-only
"""The real lane of ``iommuq drivers``: what was read by hand in three kernels."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

from realrun import iommuq

pytestmark = pytest.mark.real


@cache
def drivers(base: str, *words: str) -> dict[str, dict[str, Any]]:
    done = iommuq("drivers", base, *words, "--json", "-")
    assert done.returncode == 0, done.stderr
    (kernel,) = json.loads(done.stdout)
    # s390 has two sets of operations; two drivers have some of the same name.
    return {
        each["ops"] if each["name"] == "s390-iommu" else each["name"]: each
        for each in kernel["drivers"]
    }


def hows(driver: dict[str, Any], what: str) -> list[str]:
    return [each["how"] for each in driver[what]]


def ways(driver: dict[str, Any], what: str) -> set[tuple[str, str]]:
    """Return the errors, each with the function that has it."""
    return {
        (each["what"], each["chain"][-1])
        for source in driver[what]
        if source["verdict"]
        for each in source["verdict"]["failures"]
    }


def kinds(driver: dict[str, Any]) -> set[str]:
    return {each["kind"] for each in driver["regions"]}


@pytest.mark.parametrize(("base", "count"), [("6.1", 21), ("6.12", 22), ("7.3", 26)])
def test_all_drivers_are_found(base: str, count: int) -> None:
    assert len(drivers(base)) == count
    assert {"amd", "intel", "grant-dma-iommu"} <= set(drivers(base))


def test_6_1_has_no_static_domains() -> None:
    for driver in drivers("6.1").values():
        assert set(hows(driver, "identity") + hows(driver, "blocked")) <= {"allocated", "none"}
        assert not driver["release"]
    assert hows(drivers("6.1")["amd"], "identity") == ["allocated"]
    assert hows(drivers("6.1")["sprd-iommu"], "identity") == ["none"]
    assert ("-EIO", "s390_iommu_attach_device") in ways(drivers("6.1")["s390_iommu_ops"], "blocked")


def test_7_3_who_lacks_a_static_domain() -> None:
    found = drivers("7.3")
    assert {name for name, each in found.items() if hows(each, "identity") != ["static"]} == {
        "fsl_pamu_domain",
        "grant-dma-iommu",
        "hwpt_noiommu",
        "iommufd selftest",
        "s390_iommu_ops",
        "sprd-iommu",
        "powerpc",
        "virtio-iommu",
    }
    assert {name for name, each in found.items() if hows(each, "blocked") == ["static"]} == {
        "amd",
        "apple-dart",
        "arm-smmu",
        "arm-smmu-v3",
        "intel",
        "iommufd selftest",
        "riscv",
        "s390_iommu_ops",
        "s390_iommu_rtr_ops",
        "powerpc",
    }


def test_7_3_whose_identity_can_fail() -> None:
    found = drivers("7.3")
    fails = {name for name, each in found.items() if "can fail" in each["identity_answers"]}
    assert fails == {
        "amd",
        "apple-dart",
        "arm-smmu",
        "intel",
        "msm_iommu",
        "qcom_iommu",
        "rockchip-iommu",
        "s390_iommu_rtr_ops",
        "tegra-smmu",
        "virtio-iommu",
        "vsi-iommu",
    }


def test_7_3_ways_of_intel_and_amd() -> None:
    found = drivers("7.3")
    assert ways(found["intel"], "identity") == {
        ("-ENOMEM", "context_setup_pass_through"),
        ("-ENODEV", "intel_pasid_setup_pass_through"),
        ("-EBUSY", "intel_pasid_setup_pass_through"),
    }
    assert {
        ("-EINVAL", "amd_iommu_identity_attach"),
        ("-ENOMEM", "setup_gcr3_table"),
        ("-ENOSPC", "setup_gcr3_table"),
        ("-ENOMEM", "pdom_attach_iommu"),
    } <= ways(found["amd"], "identity")
    for name in ("intel", "amd", "s390_iommu_ops", "riscv"):
        assert found[name]["blocked_answers"] == ["never"]
    assert found["powerpc"]["blocked_answers"] == ["undecided"]


def test_who_can_report_direct() -> None:
    arm = {"arm-smmu", "arm-smmu-v3", "apple-dart", "virtio-iommu"}
    own = {"amd", "intel"}
    for base, more in (("6.1", set()), ("6.12", set()), ("7.3", {"exynos-iommu"})):
        found = drivers(base)
        direct = {name for name, each in found.items() if "DIRECT" in kinds(each)}
        assert direct == arm | own | more, base
    assert kinds(drivers("7.3")["intel"]) == {"DIRECT", "DIRECT_RELAXABLE", "MSI"}
    assert kinds(drivers("7.3")["s390_iommu_ops"]) == {"RESERVED"}


def test_release_and_default_domains() -> None:
    found = drivers("7.3")
    released = {name: each["release"].split()[0] for name, each in found.items() if each["release"]}
    assert released == {
        "amd": "blocked",
        "arm-smmu-v3": "blocked",
        "exynos-iommu": "identity",
        "intel": "blocked",
        "riscv": "blocked",
        "s390_iommu_ops": "blocked",
        "s390_iommu_rtr_ops": "blocked",
        "vsi-iommu": "identity",
    }
    assert found["amd"]["default"] == "amd_iommu_def_domain_type(): identity or dma or any"


def test_a_tree_with_the_queue_is_read() -> None:
    found = drivers("7.3", "--at", "static-attach/0015")
    assert len(found) >= 26
