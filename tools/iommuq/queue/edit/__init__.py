# SPDX-License-Identifier: GPL-2.0-only
"""Edit a queue as the commits of a work tree."""
