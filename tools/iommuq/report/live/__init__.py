# SPDX-License-Identifier: GPL-2.0-only
"""Progress of each step and suite, for people and for programs."""
