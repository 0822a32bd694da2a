# SPDX-License-Identifier: GPL-2.0-only
"""Processes, files, git, errors, progress and tables, for all other rooms."""
