# SPDX-License-Identifier: GPL-2.0-only
"""Random sequences of operations on a kernel, held against the rules after each one."""
