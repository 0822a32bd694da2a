# SPDX-License-Identifier: GPL-2.0-only
"""Firmware scenarios on Debian's own kernels, in real guests: nothing is built."""

from __future__ import annotations

import re
import shutil

import pytest

from iommuq.firmware import override, packages, scenario
from iommuq.firmware.kernels import Kernel
from iommuq.firmware.scenario import Action, Region, Scenario
from iommuq.firmware.tables import dmar
from iommuq.results.store import Result, Status
from iommuq.suites.firmware.cases import cases
from iommuq.suites.firmware.run import run_scenarios
from iommuq.suites.kunit import Subject
from iommuq.system.errors import UserError

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt-get"),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU"),
]

#: The first kernels of Debian 12 and of its backports.
OLD, NEW = "linux-image-amd64", "linux-image-6.12-amd64"


def package(name: str) -> Kernel:
    """Return the kernel of a package, wherever this system can get it from."""
    try:
        return packages.find(name)
    except UserError as error:
        pytest.skip(str(error))


def verdicts(kernel: Kernel, name: str, on: str) -> dict[str, Status]:
    """Run a scenario on one machine, and return what became of each check."""
    subject = Subject(kernel.name, "as-is", kernel.release)
    (run,) = run_scenarios(kernel, cases([scenario.load_scenario(name)], [on]), subject, again=True)
    messages = [result.message for result in run.results if result.status is Status.ERROR]
    assert not messages, messages
    return {result.test.rpartition(".")[2]: result.status for result in run.results}


def checked(on: str, *steps: Action) -> dict[str, Result]:
    """Run steps on one machine with the newer kernel, and return the result of each check."""
    kernel = package(NEW)
    region = Region(("marked",), 0x3E000000, 0x10000)
    made = Scenario("A test", "Nothing.", (on,), steps, (region,))
    object.__setattr__(made, "name", "test")
    subject = Subject(kernel.name, "as-is", kernel.release)
    (run,) = run_scenarios(kernel, cases([made], [on]), subject, again=True)
    return {result.test.rpartition(".")[2]: result for result in run.results}


def failed(found: dict[str, Status]) -> set[str]:
    return {check for check, status in found.items() if status is not Status.PASS}


def test_an_old_kernel_lets_an_amd_device_be_claimed_and_cuts_its_region() -> None:
    kernel = package(OLD)
    if not kernel.release.startswith("6.1."):
        pytest.skip(f"the current kernel is {kernel.release}")
    cut = {"claim_refused", "region_reached_during"}
    assert failed(verdicts(kernel, "claim-group", "q35-amd")) == cut
    assert failed(verdicts(kernel, "claim-group", "q35-intel")) == set()


@pytest.mark.parametrize("on", ["q35-amd", "q35-intel", "q35-intel-scalable"])
def test_a_newer_kernel_refuses_it(on: str) -> None:
    assert failed(verdicts(package(NEW), "claim-group", on)) == set()


def test_without_an_iommu() -> None:
    assert failed(verdicts(package(NEW), "no-iommu", "q35-plain")) == set()


def test_a_table_that_the_kernel_ignores_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = package(NEW)
    extended = override.extended

    def stale(*arguments: object) -> bytes:
        table = bytearray(extended(*arguments))  # type: ignore[arg-type]
        # The OEM revision is not higher than that of the firmware's own.
        table[24:28] = bytes(4)
        table[9] = (table[9] - sum(table)) & 0xFF
        return dmar.parse(bytes(table)).encode()

    monkeypatch.setattr(override, "extended", stale)
    subject = Subject(kernel.name, "as-is", kernel.release)
    wanted = cases([scenario.load_scenario("claim-group")], ["q35-intel"])
    (run,) = run_scenarios(kernel, wanted, subject, again=True)
    assert {result.status for result in run.results} == {Status.ERROR}
    assert "ignored the table" in run.results[0].message


def test_a_device_that_is_switched_off_is_no_oracle() -> None:
    blocked = "dma control other"
    found = checked(
        "q35-intel",
        Action("bind control vfio-pci"),
        Action(blocked, "bound", "BLOCKED"),
        Action("claim group control"),
        Action(blocked, "claimed", "BLOCKED"),
        Action("enable control", "owner_decides", "BUSY"),
        Action("map control 0x100000 0x10000"),
        Action(blocked, "mapped", "BLOCKED"),
        # VFIO switches it off with the last reference to its file.
        Action("release control"),
        Action(blocked, "closed", "BLOCKED"),
        Action("enable control"),
        Action(blocked, "enabled", "BLOCKED"),
        Action("claim group control"),
        Action("release control"),
        # Whatever reads the register then, sysfs no longer does.
        Action("remove control"),
        Action(blocked, "removed", "BLOCKED"),
    )
    off = {name for name, one in found.items() if one.status is Status.ERROR}
    assert off == {"closed", "removed"}
    for name in off:
        assert found[name].message.startswith(f"`{blocked}`: OFF (0000:00:06.0: command 0x")
        assert found[name].message.endswith("no bus mastering)")
    assert {found[name].status for name in found.keys() - off} == {Status.PASS}
    assert "while its buffer at 0x10fffc is reached" in found["mapped"].answer


def test_a_device_that_reaches_nothing_is_no_oracle() -> None:
    # QEMU 7.2 looks up what is behind a bridge under another bus number; later ones may not.
    found = checked(
        "q35-amd",
        Action("bind first vfio-pci"),
        Action("claim group first"),
        Action("map first 0x100000 0x10000"),
        Action("dma-mapped first 0x100000", "its_own", "REACHED"),
        Action("dma first other", "others", "BLOCKED"),
    )
    status = (found["its_own"].status, found["others"].status)
    assert status in ((Status.FAIL, Status.SKIP), (Status.PASS, Status.PASS))


def test_writes_that_are_kept_came_during_a_switch() -> None:
    # No domain goes away for a flush queue.
    found = checked("q35-intel", Action("switch marked DMA-FQ region type", "kept", "kept"))
    inside = re.search(r"(\d+) came during a switch", found["kept"].answer)
    assert found["kept"].status is Status.PASS
    assert inside
    assert int(inside[1]) >= 30
