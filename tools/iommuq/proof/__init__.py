# SPDX-License-Identifier: GPL-2.0-only
"""What each patch of a queue does to the tests, and whether that is what it promises."""
