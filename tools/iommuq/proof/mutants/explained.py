# SPDX-License-Identifier: GPL-2.0-only
"""Survivors that are explained: ``patches/<base>/mutants.toml``.

A mutant that no test can notice, since the code means the same with it, is listed with
the reason::

    [[mutant]]
    file = "drivers/iommu/iommu.c"
    function = "__iommu_device_set_domain"
    operator = "skip-statement"
    before = "dev_warn_ratelimited(dev, …);"      # the lines as they are; blanks do not count
    after = ";"                                   # the same lines with the fault
    number = 2                                    # of those that are alike; by default the only one
    reason = "why no test can notice"

Line numbers drift, so there are none.  Of a hunk that was taken back, ``before`` is what the
patch made of it and ``after`` what was there before the patch; ``function`` is empty for what is
in none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iommuq.bases.providers.job import Table, require
from iommuq.proof.mutants import hunks
from iommuq.proof.mutants.faults import OPERATORS, Mutant
from iommuq.system import tables

#: The file, in the folder of the base.
NAME = "mutants.toml"


@dataclass(frozen=True)
class Explanation(Table):
    """One entry.

    :ivar number: which of the mutants that are alike; None if there is but one.
    """

    file: str
    function: str
    operator: str
    before: str
    after: str
    reason: str
    number: int | None = None

    def __post_init__(self) -> None:
        operators = (*OPERATORS, *hunks.OPERATORS)
        require(self.operator in operators, f"operator is none of {', '.join(operators)}")
        require(self.reason.strip(), "reason is empty")
        require(self.number is None or self.number > 0, "number counts from 1")

    def covers(self, mutant: Mutant) -> bool:
        """Tell whether the entry is for *mutant*."""
        return (
            (self.file, self.function, self.operator)
            == (mutant.path, mutant.function, mutant.operator)
            and _words(self.before) == _words(mutant.before)
            and _words(self.after) == _words(mutant.after)
            and self.number in (None, mutant.number)
        )


@dataclass(frozen=True)
class _Document(Table):
    mutant: tuple[Explanation, ...] = ()


def _words(text: str) -> list[str]:
    return text.split()


def load(folder: Path) -> tuple[Explanation, ...]:
    """Read the list of a base; one that is not there is empty.

    :param folder: the folder of the base.
    :raises UserError: it is malformed.
    """
    path = folder / NAME
    return tables.load(_Document, path).mutant if path.exists() else ()


def match(
    entries: Sequence[Explanation],
    mutants: Sequence[Mutant],
    operators: Collection[str] = tuple(OPERATORS),
) -> tuple[Mapping[Mutant, Explanation], tuple[str, ...]]:
    """Find the mutant that each entry is for.

    :param mutants: all that there are of these operators in the files of the queue.
    :param operators: entries for others are left alone.
    :return: the explained mutants, and what is wrong with the list, one line each.
    """
    found: dict[Mutant, Explanation] = {}
    wrong = []
    for number, entry in enumerate(entries, 1):
        if entry.operator not in operators:
            continue
        where = f"{NAME}: mutant {number} ({entry.function}, {entry.operator})"
        covered = [mutant for mutant in mutants if entry.covers(mutant)]
        if len(covered) > 1:
            wrong.append(f"{where}: fits {len(covered)} mutants; say which with number = 1, 2, …")
        elif not covered:
            wrong.append(f"{where}: fits no mutant any more")
        elif covered[0] in found:
            wrong.append(f"{where}: is there twice")
        else:
            found[covered[0]] = entry
    return found, tuple(wrong)
