# SPDX-License-Identifier: GPL-2.0-only
"""The checks of a patch before it is sent."""
