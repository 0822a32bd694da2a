# SPDX-License-Identifier: GPL-2.0-only
"""Turn a tree and a configuration into an image."""
