# SPDX-License-Identifier: GPL-2.0-only
"""Explore the drivers of IOMMUs, on the machines of QEMU."""
