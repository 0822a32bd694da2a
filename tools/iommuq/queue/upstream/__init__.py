# SPDX-License-Identifier: GPL-2.0-only
"""What of a queue is in another tree already."""
