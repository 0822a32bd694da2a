# SPDX-License-Identifier: GPL-2.0-only
"""Read, extend and explain the ACPI tables that claim memory for devices."""
