# SPDX-License-Identifier: GPL-2.0-only
"""Measure iommuq against what it runs, for those who work on it."""
