# SPDX-License-Identifier: GPL-2.0-only
"""Firmware tables, the scenarios that test them, and kernels built elsewhere."""
