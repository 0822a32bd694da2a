# SPDX-License-Identifier: GPL-2.0-only
"""Which goals made-up drivers meet, before and after a queue."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from iommudrivers import goals
from iommudrivers.command import claiming, run_goals
from iommudrivers.goals import State
from iommudrivers.model import Driver, How, Reason, Region, Source, Verdict
from iommudrivers.notes import Note
from iommudrivers.page import Kernel
from iommudrivers.values import Place
from iommuq.guests.machine import load_machine
from iommuq.system.errors import UserError

PLACE = Place("drivers/iommu/toy/iommu.c", 7)
NEVER = Verdict("attach", PLACE)
FAILS = Verdict("attach", PLACE, (Reason("-ENOMEM", PLACE),))
DOUBT = Verdict("attach", PLACE, (), (Reason("a pointer to a function", PLACE),))
DIRECT = (Region("DIRECT", PLACE, ("regions",)),)
GOOD = Driver(
    *("toy", "toy_ops", PLACE),
    identity=(Source(How.STATIC, "identity", PLACE, NEVER),),
    blocked=(Source(How.STATIC, "blocked", PLACE, NEVER),),
    release="blocked (blocked)",
    default="",
    resv="",
    regions=(),
)


def cells(before: Driver | None, after: Driver, *, recovers: bool = True) -> list[str]:
    """Return the cells of the only row."""
    plain = Kernel("7.3", "Linux 7.3", () if before is None else (before,))
    state = State(
        plain,
        Kernel("7.3", "Linux 7.3, x", (after,)),
        recovers,
        [("q35-toy", "drivers/iommu/toy/")],
    )
    (row,) = [line for line in goals.table(state) if line.startswith("| toy")]
    return row.strip("| ").split(" | ")[1:]


@pytest.mark.parametrize(
    ("driver", "column", "why"),
    [
        (replace(GOOD, blocked=(replace(GOOD.blocked[0], verdict=FAILS),)), 0, "blocked, -ENOMEM"),
        (
            replace(GOOD, identity=(replace(GOOD.identity[0], verdict=DOUBT),)),
            0,
            "identity, undecided, a",
        ),
        (replace(GOOD, blocked=(Source(How.NONE),)), 1, "blocked is none"),
        (replace(GOOD, identity=(Source(How.ALLOCATED),)), 1, "identity is allocated"),
        (replace(GOOD, release=""), 2, "no release_domain"),
        (replace(GOOD, release="identity (identity)"), 2, "release_domain is identity"),
        (replace(GOOD, blocked=(Source(How.NONE),)), 3, "no static blocked domain"),
    ],
)
def test_what_stands_against_a_goal(driver: Driver, column: int, why: str) -> None:
    """Each lack opens its goal, with the place; what the queue mends is told."""
    said = cells(GOOD, driver)
    assert said[column].startswith(f"open: {why.split()[0]}")
    assert why in said[column]
    assert str(PLACE) in said[column]
    assert cells(driver, GOOD)[column] == "**met with the queue**"


def test_all_goals_are_met() -> None:
    """A driver with both domains, which never fails, meets all without a queue."""
    assert cells(GOOD, GOOD, recovers=False) == ["met", "met", "met", "met", "-"]


def test_recovery_of_direct_regions_is_the_core_s() -> None:
    """A driver that reports them needs the last resort of the queue."""
    direct = replace(GOOD, regions=DIRECT)
    assert cells(direct, direct)[3:] == ["**met with the queue**", "yes, run on q35-toy"]
    assert cells(direct, direct, recovers=False)[3].startswith("open: the core blocks it")
    elsewhere = replace(direct, place=Place("drivers/iommu/toys.c", 1))
    assert cells(elsewhere, elsewhere)[4] == "yes, by source only"


def test_a_last_resort_needs_a_blocked_domain_too() -> None:
    """Other devices of a driver with direct regions have to be blocked without memory."""
    direct = replace(GOOD, regions=DIRECT, blocked=(Source(How.NONE),))
    assert cells(direct, direct)[3].startswith("open: no static blocked domain")


def test_a_machine_without_a_table_of_regions_runs_none() -> None:
    """QEMU's virtio-iommu has a driver, and no firmware that claims memory."""
    found = dict(claiming(load_machine(name) for name in ("q35", "q35-virtio", "q35-amd")))
    assert found == {"q35-amd": "drivers/iommu/amd/"}


def test_a_remark_opens_a_goal() -> None:
    """What a person has read counts, and is told below; it does not hide what was found."""
    note = Note("toy", ("7.3",), "It cannot.", queue=True, opens=4)
    kernel = Kernel("7.3", "Linux 7.3", (GOOD,), (note,))
    text = "\n".join(goals.table(State(kernel, kernel, True)))
    assert "| met | met | met | open: by reading, see below | - |" in text
    assert "- **toy**, by reading: It cannot." in text
    blocked = replace(kernel, drivers=(replace(GOOD, blocked=(Source(How.NONE),)),))
    assert "by reading, see" not in "\n".join(goals.table(State(kernel, blocked, True)))


def test_a_driver_that_the_queue_adds() -> None:
    """What was not there before is met with the queue."""
    assert cells(None, GOOD)[0] == "**met with the queue**"


def test_a_driver_without_domains_has_no_row() -> None:
    """One that only passes calls through has no goals."""
    empty = replace(GOOD, identity=(Source(How.NONE),), blocked=(Source(How.NONE),))
    kernel = Kernel("7.3", "Linux 7.3", (empty,))
    assert not [line for line in goals.table(State(kernel, kernel, True)) if "toy" in line]


def test_the_page_has_its_head_and_the_notes() -> None:
    """The explanation comes first."""
    kernel = Kernel("7.3", "Linux 7.3", (GOOD,))
    page = goals.render(State(kernel, kernel, True))
    assert page.startswith("# The four goals")
    assert page.endswith("| met | - |\n")


def test_no_folder_for_the_page(tmp_path: Path) -> None:
    """That is said before a base is read."""
    with pytest.raises(UserError, match="no directory"):
        run_goals("7.3", tmp_path / "none" / "goals.md")
