# SPDX-License-Identifier: GPL-2.0-only
"""The rules of the JUnit dialect that Jenkins reads."""

from __future__ import annotations

import re
import xml.etree.ElementTree as Tree

TIME = re.compile(r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]*)?")


#: By element: the attributes that it must have, those that it may have, and what may be in it.
RULES: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {
            "group", "time", "skipped", "timestamp", "hostname", "id", "package", "file", "log",
            "url",
        },
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "properties": (set(), set(), {"property"}),
    "property": ({"name", "value"}, set(), set()),
    "testcase": (
        {"name"},
        {"time", "classname", "group"},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "skipped": (set(), {"type", "message"}, set()),
    "error": (set(), {"type", "message"}, set()),
    "failure": (set(), {"type", "message"}, set()),
    "system-out": (set(), set(), set()),
    "system-err": (set(), set(), set()),
}  # fmt: skip


def breaches(element: Tree.Element) -> list[str]:
    """Return what an element, and all in it, has against the rules."""
    must, may, inside = RULES[element.tag]
    has = set(element.attrib)
    found = [f"{element.tag} has no {name}" for name in must - has]
    found += [f"{element.tag} has {name}" for name in has - must - may]
    if element.tag.startswith("testsuite") and not TIME.fullmatch(element.get("time", "")):
        found.append(f"time {element.get('time')}")
    for child in element:
        if child.tag not in inside:
            found.append(f"{child.tag} in {element.tag}")
        else:
            found += breaches(child)
    return found
