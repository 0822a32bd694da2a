# SPDX-License-Identifier: GPL-2.0-only
"""Run untrusted code, and programs that read untrusted data, where they can do no harm."""
