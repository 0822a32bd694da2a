# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq firmware``."""

from __future__ import annotations

import click

from iommuq.cli.firmware_table import table


@click.group()
def firmware() -> None:
    """Memory that firmware claims for devices."""


firmware.add_command(table)
