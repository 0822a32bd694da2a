# SPDX-License-Identifier: GPL-2.0-only
"""What everything stands on: processes, files, git, errors, progress, tables."""
