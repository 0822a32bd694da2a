# SPDX-License-Identifier: GPL-2.0-only
"""Live progress of each step and suite, as a table or as JSON."""
