# SPDX-License-Identifier: GPL-2.0-only
"""The results of all runs, in an SQLite database in the state directory."""
