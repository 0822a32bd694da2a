# SPDX-License-Identifier: GPL-2.0-only
"""Explorations of real kernels: nothing new on the whole queue, and what is known is found."""

from __future__ import annotations

import json
from typing import Any

import pytest

from realrun import iommuq

pytestmark = pytest.mark.real

#: Seconds of one exploration.
SECONDS = "60s"
#: Operations of an exploration that must find nothing new: a faster machine does not get further.
OPERATIONS = "20000"
#: A step of 7.3 that lets a device with a direct region join a claimed group.
LATE_JOINER = (
    *("7.3", "--at", "fixes/0001"),
    *("--only", "regions.lost after add", "--only", "regions.lost after rescan"),
)
#: The same step lets an untrusted device's group unmap lazily, too.
LAZY = ("7.3", "--at", "fixes/0001", "--only", "isolation.lazy* after set_type")
#: Debian's kernel blocks a device with a direct region that is removed.
RELEASED = (
    *("7.3", "--kernel", "linux-image-6.12-amd64", "--on", "q35-intel", "--layout", "alone"),
    *("--only", "q35-intel: regions.lost (removed)*"),
)


def explore(*words: str, seconds: str = SECONDS) -> tuple[int, list[dict[str, Any]]]:
    """Explore from an empty database with one seed; return exit code and events."""
    done = iommuq("explore", *words, "--for", seconds, "--seed", "1", "--empty", "--json")
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def found(events: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the finds that repeat, by signature."""
    return {
        event["signature"]: event
        for event in events
        if event["event"] == "find" and event["repeats"]
    }


@pytest.mark.parametrize("base", ["7.3", "6.12"])
def test_nothing_new(base: str) -> None:
    """The whole queue of a base breaks no rule, but for what its list accepts or knows."""
    code, events = explore(base, "--operations", OPERATIONS)
    assert found(events) == {}
    assert code == 0
    assert events[-1]["event"] == "end"
    assert events[-1]["operations"] > 1000


def test_late_joiner() -> None:
    """What the second patch of the queue fixes is found before it, and is short."""
    code, events = explore(*LATE_JOINER, seconds="90s")
    assert code == 1
    kinds = {tuple(each["kind"] for each in find["operations"]) for find in found(events).values()}
    # It joins what a user has claimed, or has attached without a claim.
    used = {"claim_group", "claim_device", "attach_group", "attach_device"}
    assert any(used.intersection(each) and each[-1] in ("add", "rescan") for each in kinds)
    assert min(map(len, kinds)) <= 8


def test_lazy() -> None:
    """A group of an untrusted device that unmaps lazily is found by the rule about that."""
    code, events = explore(*LAZY, "--operations", OPERATIONS)
    assert code == 1
    finds = found(events).values()
    assert {find["operations"][-1]["kind"] for find in finds} == {"set_type"}
    assert min(len(find["operations"]) for find in finds) <= 3


@pytest.mark.parametrize(("row", "rule"), [(LATE_JOINER, "regions"), (LAZY, "isolation.lazy")])
def test_without_the_rule(row: tuple[str, ...], rule: str) -> None:
    """Without the rule that tells of it a defect is not found."""
    code, events = explore(*row, "--operations", OPERATIONS, "--without", rule)
    assert (code, found(events)) == (0, {})
    # It has looked.
    assert events[-1]["operations"] > 1000


def test_driver() -> None:
    """The DMA of a removed device is looked at on a machine of QEMU, and what is found is short."""
    code, events = explore(*RELEASED, seconds="60s")
    assert code == 1
    kinds = [[each["kind"] for each in find["operations"]] for find in found(events).values()]
    assert any(each[-2:] == ["remove", "look"] for each in kinds)
    assert min(map(len, kinds)) <= 4


def test_driver_without_the_rule() -> None:
    """Without the rule about regions nothing is found on the same machine."""
    code, events = explore(*RELEASED, "--without", "regions", seconds="45s")
    assert (code, found(events)) == (0, {})
    # It has looked.
    assert events[-1]["operations"] > 20


# A kernel for one base takes minutes to build, and QEMU's scalable mode keeps entries too long.
@pytest.mark.parametrize(
    "machine", ["q35-intel", "q35-amd", pytest.param("q35-intel-scalable", marks=pytest.mark.full)]
)
@pytest.mark.parametrize("base", ["7.3", pytest.param("6.12", marks=pytest.mark.full)])
def test_nothing_new_in_a_driver(base: str, machine: str) -> None:
    """The whole queue of a base breaks no rule on a machine but for what its list knows."""
    code, events = explore(base, "--on", machine, "--light", "--operations", "1500", seconds="60s")
    assert found(events) == {}
    assert code == 0
    assert events[-1]["operations"] > 100
