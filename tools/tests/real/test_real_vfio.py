# SPDX-License-Identifier: GPL-2.0-only
"""The tree's selftests/vfio in a real guest, on the firmware kernel of 7.3."""

from __future__ import annotations

import re

import pytest

from realrun import iommuq

# The kernel of the firmware scenarios takes a quarter of an hour to build.
pytestmark = [pytest.mark.real, pytest.mark.full]


def test_only_the_device_without_a_region_can_be_opened() -> None:
    done = iommuq("selftest", "7.3", "--suite", "vfio", "--machine", "q35-intel", "--again")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = re.findall(r"^([A-Za-z ]+?)  +q35-intel\.(\S+)$", done.stdout, re.MULTILINE)
    found = {test: verdict for verdict, test in lines}
    assert set(found.values()) == {"pass", "skipped"}
    modes = ["vfio_type1_iommu", "vfio_type1v2_iommu", "iommufd_compat_type1", "iommufd"]
    for device in ("control", "marked"):
        cases = f"vfio_dma_mapping_test.{device}.vfio_dma_mapping_test"
        for mode in modes:
            assert found[f"{cases}.{mode}_anonymous.dma_map_unmap"] == "pass"
    # Of the marked device only what asks before it opens the device.
    skipped = {test for test, verdict in found.items() if verdict == "skipped"}
    assert {t for t in skipped if ".marked." in t} == {"vfio_pci_sriov_uapi_test.marked.all"}
