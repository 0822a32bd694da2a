# SPDX-License-Identifier: GPL-2.0-only
"""Review a posted series: test it in a sandbox, and draft replies."""
