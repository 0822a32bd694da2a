# SPDX-License-Identifier: GPL-2.0-only
"""Compare what a patch does with what another tree holds, by content alone."""
