# SPDX-License-Identifier: GPL-2.0-only
"""Explain a table, with the terms of ``/sys/kernel/iommu_groups/*/reserved_regions``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from iommuq.firmware.tables import anytable
from iommuq.firmware.tables.dmar import Dmar
from iommuq.firmware.tables.explain_amd import explain_ivrs
from iommuq.firmware.tables.explain_arm import explain_iort
from iommuq.firmware.tables.explain_intel import explain_dmar
from iommuq.firmware.tables.ivrs import Ivrs
from iommuq.system.progress import one_line

_LEGEND = (
    "direct            mapped 1:1 at all times; since 6.6 VFIO and iommufd are refused the",
    "                  device, and with it its IOMMU group; before, only by VT-d's driver",
    "direct-relaxable  mapped 1:1 for the kernel's own drivers; nothing is refused",
)


def explain(path: Path, classes: Mapping[str, int] | None = None) -> list[str]:
    """Explain a table.

    :param path: a file with the table, as in /sys/firmware/acpi/tables.
    :param classes: as from `classes.read`; None: unknown.
    :return: lines of text.
    :raises UserError: the file cannot be read.
    :raises TableError: the table is malformed; file and byte are named.
    """
    return describe(anytable.load_table(path), classes)


def describe(table: anytable.Table, classes: Mapping[str, int] | None = None) -> list[str]:
    """Explain a table that was read already; see `explain`."""
    return [_safe(line) for line in _lines(table, classes)]


def _lines(table: anytable.Table, classes: Mapping[str, int] | None) -> Iterator[str]:
    if isinstance(table, Dmar):
        told = list(explain_dmar(table, classes))
    elif isinstance(table, Ivrs):
        told = list(explain_ivrs(table, classes))
    else:
        told = list(explain_iort(table))
    yield from told
    found = anytable.findings(table)
    if found:
        yield ""
        yield "Problems:"
        yield from (f"  {finding}" for finding in found)
    if any("direct" in line for line in told):
        yield ""
        yield from _LEGEND


def _safe(line: str) -> str:
    """Return a line without control characters, with its indentation."""
    indent = len(line) - len(line.lstrip(" "))
    return (" " * indent + one_line(line)).rstrip()
