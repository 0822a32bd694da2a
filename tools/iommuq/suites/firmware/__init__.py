# SPDX-License-Identifier: GPL-2.0-only
"""Firmware scenarios: does a kernel honour the regions that firmware claims?"""
