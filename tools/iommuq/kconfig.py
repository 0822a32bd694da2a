# SPDX-License-Identifier: GPL-2.0-only
"""Say why a symbol that a fragment asks for is not set in a ``.config``.

The merging itself is kunit.py's; it names the symbols that did not make it but
not what they wait for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from iommuq.errors import CommandFailed, VerdictError
from iommuq.run import run

_ENTRY = re.compile(r"^CONFIG_(\w+)=(.*)$|^# CONFIG_(\w+) is not set$")
_WORD = re.compile(r"\b[A-Z0-9_]*[A-Z][A-Z0-9_]*\b")
#: Lines of a Kconfig file that belong to the entry above them.
_INDENTED = re.compile(r"^\s")


@dataclass(frozen=True)
class Unmet:
    """A symbol that was asked for in vain.

    :ivar wanted: its line in the fragment.
    :ivar where: file and line that define it, empty if nothing does.
    :ivar depends: what it depends on, one expression an entry.
    """

    wanted: str
    where: str
    depends: tuple[str, ...]


def parse(text: str) -> dict[str, str]:
    """Return the symbols of a ``.config`` or fragment; ``n`` stands for *is not set*."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _ENTRY.match(line.strip())
        if match:
            found[match[1] or match[3]] = match[2] if match[1] else "n"
    return found


def missing(wanted: dict[str, str], got: dict[str, str]) -> dict[str, str]:
    """Return what *wanted* asks for and *got* has otherwise; no entry counts as ``n``."""
    return {name: value for name, value in wanted.items() if got.get(name, "n") != value}


def explain(tree: Path, names: Iterable[str], got: dict[str, str]) -> list[Unmet]:
    """Find out what keeps symbols from being set.

    :param tree: kernel source tree.
    :param names: symbols, without ``CONFIG_``.
    :param got: the ``.config`` as it came out.
    :return: one entry a symbol, with the dependencies that *got* does not meet first.
    """
    return [_explain_one(tree, name, got) for name in names]


def _explain_one(tree: Path, name: str, got: dict[str, str]) -> Unmet:
    pattern = rf"^[[:space:]]*(menu)?config {name}[[:space:]]*$"
    grep = ["grep", "-rnE", "--include=Kconfig*", pattern, "."]
    try:
        first = run(grep, cwd=tree, timeout=120).output.splitlines()[0]
    except (CommandFailed, IndexError):
        return Unmet(name, "", ())
    file, number, _ = first.removeprefix("./").split(":", 2)
    lines = (tree / file).read_text(errors="replace").splitlines()[int(number) :]
    depends: list[str] = []
    for line in lines:
        if line.strip() and not _INDENTED.match(line):
            break
        word = line.strip()
        if word.startswith("depends on "):
            expression = word.removeprefix("depends on ")
            values = {
                symbol: got.get(symbol, "n") for symbol in dict.fromkeys(_WORD.findall(expression))
            }
            state = ", ".join(f"{symbol}={value}" for symbol, value in values.items())
            depends.append(f"{expression} ({state})")
    return Unmet(name, f"{file}:{number}", tuple(depends))


def check(tree: Path, wanted: dict[str, str], config: Path) -> None:
    """Check that a ``.config`` has all that the fragments asked for.

    :raises VerdictError: naming each symbol that it has not, and what that depends on.
    """
    got = parse(config.read_text())
    lost = missing(wanted, got)
    if not lost:
        return
    words = []
    for unmet in explain(tree, lost, got):
        name = unmet.wanted
        if not unmet.where:
            words.append(f"CONFIG_{name}={lost[name]}: no such symbol in this tree")
        else:
            why = "; ".join(unmet.depends) or "selected or forced by another symbol"
            words.append(f"CONFIG_{name}={lost[name]} ({unmet.where}) needs {why}")
    raise VerdictError("not configured as asked: " + " | ".join(words))
