# SPDX-License-Identifier: GPL-2.0-only
"""Where kernels come from."""
