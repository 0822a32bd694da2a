# SPDX-License-Identifier: GPL-2.0-only
"""Mutants: small faults put into the functions of the queue, to see whether the tests notice."""
