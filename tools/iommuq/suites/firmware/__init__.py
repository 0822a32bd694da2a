# SPDX-License-Identifier: GPL-2.0-only
"""Firmware scenarios: what firmware claims, and whether a kernel honours it."""
