# SPDX-License-Identifier: GPL-2.0-only
"""Read and write ``.config`` files and Kconfig fragments.

Source: scripts/kconfig/confdata.c, conf_read_simple() and print_symbol().
"""

from __future__ import annotations

import re

_ENTRY = re.compile(r'^CONFIG_(\w+)=(\S+|".*")$|^# CONFIG_(\w+) is not set$')


def parse(text: str) -> dict[str, str]:
    """Return the symbols of a ``.config`` or fragment; ``n`` stands for *is not set*."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _ENTRY.match(line.strip())
        if match:
            found[match[1] or match[3]] = match[2] if match[1] else "n"
    return found


def malformed(text: str) -> int | None:
    """Return the number of the first malformed line of a fragment; None if there is none."""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.strip()
        if words and not words.startswith("#") and not _ENTRY.match(words):
            return number
    return None


def render(symbols: dict[str, str]) -> str:
    """Return symbols as a fragment; the reverse of `parse`."""
    return "".join(
        f"# CONFIG_{name} is not set\n" if value == "n" else f"CONFIG_{name}={value}\n"
        for name, value in symbols.items()
    )


def missing(wanted: dict[str, str], got: dict[str, str]) -> dict[str, str]:
    """Return the symbols of *wanted* whose value in *got* differs; no entry counts as ``n``."""
    return {name: value for name, value in wanted.items() if got.get(name, "n") != value}
