# SPDX-License-Identifier: GPL-2.0-only
"""Show results: one module a form."""
