# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq firmware table``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--classes",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="What `lspci -Dn` printed on that machine, or its /sys/bus/pci/devices.",
)
def table(file: Path, classes: Path | None) -> None:
    """Explain the DMAR, IVRS or IORT table in FILE.

    Such as a copy of /sys/firmware/acpi/tables/DMAR: which devices have which
    regions, and which of them VFIO and iommufd will refuse.
    """
    from iommuq.cli.commands.firmware import print_table

    print_table(file, classes)
