# SPDX-License-Identifier: GPL-2.0-only
"""Read and check a table of any known kind."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from iommuq.firmware.tables import acpi, dmar, iort, ivrs
from iommuq.firmware.tables.sanity import Oddity

Table: TypeAlias = dmar.Dmar | ivrs.Ivrs | iort.Iort


def parse(data: bytes, *, name: str = "table") -> Table:
    """Read a table.

    :param name: the file or table, for messages.
    :raises TableError: the table is malformed or of an unknown kind; the byte is named.
    """
    signature = data[:4]
    if signature == ivrs.SIGNATURE:
        return ivrs.parse(data, name=name)
    if signature == iort.SIGNATURE:
        return iort.parse(data, name=name)
    if signature == dmar.SIGNATURE:
        return dmar.parse(data, name=name)
    raise acpi.unwanted(data, (dmar.SIGNATURE, ivrs.SIGNATURE, iort.SIGNATURE), name)


def load_table(path: Path) -> Table:
    """Read a table from a file.

    :raises UserError: the file cannot be read.
    :raises TableError: as for `parse`.
    """
    return parse(acpi.read(path), name=str(path))


def findings(table: Table) -> list[Oddity]:
    """Return what is odd about the regions of a table, in its order."""
    if isinstance(table, dmar.Dmar):
        return dmar.findings(table)
    if isinstance(table, ivrs.Ivrs):
        return ivrs.findings(table)
    return iort.findings(table)
