# SPDX-License-Identifier: GPL-2.0-only
"""The rules, one module for each group; a new module is registered in `GROUPS`."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

from iommuq.explore.rules import (
    belief,
    errnos,
    iova,
    isolation,
    lifetime,
    nofail,
    ownership,
    refusal,
    regions,
    splats,
)
from iommuq.explore.rules.model import Rule
from iommuq.system.errors import UserError

#: In the order in which breaches of one operation are told.
GROUPS = (
    regions, lifetime, isolation, belief, refusal, nofail, ownership, iova, errnos, splats,
)  # fmt: skip


@cache
def all_rules() -> tuple[Rule, ...]:
    """Return all rules in order."""
    return tuple(rule for group in GROUPS for rule in group.RULES)


def choose(without: Collection[str] = ()) -> tuple[Rule, ...]:
    """Return the rules but for some.

    :param without: names of rules, or of groups of rules.
    :raises UserError: there is no rule or group of one of the names.
    """
    names = {rule.name for rule in all_rules()}
    names |= {rule.name.partition(".")[0] for rule in all_rules()}
    for name in without:
        if name not in names:
            raise UserError(f"no rule {name!r}; there are {', '.join(sorted(names))}")
    return tuple(
        rule for rule in all_rules() if not {rule.name, rule.name.partition(".")[0]} & set(without)
    )
