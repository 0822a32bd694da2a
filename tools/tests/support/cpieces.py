# SPDX-License-Identifier: GPL-2.0-only
"""Pieces of C, to be put together at random."""

from __future__ import annotations

PIECES = [
    *("int f(void)\n", "{", "}", "(", ")", ";", "if (x)", "for_each_y(a, b)", "return -EINVAL;"),
    *("goto out;", "out:", "a && b", "||", "\n", "/*", "*/", '"', "'", "\\", "#if 0\n", "#endif\n"),
    *("for (i = 0; i < 3; i++)", "while", "\0", "\xff", "é"),
]
