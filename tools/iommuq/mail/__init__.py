# SPDX-License-Identifier: GPL-2.0-only
"""The mailing-list side of a queue: b4 does the work, this joins it to the queue and its proof."""
