# SPDX-License-Identifier: GPL-2.0-only
"""How long it takes to find what is known: the table of ``docs/generated/explored.md``."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median

from iommuq.explore.campaign import Outcome, Plan, explore
from iommuq.explore.drivers.rules import RULES
from iommuq.explore.plans import Wanted, plans_of
from iommuq.explore.rules import all_rules
from iommuq.explore.run import summary
from iommuq.system import progress
from iommuq.system.errors import UserError, os_errors_as
from iommuq.system.files import project_root, write_whole
from iommuq.system.tables import Table, own_table, require

#: Seeds of the table, and seconds after which a defect counts as not found.
SEEDS = (1, 2, 3)
LIMIT = 600.0
#: The page with the table, in the project.
PAGE = Path("docs/generated/explored.md")


@dataclass(frozen=True)
class Defect(Table):
    """One entry of ``known.toml``.

    :ivar signatures: of the finds that show it; ``*`` stands for anything.
    :ivar kernels: base -> the last step of its queue that has it; empty: the last of all.
    :ivar on: the machine of QEMU that shows it; empty: the simulated IOMMU.
    :ivar layout: what its firmware claims.
    """

    name: str
    signatures: tuple[str, ...]
    source: str
    kernels: Mapping[str, str]
    on: str = ""
    layout: str = ""

    def __post_init__(self) -> None:
        require(self.signatures, "signatures is empty")
        require(self.kernels, "kernels is empty")


@dataclass(frozen=True)
class Row:
    """What the seeds of one defect on one kernel took.

    :ivar times: seconds and operations of each seed that found it.
    :ivar signature: what was found.
    """

    defect: Defect
    base: str
    step: str
    times: tuple[tuple[float, int], ...]
    signature: str

    @property
    def found(self) -> bool:
        """Whether each seed has found it."""
        return len(self.times) == len(SEEDS)


@cache
def defects() -> tuple[Defect, ...]:
    """Return the entries of ``known.toml``."""
    tables = own_table(__package__, "known.toml")["defect"]
    return tuple(
        Defect(
            each["name"],
            tuple(each["signatures"]),
            each["source"],
            each["kernels"],
            each.get("on", ""),
            each.get("layout", ""),
        )
        for each in tables
    )


def make_page(wanted: Wanted) -> tuple[str, bool]:
    """Look for each defect of each base; write the page, unless a rule is left out.

    Nor is it written if a defect was not found in less than `LIMIT`: that says nothing of it.

    :return: the page, and whether each seed has found each defect.
    :raises UserError: the page cannot be written, or operations are counted.
    """
    if wanted.most:
        raise UserError("--operations is not for --known", hint="--for ends each search")
    bases = dict.fromkeys(base for defect in defects() for base in defect.kernels)
    limit = min(LIMIT, wanted.seconds)
    rows = [row for base in bases for row in search(replace(wanted, base=base), limit)]
    text, found = table(rows), all(row.found for row in rows)
    if wanted.without or wanted.on:
        return text, found
    if limit < LIMIT and not found:
        progress.note(f"{PAGE} stays as it is: --for is less than {LIMIT:g} s")
    else:
        path = project_root() / PAGE
        with os_errors_as(UserError, path):
            write_whole(path, text.encode())
    return text, found


def search(wanted: Wanted, limit: float = LIMIT) -> list[Row]:
    """Look for each defect of a base with an empty database.

    :param wanted: base, and rules that are left out.
    :param limit: seconds for each seed.
    :raises GuestDied: a guest was lost, and its kernel has not printed why.
    """
    rows = []
    plans: dict[tuple[str, str, str], Plan] = {}
    for defect in defects():
        at = defect.kernels.get(wanted.base)
        if at is None or (wanted.on and defect.on != wanted.on):
            continue
        key = (at, defect.on, defect.layout)
        if key not in plans:
            again = replace(
                wanted, at=at or None, empty=True, without=_own(wanted.without, defect),
                on=defect.on, layout=defect.layout,
                # No defect of a driver needs KASAN or lockdep to be seen, and a step is
                # eight times as fast without them.
                light=bool(defect.on),
            )  # fmt: skip
            (plans[key],) = plans_of(again)
        plan = replace(plans[key], seconds=limit, enough=1, step=at or plans[key].step)
        rows.append(_row(defect, plan))
        progress.note(_words(rows[-1]))
    return rows


def _own(without: tuple[str, ...], defect: Defect) -> tuple[str, ...]:
    """Return the rules that are left out, of those that there are for a defect's machine."""
    names = {rule.name for rule in (RULES if defect.on else all_rules())}
    known = names | {name.partition(".")[0] for name in names}
    return tuple(name for name in without if name in known)


def _row(defect: Defect, plan: Plan) -> Row:
    times: list[tuple[float, int]] = []
    signature = ""
    with progress.task(f"Looking for: {defect.name}") as step:
        for seed in SEEDS:
            outcome = Outcome()
            # What is in the list of known finds is looked for here.
            blind = replace(plan.exceptions, known=())
            explore(
                replace(plan, seed=seed, only=defect.signatures, exceptions=blind, quick=True),
                outcome,
                lambda so_far: step.update(note=summary(so_far)),
                lambda _find, _repeats: None,
            )
            times += outcome.times.values()
            signature = next(iter(outcome.times), signature)
    return Row(defect, plan.base, plan.step, tuple(times), signature)


def _words(row: Row) -> str:
    if not row.times:
        return f"not found: {row.defect.name}"
    seconds = median(each[0] for each in row.times)
    return f"found after {seconds:.1f} s: {row.defect.name}"


def table(rows: Sequence[Row]) -> str:
    """Return the page with the table."""
    lines = [
        "# What explore finds, and how soon",
        "",
        "Made by `iommuq explore --known`: for each defect the time and the operations until",
        f"an exploration meets it, from an empty database; median of {len(SEEDS)} seeds, one guest",
        f"of User-mode Linux on {platform.machine()} with KASAN and lockdep, or of the machine",
        "that is named, with the kernel of `--light`.",
        "",
        "| Defect | Kernel | Found as | Seconds | Operations |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        kernel = f"{row.base} {row.step}{f', {row.defect.on}' if row.defect.on else ''}"
        if row.found:
            seconds = f"{median(each[0] for each in row.times):.1f}"
            operations = f"{median(each[1] for each in row.times):.0f}"
        else:
            seconds = operations = f"{len(row.times)} of {len(SEEDS)}"
        lines.append(
            f"| {row.defect.name} ({row.defect.source}) | {kernel} | {row.signature or 'not found'}"
            f" | {seconds} | {operations} |"
        )
    return "\n".join([*lines, ""])
