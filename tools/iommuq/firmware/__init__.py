# SPDX-License-Identifier: GPL-2.0-only
"""ACPI tables through which firmware claims memory for devices: read, extend, explain."""
