# SPDX-License-Identifier: GPL-2.0-only
"""What firmware claims: its tables, scenarios about them, and kernels that were not built here."""
