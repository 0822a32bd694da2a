# SPDX-License-Identifier: GPL-2.0-only
"""What ``iommuq firmware table`` prints."""

from __future__ import annotations

from pathlib import Path

from iommuq.firmware import classes
from iommuq.firmware.explain import explain


def print_table(file: Path, devices: Path | None) -> None:
    """Print the explanation of a table.

    :param devices: where the classes of the machine's devices are; None if they are not known.
    """
    for line in explain(file, None if devices is None else classes.read(devices)):
        print(line)
