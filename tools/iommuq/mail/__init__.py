# SPDX-License-Identifier: GPL-2.0-only
"""Series on mailing lists: connects b4 to the queue and to the proof."""
