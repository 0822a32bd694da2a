# SPDX-License-Identifier: GPL-2.0-only
"""The mailing-list side: prepare, check, send, collect, compare and review, on b4."""
