# SPDX-License-Identifier: GPL-2.0-only
"""Suites of others: the user fetches them; they are built in a sandbox, and run in guests."""
