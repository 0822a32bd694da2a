# SPDX-License-Identifier: GPL-2.0-only
"""``python -m iommuq``."""

from iommuq.cli import main

main()
