# SPDX-License-Identifier: GPL-2.0-only
"""Write a find as a KUnit case that fails without it being fixed.

The case carries the same operations out on the same simulated IOMMU, and expects after the
last one what the rule says.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import fields
from pathlib import Path

from iommuq.explore.drivers import finds as driver_finds
from iommuq.explore.drivers.finds import DriverFind
from iommuq.explore.finds import Find
from iommuq.explore.operations import FAIL_KINDS, Operation
from iommuq.explore.play import AnyFind
from iommuq.explore.rules import all_rules
from iommuq.system.errors import InfraError, UserError, os_errors_as
from iommuq.system.files import read_text, write_whole

#: The suite that the cases are in, in the project.
SUITE = Path("explore/drivers/iommu/tests/explored_kunit.c")
_CASES = "static struct kunit_case explored_cases[] = {\n"
_NAME = re.compile(r"[a-z][a-z0-9_]{2,60}")
_WIDTH = 76
_COLUMNS = 100


def add(root: Path, name: str, find: AnyFind) -> Path:
    """Add a case to the suite, or a scenario to those of firmware.

    :param root: the checkout of the project.
    :param name: of the case, like ``late_joiner_is_bound``.
    :return: the file that was changed.
    :raises UserError: the name is malformed or taken, or the suite is not as expected.
    """
    if isinstance(find, DriverFind):
        return driver_finds.write(name, find)
    assert isinstance(find, Find)
    path = root / SUITE
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is not a name of a case", hint="use a-z, 0-9 and _")
    text = read_text(path)
    if text.count(_CASES) != 1:
        raise UserError(f"{path}: no table of cases to add to")
    if re.search(rf"\bexplored_{name}\b", text):
        raise UserError(f"{path}: there is a case of the name {name}")
    text = text.replace(_CASES, f"{case(name, find)}\n{_CASES}\tKUNIT_CASE(explored_{name}),\n")
    with os_errors_as(InfraError, path):
        write_whole(path, text.encode())
    return path


def case(name: str, find: Find) -> str:
    """Return a find as a function in C."""
    rule = next(rule for rule in all_rules() if rule.name == find.breach.rule)
    words = ["--at", find.step] if find.step else []
    words += ["--seed", str(find.seed)] if find.seed else []
    told = [
        f"{_sentence(find.breach.text)} Rule {rule.name}: {rule.says}",
        f"Source: {rule.source}.",
        f"Found by `{' '.join(['iommuq explore', find.base, *words])}`.",
    ]
    comment = [line for text in told for line in textwrap.wrap(text, _WIDTH)]
    operations = [line for each in find.operations for line in _lines(each)]
    # The core goes on warning of a driver that fails what it must not, also when it is fixed.
    warns = 0 if rule.name == "splats.printed" else len(find.splats)
    return "\n".join(
        [
            "/*",
            *(f" * {line}" for line in comment),
            " */",
            f"static void explored_{name}(struct kunit *test)",
            "{",
            "\tstatic const struct iommu_sim_op ops[] = {",
            *operations,
            "\t};",
            "\tstruct iommu_sim_state state = {};",
            "",
            *['\tkunit_info(test, "expects splat: WARNING\\n");'] * warns,
            "\texplored_run(test, ops, ARRAY_SIZE(ops), &state);",
            *_expectation(find.breach.expect),
            "}",
            "",
        ]
    )


def _expectation(expect: str) -> list[str]:
    """Return the check, one alternative a line."""
    text = f"\tKUNIT_EXPECT_TRUE(test, {expect});"
    if len(text.expandtabs(8)) <= _COLUMNS:
        return [text]
    parts = expect.split(" || ")
    lines = [f"\tKUNIT_EXPECT_TRUE(test, {parts[0]}", *(f"\t\t\t  {part}" for part in parts[1:])]
    return [*(f"{line} ||" for line in lines[:-1]), f"{lines[-1]});"]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _lines(operation: Operation) -> list[str]:
    words = operation.words()
    parts = [f".kind = SIM_{operation.kind.upper()}"]
    for each in fields(Operation):
        value = getattr(operation, each.name)
        if each.name == "kind" or not value:
            continue
        if each.name == "fail_kind":
            value = FAIL_KINDS[value]
        elif each.name == "fail_errno":
            value = value.upper()
        elif each.name in ("a", "b", "c"):
            value = f"{value:#x}" if value > 1 else value
        parts.append(f".{each.name} = {value}")
    # A member and its value stay together.
    whole = [part.replace(" ", "\0") for part in parts]
    lines = [line.replace("\0", " ") for line in textwrap.wrap(", ".join(whole), _WIDTH - 22)]
    return [
        f"\t\t/* {words} */",
        f"\t\t{{ {lines[0]}" + ("" if len(lines) > 1 else " },"),
        *(f"\t\t  {line}" for line in lines[1:-1]),
        *([f"\t\t  {lines[-1]} }},"] if len(lines) > 1 else []),
    ]
