# SPDX-License-Identifier: GPL-2.0-only
"""Prove that each patch of a queue changes the tests as it promises."""
