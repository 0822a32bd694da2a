# SPDX-License-Identifier: GPL-2.0-only
"""Check a guest before its first scenario: does it use our table, and what does it lack?"""

from __future__ import annotations

from collections.abc import Iterable

from iommuq.firmware import override, topology
from iommuq.guests.machine import Machine
from iommuq.suites.firmware.verdicts import Said

#: A table of every machine with ACPI.
_ANY_TABLE = "FACP"
# Lines of the script and paths, after the line about the table.
_NEEDS = {
    "group": (1, "/dev/vfio/vfio"),
    "cdev": (2, "/dev/iommu"),
    "faults": (3, "/sys/kernel/debug/fail_page_alloc/require-start"),
}
_DRIVER, _UNIT = 4, 5
_UNITS = {"DMAR": "/sys/class/iommu/dmar0", "IVRS": "/sys/class/iommu/ivhd0"}


def script(machine: Machine) -> str:
    """Return the script for the guest's program."""
    signature = topology.table_of(machine)
    paths = [path for _, path in _NEEDS.values()]
    paths += ["/sys/bus/pci/drivers/vfio-pci", _UNITS.get(signature, "/sys/bus/pci")]
    lines = [f"table\t{signature or _ANY_TABLE}", *(f"exists\t{path}" for path in paths)]
    return "".join(f"{line}\n" for line in lines)


def unfit(said: Said, machine: Machine, table: bytes) -> str:
    """Return why the guest cannot run any scenario; empty if it can.

    :param table: the table that its kernel should use; empty: any.
    """
    if not said.whole:
        return "the guest's first program did not end"
    if table and said.data.get(0) != table:
        own = said.data.get(0) == override.find(machine)
        return (
            f"the kernel {'ignored the table with the regions' if own else 'has another table'}: "
            "is it built with ACPI_TABLE_UPGRADE?"
        )
    reasons = {
        _DRIVER: "the kernel has no vfio-pci: is it built with VFIO_PCI, or is the module missing?",
        _UNIT: f"the kernel has no driver for {machine.title}: is it built in?",
    }
    for number, reason in reasons.items():
        if said.steps.get(number) is None or said.steps[number].word != "yes":
            return reason
    return ""


def lacking(said: Said, needs: Iterable[str], release: str) -> str:
    """Return what a scenario needs and the guest does not have; empty if it has all."""
    for number, path in (_NEEDS[need] for need in needs):
        ended = said.steps.get(number)
        if ended is not None and ended.word == "no":
            return f"{release} has no {path}"
    return ""
