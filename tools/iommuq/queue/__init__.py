# SPDX-License-Identifier: GPL-2.0-only
"""The patch queue of a base: read it, write it, make its trees."""
