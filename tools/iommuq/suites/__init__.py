# SPDX-License-Identifier: GPL-2.0-only
"""The suites: each runs on one image and returns results."""
