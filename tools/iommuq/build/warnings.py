# SPDX-License-Identifier: GPL-2.0-only
"""All compiler warnings of a kernel, also after an incremental build.

The ledger keeps the warnings of each object until it is compiled again, without line numbers.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from iommuq.system import files
from iommuq.system.tables import load_json

#: ``  CC      drivers/iommu/iommu.o``, which -Otarget puts before the output of its recipe.
_OBJECT = re.compile(r"^  (?:\[M\] +)?(?:CC|AS|HOSTCC|LD|MODPOST|LINK|CC \[M\])\s+(\S+)\s*$")
_WARNING = re.compile(r"^(?P<file>[^\s:]+?):(?:\d+:)*\s+warning: (?P<text>.*)$")
_TOOL = re.compile(r"^(?:WARNING|warning): (?P<text>modpost: .*|objtool: .*)$")
_OBJTOOL = re.compile(r"^(?P<file>\S+\.o): warning: (?P<text>objtool: .*)$")
_OFFSET = re.compile(r"\+0x[0-9a-f]+")

Ledger = dict[str, list[str]]


def normalise(line: str, source: Path) -> str | None:
    """Return the warning in a line of a build; None if there is none.

    :return: without line numbers and the path of the tree *source*.
    """
    text = line.replace(f"{source}/", "")
    match = _OBJTOOL.match(text) or _WARNING.match(text)
    if match:
        file = match["file"].removeprefix("../").removeprefix("./")
        return f"{file}: {_OFFSET.sub('', match['text'])}"
    match = _TOOL.match(text)
    return _OFFSET.sub("", match["text"]) if match else None


def compiled(line: str) -> str | None:
    """Return the object that a line of a build names; None if it names none."""
    match = _OBJECT.match(line)
    return match[1] if match else None


def update(ledger: Ledger, lines: Iterable[str], source: Path, objects: Path) -> Ledger:
    """Return the ledger after a build.

    :param ledger: the warnings by object before it.
    :param lines: output of the build, made with ``-Otarget``.
    :param source: the source tree.
    :param objects: the build directory.
    """
    # Without its source an object is in no kernel.
    new = {
        made: dict.fromkeys(found)
        for made, found in ledger.items()
        if _has_source(made, source, objects)
    }
    current = ""
    for line in lines:
        made = compiled(line)
        if made is not None:
            current = made
            new.pop(current, None)
            continue
        warning = normalise(line, source)
        if warning is not None:
            new.setdefault(current, {})[warning] = None
    return {made: list(found) for made, found in new.items()}


def _has_source(made: str, source: Path, objects: Path) -> bool:
    stem = made.removesuffix(".o")
    if stem == made:
        return True
    # Some sources are generated.  Path.exists() raises for a name that is too long.
    places = (top / f"{stem}{end}" for top in (source, objects) for end in (".c", ".S"))
    return any(map(os.path.exists, places))


def union(ledger: Ledger) -> frozenset[str]:
    """Return all warnings of a ledger."""
    return frozenset(warning for found in ledger.values() for warning in found)


def load_ledger(path: Path) -> Ledger:
    """Read a ledger; a missing or damaged one is empty."""
    return load_json(Ledger, path) or {}


def save(ledger: Ledger, path: Path) -> None:
    """Write a ledger."""
    files.write_whole(path, json.dumps(ledger, indent=0, sort_keys=True).encode())
