# SPDX-License-Identifier: GPL-2.0-only
"""The tree's own selftests/vfio, on a device that may be opened and on one that may not."""
