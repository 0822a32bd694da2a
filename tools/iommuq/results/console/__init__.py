# SPDX-License-Identifier: GPL-2.0-only
"""Read what a kernel printed: KTAP, splats, stacks."""
