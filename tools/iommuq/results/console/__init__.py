# SPDX-License-Identifier: GPL-2.0-only
"""Read the console output of a kernel: KTAP, splats, stacks."""
