# SPDX-License-Identifier: GPL-2.0-only
"""Explained survivors, which no test can notice: ``patches/<base>/mutants.toml``."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iommuq.proof.mutants import hunks
from iommuq.proof.mutants.faults import OPERATORS, Mutant
from iommuq.system import tables
from iommuq.system.tables import Table, require

#: The file, in the folder of the base.
NAME = "mutants.toml"


@dataclass(frozen=True)
class Explanation(Table):
    """One entry, a ``[[mutant]]``.  It has no line number, which would drift.

    :ivar function: empty for a mutant outside of functions.
    :ivar before: the lines without the fault; for a hunk, the code with the patch.
    :ivar after: the same lines with the fault; for a hunk, the code before the patch.
    :ivar number: selects one of several equal mutants; None if there is only one.
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
        """Return whether the entry is for *mutant*; blanks do not count."""
        return (
            (self.file, self.function, self.operator)
            == (mutant.path, mutant.function, mutant.operator)
            and self.before.split() == mutant.before.split()
            and self.after.split() == mutant.after.split()
            and self.number in (None, mutant.number)
        )


@dataclass(frozen=True)
class _Document(Table):
    mutant: tuple[Explanation, ...] = ()


def load_explanations(folder: Path) -> tuple[Explanation, ...]:
    """Read the list of a base; a missing file is empty.

    :param folder: ``patches/<base>``.
    :raises UserError: it is malformed.
    """
    path = folder / NAME
    return tables.load_toml(_Document, path).mutant if os.path.lexists(path) else ()


def match(
    entries: Sequence[Explanation],
    mutants: Sequence[Mutant],
    operators: Collection[str] = tuple(OPERATORS),
) -> tuple[Mapping[Mutant, Explanation], tuple[str, ...]]:
    """Find the mutant of each entry.

    :param mutants: all mutants of these operators in the files of the queue.
    :param operators: entries for others are ignored.
    :return: the explained mutants, and the errors of the list, one line each.
    """
    found: dict[Mutant, Explanation] = {}
    wrong = []
    for number, entry in enumerate(entries, 1):
        if entry.operator not in operators:
            continue
        where = f"{NAME}: mutant {number} ({entry.function}, {entry.operator})"
        covered = [mutant for mutant in mutants if entry.covers(mutant)]
        if len(covered) > 1:
            wrong.append(f"{where}: matches {len(covered)} mutants: select one with number = 1, …")
        elif not covered:
            wrong.append(f"{where}: matches no mutant")
        elif covered[0] in found:
            wrong.append(f"{where}: listed twice")
        else:
            found[covered[0]] = entry
    return found, tuple(wrong)
