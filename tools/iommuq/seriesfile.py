# SPDX-License-Identifier: GPL-2.0-only
"""Change a series file and leave alone what people wrote around the names in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_NAME = re.compile(r"\s*(?P<name>[^\s#]\S*)(?P<rest>.*)", re.DOTALL)


def rewrite(text: str, order: Sequence[str], names: Mapping[str, str]) -> str:
    """Return a series file with other names in another order.

    Comments and empty lines stay with the patch that they stand before.  What stands
    before the first patch of a section is about the section, and stays at its head;
    with the last patch of a section it leaves.

    :param text: the file.
    :param order: the names it is to have.
    :param names: what each of them was called in *text*; those not in it are new.
    """
    header, leads, lines, tail = _parse(text)
    heads: dict[str, str] = {}
    for old in lines:
        section = _section(old)
        if section not in heads:
            heads[section] = leads.pop(old)
    used: set[str] = set()
    out = [header]
    for name in order:
        section = _section(name)
        if section not in used:
            used.add(section)
            head = heads.get(section, "\n" if len(out) > 1 else "")
            # What set it apart from a section that is no longer before it.
            moved = len(out) == 1 and section != next(iter(heads), section)
            out.append(head.lstrip("\n") if moved else head)
        old = names.get(name, "")
        out.append(leads.get(old, ""))
        match = _NAME.fullmatch(lines.get(old, f"{name}\n"))
        assert match is not None
        out.append(f"{name}{match['rest']}")
    return "".join(out) + tail


def _section(name: str) -> str:
    return name.rpartition("/")[0].partition("/")[0]


def _parse(text: str) -> tuple[str, dict[str, str], dict[str, str], str]:
    """Take a series file apart.

    :return: what stands at the top, up to the first empty line; what stands before each
        patch; the line of each; what stands at the end.
    """
    leads: dict[str, str] = {}
    lines: dict[str, str] = {}
    lead = ""
    for line in text.splitlines(keepends=True):
        match = _NAME.fullmatch(line)
        if match is None:
            lead += line
            continue
        name = match["name"].removeprefix("./")
        leads[name], lines[name] = lead, line if line.endswith("\n") else f"{line}\n"
        lead = ""
    if not lines:
        return lead, {}, {}, ""
    first = next(iter(leads))
    # The last empty line before the first patch ends what is said of the whole file.
    end = leads[first].rfind("\n\n")
    header = leads[first][: end + 2] if end >= 0 else ""
    leads[first] = leads[first][len(header) :]
    return header, leads, lines, lead
