# SPDX-License-Identifier: GPL-2.0-only
"""What an exploration of a driver finds, and how it is written as a scenario."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from iommuq.explore.drivers.rules import RULES, named
from iommuq.explore.drivers.steps import Step, from_json, listing
from iommuq.explore.drivers.world import World, kinds
from iommuq.explore.finds import check_facts, facts_of, splat_key
from iommuq.explore.rules.model import Breach
from iommuq.firmware.scenario import folder
from iommuq.system.errors import InfraError, UserError, os_errors_as
from iommuq.system.files import write_whole

_TEXTS = {
    "text": r"[A-Za-z0-9][A-Za-z0-9 ,.;:()_@/+-]{0,400}",
    "expect": r"[a-z][A-Za-z0-9 ,.:_-]{0,100}\|[A-Za-z_-]{1,20}|",
    "base": r"[A-Za-z0-9._+-]{0,100}",
    "step": r"[A-Za-z0-9 ,.:=@~()_/+-]{0,300}",
    "note": r"[a-z ,]{0,60}",
    "machine": r"[a-z0-9-]{1,40}",
    "layout": r"[a-z0-9-]{1,40}",
}
_NAME = re.compile(r"[a-z][a-z0-9-]{2,60}")


@dataclass(frozen=True)
class DriverFind:
    """A breach, and the steps that lead to it; see `iommuq.explore.finds.Find`."""

    breach: Breach
    operations: tuple[Step, ...]
    machine: str
    layout: str
    splats: tuple[str, ...] = ()
    faulted: bool = False
    note: str = ""
    base: str = ""
    step: str = ""
    seed: int = 0

    @property
    def signature(self) -> str:
        """What tells it from others: machine, rule, and the last step.

        What a look shows may be long there, whatever was the step before it.
        """
        name = f"{self.machine}: {self.breach.rule}"
        if self.breach.rule == "splats.printed" and self.splats:
            # What a panic says is not where it comes from.
            causes = [each for each in self.splats if not each.startswith("Kernel panic")]
            return f"{name}: {splat_key([*self.splats, *causes][-1])}"
        name += f" ({self.note})" if self.note else ""
        last = self.operations[-1].kind if self.operations else "boot"
        if last != "look":
            name += f" after {last}"
        return f"{name}{' that met a failure' if self.faulted else ''}"

    def relabelled(self, base: str, step: str, seed: int) -> DriverFind:
        """Return it as one of a base and a step."""
        return replace(self, base=base, step=step, seed=seed)

    def to_json(self) -> dict[str, Any]:
        """Return it for a file that `iommuq explore --replay` reads."""
        return facts_of(self) | {
            "machine": self.machine,
            "layout": self.layout,
            "operations": [each.to_json() for each in self.operations],
        }

    def lines(self) -> list[str]:
        """Return it as text: what, the rule and its source, and the steps."""
        rule = named(self.breach.rule)
        world = World.open(self.machine, self.layout)
        claims = "; ".join(f"{each.name}: {', '.join(each.devices)}" for each in world.regions)
        return [
            f"FAIL: {self.machine}: {self.breach.text}",
            f"  rule {rule.name}: {rule.says}",
            f"  source: {rule.source}",
            f"  regions: {claims}",
            *listing(self.operations),
            *(f"  splat: {title}" for title in self.splats),
        ]


def load(data: Mapping[str, Any], where: str) -> DriverFind:
    """Check a file that was written by `DriverFind.to_json`.

    :raises UserError: it is malformed.
    """
    check_facts(data, _TEXTS, [rule.name for rule in RULES], where)
    world = World.open(data["machine"], data["layout"])
    return DriverFind(
        Breach(data["rule"], data["text"], data["expect"]),
        tuple(from_json(data.get("operations"), world, where)),
        world.machine.name,
        world.layout,
        tuple(data["splats"]),
        data["faulted"],
        data["note"],
        data["base"],
        data["step"],
        data["seed"],
    )


def write(name: str, find: DriverFind) -> Path:
    """Write a find as a scenario of its name, and return the file.

    :raises UserError: the name is malformed or taken.
    """
    path = folder() / f"{name}.toml"
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is not a name of a scenario", hint="use a-z, 0-9 and -")
    if path.exists():
        raise UserError(f"{path}: there is a scenario of the name {name}")
    with os_errors_as(InfraError, path):
        write_whole(path, scenario(find).encode())
    return path


def scenario(find: DriverFind) -> str:
    """Return a find as a scenario that fails without it being fixed."""
    world, rule = World.open(find.machine, find.layout), named(find.breach.rule)
    faults = any(step.function for step in find.operations)
    interfaces = {step.words[0] for step in find.operations if step.kind == "claim"}
    needs = [*sorted(interfaces, reverse=True), *(["faults"] if faults else [])]
    lines = [
        "# SPDX-License-Identifier: GPL-2.0-only",
        f"# Found by `iommuq explore {find.base} --on {find.machine}`.",
        f'title = "{rule.says.removesuffix(".")}"',
        'holds = """',
        f"{find.breach.text[0].upper()}{find.breach.text[1:]}: that must not be.",
        f"Rule {rule.name}; source: {rule.source}.",
        '"""',
        f'machines = ["{find.machine}"]',
        *([f"needs = [{_strings(needs)}]"] if needs else []),
        "alone = true",
    ]
    for region in world.regions:
        lines += [
            "",
            "[[region]]",
            f'name = "{region.name}"',
            f"devices = [{_strings(region.devices)}]",
            f"base = {region.base:#x}",
            f"size = {region.size:#x}",
        ]
    last = len(find.operations) - 1
    do, _, word = find.breach.expect.partition("|")
    for number, step in enumerate(find.operations):
        if step.kind == "look":
            continue
        if step.kind == "replug":
            for kind in ("remove", "rescan", "unbind"):
                names = world.devices if kinds()[kind].words else ("",)
                lines += [each for name in names for each in _step(f"{kind} {name}".strip())]
            continue
        if step.function:
            lines += _step(f"fail {step.function} {step.nth}")
        if number == last and step.text == do:
            # What it must end with is asked below.
            break
        lines += _step(step.text, expect=("ok", *_may_end(step)))
        if step.function:
            lines += _step("failed", expect=("yes", "no"))
    expect: tuple[str, ...] = (word,)
    if rule.name == "errnos.documented":
        expect += _may_end(find.operations[-1])
    lines += _step(do, expect=expect, check="holds") if do else _step("listen", check="holds")
    return "\n".join([*lines, ""])


def _may_end(step: Step) -> tuple[str, ...]:
    return (*kinds()[step.kind].errnos, *(["ENOMEM"] if step.function else []))


def _step(do: str, *, expect: tuple[str, ...] = ("ok",), check: str = "") -> list[str]:
    lines = ["", "[[step]]", f'do = "{do}"']
    if check:
        lines.append(f'check = "{check}"')
    if expect != ("ok",):
        words = _strings(expect)
        lines.append(f"expect = [{words}]" if len(expect) > 1 else f"expect = {words}")
    return lines


def _strings(words: Iterable[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)
