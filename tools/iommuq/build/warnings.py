# SPDX-License-Identifier: GPL-2.0-only
"""Compiler warnings of a kernel, as a set that does not depend on what was rebuilt.

An incremental build prints only the warnings of the objects it compiles.  The
ledger keeps those of each object until that object is compiled again, so the
union is always what a build from scratch would print.  A warning is normalised
to file and text: line numbers move with every patch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

#: ``  CC      drivers/iommu/iommu.o``, as make prints it with -Otarget: right
#: before the output of that recipe.
_OBJECT = re.compile(r"^  (?:\[M\] +)?(?:CC|AS|HOSTCC|LD|MODPOST|LINK|CC \[M\])\s+(\S+)\s*$")
_WARNING = re.compile(r"^(?P<file>[^\s:]+?):(?:\d+:)*\s+warning: (?P<text>.*)$")
_TOOL = re.compile(r"^(?:WARNING|warning): (?P<text>modpost: .*|objtool: .*)$")
_OBJTOOL = re.compile(r"^(?P<file>\S+\.o): warning: (?P<text>objtool: .*)$")
_OFFSET = re.compile(r"\+0x[0-9a-f]+")

Ledger = dict[str, list[str]]


def normalise(line: str, source: Path) -> str | None:
    """Return a warning without line numbers and machine paths; None if it is not one.

    :param line: one line of a build.
    :param source: the source tree, whose path is taken out.
    """
    text = line.replace(f"{source}/", "")
    match = _OBJTOOL.match(text) or _WARNING.match(text)
    if match:
        file = match["file"].removeprefix("../").removeprefix("./")
        return f"{file}: {_OFFSET.sub('', match['text'])}"
    match = _TOOL.match(text)
    return _OFFSET.sub("", match["text"]) if match else None


def compiled(line: str) -> str | None:
    """Return the object that a line of a build says is being made."""
    match = _OBJECT.match(line)
    return match[1] if match else None


def update(ledger: Ledger, lines: Iterable[str], source: Path, objects: Path) -> Ledger:
    """Return the ledger as it is after a build.

    :param ledger: warnings by object, of the build directory before.
    :param lines: what the build printed, made with ``-Otarget``.
    :param source: the source tree.
    :param objects: the build directory.
    """
    # An object whose source is gone is in no kernel any more.
    new = {made: found for made, found in ledger.items() if _has_source(made, source, objects)}
    current = ""
    for line in lines:
        made = compiled(line)
        if made is not None:
            current = made
            new.pop(current, None)
            continue
        warning = normalise(line, source)
        if warning is not None:
            seen = new.setdefault(current, [])
            if warning not in seen:
                seen.append(warning)
    return new


def _has_source(made: str, source: Path, objects: Path) -> bool:
    stem = made.removesuffix(".o")
    if stem == made:
        return True
    # Some sources are themselves made.
    return any((top / f"{stem}{end}").exists() for top in (source, objects) for end in (".c", ".S"))


def union(ledger: Ledger) -> frozenset[str]:
    """Return all warnings of a ledger."""
    return frozenset(warning for found in ledger.values() for warning in found)


def load(path: Path) -> Ledger:
    """Read a ledger; a missing or damaged one is empty."""
    try:
        data = json.loads(path.read_text())
        return {str(key): [str(item) for item in value] for key, value in data.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def save(ledger: Ledger, path: Path) -> None:
    """Write a ledger, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(ledger, indent=0, sort_keys=True))
    temporary.replace(path)
