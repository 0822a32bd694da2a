# SPDX-License-Identifier: GPL-2.0-only
"""Build an image from a tree and a configuration."""
