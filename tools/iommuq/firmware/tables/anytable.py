# SPDX-License-Identifier: GPL-2.0-only
"""A table of whichever kind its signature says."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from iommuq.firmware.tables import acpi, dmar, iort, ivrs
from iommuq.firmware.tables.dmar import Dmar
from iommuq.firmware.tables.iort import Iort
from iommuq.firmware.tables.ivrs import Ivrs
from iommuq.firmware.tables.sanity import Finding

Table: TypeAlias = Dmar | Ivrs | Iort


def parse(data: bytes, *, name: str = "table") -> Table:
    """Read a table.

    :param name: the file, or what else to call it in messages.
    :raises TableError: it is malformed, or of none of our kinds; the byte is named.
    """
    signature = data[:4]
    if signature == ivrs.SIGNATURE:
        return ivrs.parse(data, name=name)
    if signature == iort.SIGNATURE:
        return iort.parse(data, name=name)
    if signature == dmar.SIGNATURE:
        return dmar.parse(data, name=name)
    raise acpi.unwanted(data, (dmar.SIGNATURE, ivrs.SIGNATURE, iort.SIGNATURE), name)


def load(path: Path) -> Table:
    """Read a table from a file.

    :raises UserError: it cannot be read.
    :raises TableError: it is malformed, or of none of our kinds; the byte is named.
    """
    return parse(acpi.read(path), name=str(path))


def findings(table: Table) -> list[Finding]:
    """Return what is odd about the regions of a table, in its order."""
    if isinstance(table, Dmar):
        return dmar.findings(table)
    if isinstance(table, Ivrs):
        return ivrs.findings(table)
    return iort.findings(table)
