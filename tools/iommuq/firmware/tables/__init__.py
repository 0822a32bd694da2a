# SPDX-License-Identifier: GPL-2.0-only
"""Firmware tables that claim memory for devices: read, extend, explain."""
