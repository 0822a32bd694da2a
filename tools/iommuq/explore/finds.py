# SPDX-License-Identifier: GPL-2.0-only
"""What an exploration finds: a rule that does not hold after a sequence of operations."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from iommuq.explore.operations import Operation, from_json, listing, to_json
from iommuq.explore.play import AnyFind
from iommuq.explore.rules import all_rules
from iommuq.explore.rules.model import Breach
from iommuq.system.errors import UserError

FORMAT = 1
# What goes into C source when a find is written as a case: a file may come from others.  No
# text ends a comment, and no expression calls, assigns or ends the statement.
_TEXTS = {
    "text": r"[A-Za-z0-9][A-Za-z0-9 ,.;:()_@/+-]{0,400}",
    "base": r"[A-Za-z0-9._+-]{0,100}",
    "note": r"[a-z ,]{0,60}",
    "step": r"[A-Za-z0-9 ,.:=@~()_/+-]{0,300}",
    "expect": (
        r"(?:\bstate(?:\.(?:dev|group)\[\d\])?\.[a-z_]+(?:\[\d\])?|\bSIM_[A-Z_]+\b"
        r"|\bIOMMU_DOMAIN_[A-Z_]+\b|-?\b(?:E[A-Z0-9]+|\d{1,10})\b|[!=]=|<=|\|\||[&~!() ]){1,100}"
    ),
}
#: Seeds are below.
_SEEDS = 1 << 32
_FUNCTION = re.compile(r" (?:at|in) (?:\S+:\d+ )?(?:at )?([A-Za-z_]\w+)(?:\+0x|\.)")


@dataclass(frozen=True)
class Find:
    """A breach, and the operations that lead to it.

    :ivar splats: the titles of the splats of the sequence.
    :ivar faulted: a failure was injected and met in the last operation.
    :ivar note: what else tells it from others: of the device that it is about.
    :ivar base: the base, and the step that was explored.
    :ivar seed: of the exploration.
    """

    breach: Breach
    operations: tuple[Operation, ...]
    splats: tuple[str, ...] = ()
    faulted: bool = False
    note: str = ""
    base: str = ""
    step: str = ""
    seed: int = 0

    @property
    def signature(self) -> str:
        """What tells it from others: the rule, the last operation, and whether that failed."""
        name, last = self.breach.rule, self.operations[-1].kind
        if name == "splats.printed" and self.splats:
            key = splat_key(self.splats[-1])
            # What a panic says is not where it comes from.
            return f"{name}: {key}{f' after {last}' if key.startswith('Kernel panic') else ''}"
        name += f" ({self.note})" if self.note else ""
        return f"{name} after {last}{' that met a failure' if self.faulted else ''}"

    def relabelled(self, base: str, step: str, seed: int) -> Find:
        """Return it as one of a base and a step."""
        return replace(self, base=base, step=step, seed=seed)

    def to_json(self) -> dict[str, Any]:
        """Return it for a file that `iommuq explore --replay` reads."""
        return facts_of(self) | {"operations": to_json(self.operations)}

    def lines(self) -> list[str]:
        """Return it as text: what, the rule and its source, and the operations."""
        rule = next(rule for rule in all_rules() if rule.name == self.breach.rule)
        found = [
            f"FAIL: {self.breach.text}",
            f"  rule {rule.name}: {rule.says}",
            f"  source: {rule.source}",
            *listing(self.operations),
        ]
        return [*found, *(f"  splat: {title}" for title in self.splats)]


def facts_of(find: AnyFind) -> dict[str, Any]:
    """Return what a find of the core and one of a driver have in common, for their files."""
    return {
        "format": FORMAT,
        "rule": find.breach.rule,
        "text": find.breach.text,
        "expect": find.breach.expect,
        "signature": find.signature,
        "faulted": find.faulted,
        "note": find.note,
        "splats": list(find.splats),
        "base": find.base,
        "step": find.step,
        "seed": find.seed,
    }


def check_facts(
    data: Mapping[str, Any], texts: Mapping[str, str], rules: Collection[str], where: str
) -> None:
    """Check what `facts_of` has written.

    :param texts: the patterns of the fields that are texts.
    :param rules: the names that there are.
    :raises UserError: it is malformed.
    """
    if not _is_number(data.get("format"), FORMAT, FORMAT + 1):
        raise UserError(f"{where}: not a find of format {FORMAT}")
    for name, pattern in texts.items():
        value = data.get(name)
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
            raise UserError(f"{where}: {name} cannot be {reprlib.repr(value)}")
    # In a list anything can be looked for.
    if data.get("rule") not in list(rules):
        raise UserError(f"{where}: no rule {reprlib.repr(data.get('rule'))}")
    splats = data.get("splats")
    if not isinstance(splats, list) or not all(isinstance(each, str) for each in splats):
        raise UserError(f"{where}: splats must be a list of strings")
    if not _is_number(data.get("seed"), 0, _SEEDS):
        raise UserError(f"{where}: seed must be a number from 0 to {_SEEDS - 1}")
    if type(data.get("faulted")) is not bool:
        raise UserError(f"{where}: faulted must be true or false")


def splat_key(title: str) -> str:
    """Return the title of a splat without line numbers and addresses."""
    kind = title.partition(":")[0].split(" ")[0]
    if "KASAN: " in title:
        kind = title.partition("KASAN: ")[2].partition(" in ")[0]
    match = _FUNCTION.search(title)
    return f"{kind} in {match[1]}" if match else re.sub(r"0x[0-9a-f]+|\d+", "N", title)[:80]


def load(data: object, where: str) -> Find:
    """Check a file that was written by `Find.to_json`.

    :raises UserError: it is malformed.
    """
    if not isinstance(data, dict):
        raise UserError(f"{where}: not a find of format {FORMAT}")
    # Files of before these were written have none of them.
    data = {"note": "", "splats": [], "faulted": False, "seed": 0, **data}
    check_facts(data, _TEXTS, [rule.name for rule in all_rules()], where)
    return Find(
        Breach(data["rule"], data["text"], data["expect"]),
        tuple(from_json(data.get("operations"), where)),
        tuple(data["splats"]),
        data["faulted"],
        note=data["note"],
        base=data["base"],
        step=data["step"],
        seed=data["seed"],
    )


def _is_number(value: object, least: int, end: int) -> bool:
    # true is an int for Python.
    return type(value) is int and least <= value < end
