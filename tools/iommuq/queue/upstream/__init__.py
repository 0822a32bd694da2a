# SPDX-License-Identifier: GPL-2.0-only
"""Find the patches of a queue in another tree."""
