# SPDX-License-Identifier: GPL-2.0-only
"""Reports of results: one module for each form."""
