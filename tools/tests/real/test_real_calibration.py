# SPDX-License-Identifier: GPL-2.0-only
"""The emulated IOMMUs, measured: what the scenarios rely on, and what the docs say."""

from __future__ import annotations

import re
import shutil

import pytest

from iommuq.firmware import calibration, packages
from iommuq.guests import qemu
from iommuq.report import calibration as page
from iommuq.results.store import Status
from iommuq.suites.firmware.calibrate import calibrate
from iommuq.system import files
from iommuq.system.errors import UserError

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt-get"),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU"),
]


def measure(name: str) -> dict[str, str]:
    """Measure one machine again, and return its answers."""
    wanted = calibration.load()
    try:
        kernel = packages.find(wanted.kernel)
    except UserError as error:
        pytest.skip(str(error))
    run = calibrate(wanted, kernel, [name], again=True)[name]
    troubles = [result.message for result in run.results if result.status is not Status.PASS]
    assert troubles == []
    return {result.test.removeprefix(f"{name}."): result.answer for result in run.results}


@pytest.mark.parametrize("name", ["q35-intel", "q35-intel-scalable", "q35-amd"])
def test_what_the_oracle_relies_on(name: str) -> None:
    found = measure(name)
    relied = ("off", "translates", "iotlb", "flush-page", "passthrough", "read-only")
    assert [found[row] for row in relied] == ["reached", "yes", "cached", "yes", "yes", "kept"]
    # With the QEMU of the page, the page is right.
    text = (files.project_root() / page.FILE).read_text()
    if qemu.full_version().removeprefix("version ") not in text:
        pytest.skip("the page was made with another QEMU")
    heads = re.findall(r"`([^`]+)`", next(ln for ln in text.splitlines() if ln[:4] == "| | "))
    column = heads.index(name) + 2
    cells = {}
    for line in text.splitlines():
        if match := re.match(r"\| \[([a-z0-9-]+)\]", line):
            cells[match[1]] = line.split("|")[column].strip()
    assert {row: word for row, word in cells.items() if row in found} == found
