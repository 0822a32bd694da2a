# SPDX-License-Identifier: GPL-2.0-only
"""Store and compare records: what one call of a command did."""
