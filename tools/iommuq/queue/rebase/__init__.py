# SPDX-License-Identifier: GPL-2.0-only
"""Carry a queue over to another kernel."""
