# SPDX-License-Identifier: GPL-2.0-only
"""Apply, build, test and prove a Linux IOMMU patch queue, patch by patch."""

__version__ = "0.1.0"
