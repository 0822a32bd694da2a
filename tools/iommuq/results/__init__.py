# SPDX-License-Identifier: GPL-2.0-only
"""What is kept of all runs: an SQLite database in the state directory."""
