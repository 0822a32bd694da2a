# SPDX-License-Identifier: GPL-2.0-only
"""The test suites: each runs on one image and returns results."""
