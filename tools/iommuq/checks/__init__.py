# SPDX-License-Identifier: GPL-2.0-only
"""The checks of a patch before it is sent; each is a small plug-in with a name."""
