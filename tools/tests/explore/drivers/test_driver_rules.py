# SPDX-License-Identifier: GPL-2.0-only
"""Each rule for drivers: a moment that breaks it and no other one, and some that nearly do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from fakedriver import booted
from iommuq.explore.drivers import finds
from iommuq.explore.drivers.rules import MUST_END, RULES, Moment, breaches, chosen, named
from iommuq.explore.drivers.steps import VFIO, Step
from iommuq.explore.drivers.world import Answer, Seen, State, World, kinds
from iommuq.system.errors import UserError

WORLD = World.open("q35-intel", "mixed")
GONE = Seen(present=False)
LOOK, RESCAN = Step("look"), Step("rescan")
CLAIM = Step("claim", ("cdev", "control"))
TYPE = Step("set-type", ("control", "identity"))
#: The group of no other device.
ALONE, BEHIND = 70, 80


def seen(group: int | None = ALONE, **fields: Any) -> Seen:
    """Return a device of a group of its own."""
    return Seen(**{"group": group, "type": "DMA" if group is not None else "-", **fields})


CLAIMED = seen(driver=VFIO, claimed=True)


def moment(
    step: Step = LOOK,
    word: str = "ok",
    *,
    before: Mapping[str, Seen] | None = None,
    after: Mapping[str, Seen] | None = None,
    reached: Mapping[tuple[str, str], str] | None = None,
    **fields: Any,
) -> Moment:
    """Return a moment; what is not said of a device is as after boot.

    :param before: by default what is after.
    """
    now = booted(WORLD) | dict(after or {})
    then = now if before is None else booted(WORLD) | dict(before)
    mapped = {name for name, each in now.items() if each.claimed}
    return Moment(
        WORLD,
        step,
        State(then, mapped),
        State(now, mapped, dict(reached or {})),
        Answer(word, "", now),
        **{"faulted": False, **fields},
    )


def look(device: str, place: str, letter: str, **after: Seen) -> Moment:
    """Return a look with one letter."""
    return moment(after=after, reached={(device, place): letter})


BROKEN: list[tuple[str, Moment, str]] = [
    ("regions.lost", look("marked", "region", "B"), "dma marked region|REACHED"),
    ("regions.lost", look("second", "region", "B"), "dma second behind|REACHED"),
    ("regions.lost", look("marked", "region", "B", marked=GONE), "dma marked region|REACHED"),
    ("regions.lost", look("marked", "region", "B", marked=seen(None)), ""),
    # A late joiner that ends in the owner's domain.
    (
        "regions.lost",
        look("second", "region", "B", first=CLAIMED, second=seen()),
        "dma second behind|REACHED",
    ),
    (
        "regions.lost",
        # An earlier failure; the device has a group since.
        moment(reached={("marked", "region"): "B"}, failed=frozenset(["marked"])),
        "",
    ),
    ("isolation.memory", look("control", "other", "R"), "dma control other|BLOCKED"),
    ("isolation.memory", look("control", "other", "R", control=seen(None)), ""),
    (
        "isolation.memory",
        # The type is that of the default domain, and its owner has another one.
        look("control", "other", "R", control=seen(type="identity", claimed=True)),
        "",
    ),
    ("isolation.removed", look("control", "other", "R", control=GONE), "dma control other|BLOCKED"),
    (
        "isolation.removed",
        look("marked", "other", "R", marked=GONE, control=seen(type="identity")),
        "",
    ),
    (
        "isolation.owner",
        look("marked", "page of control", "R", control=CLAIMED),
        "dma-foreign marked control 0x3d002000|BLOCKED",
    ),
    ("isolation.owner", look("marked", "page of control", "R", control=CLAIMED, marked=GONE), ""),
    (
        "belief.mapped",
        look("control", "page of control", "B", control=CLAIMED),
        "dma-mapped control 0x3d002000|REACHED",
    ),
    (
        "belief.identity",
        look("control", "other", "B", control=seen(type="identity")),
        "dma control other|REACHED",
    ),
    (
        "ownership.direct",
        moment(
            Step("claim", ("group", "first")),
            after={"first": seen(BEHIND, driver=VFIO, claimed=True), "second": seen(BEHIND)},
        ),
        "claim group first|EINVAL",
    ),
    (
        "refusal.changed",
        moment(TYPE, "EBUSY", before={}, after={"control": seen(16, type="identity")}),
        "type control|DMA",
    ),
    (
        "refusal.changed",
        moment(CLAIM, "EINVAL", before={"control": seen(driver=VFIO)}, after={"control": seen()}),
        "driver control|vfio-pci",
    ),
    ("refusal.changed", moment(TYPE, "EINVAL", before={}, after={"ats": GONE}), "present ats|yes"),
    (
        "refusal.changed",
        moment(TYPE, "EINVAL", before={"ats": seen()}, after={"ats": seen(None)}),
        "together ats ats|yes",
    ),
    ("nofail.back", moment(RESCAN, before={"ats": GONE}, after={"ats": GONE}), "present ats|yes"),
    (
        "nofail.grouped",
        moment(RESCAN, before={"control": GONE}, after={"control": seen(None)}),
        "together control control|yes",
    ),
    (
        "nofail.grouped",
        # The owner is one of another slot.
        moment(RESCAN, before={"marked": GONE}, after={"marked": seen(None), "control": CLAIMED}),
        "together marked marked|yes",
    ),
    (
        "nofail.grouped",
        # Without a region nothing excuses it.
        moment(RESCAN, before={"first": GONE}, after={"first": seen(None), "second": CLAIMED}),
        "together first first|yes",
    ),
    ("nofail.refused", moment(RESCAN, "EIO"), "rescan|ok"),
    ("nofail.refused", moment(Step("replug"), "EIO"), "rescan|ok"),
    ("nofail.refused", moment(Step("unbind", ("ats",)), "ENODEV"), "unbind ats|ok"),
    ("errnos.documented", moment(CLAIM, "ENOSPC"), "claim cdev control|ok"),
    ("errnos.documented", moment(CLAIM, "ENOMEM"), "claim cdev control|ok"),
    ("errnos.documented", moment(CLAIM, "EIO", faulted=True), "claim cdev control|ok"),
]


@pytest.mark.parametrize(("name", "bad", "expect"), BROKEN)
def test_a_rule_is_broken(name: str, bad: Moment, expect: str) -> None:
    """The moment breaks the rule alone; without the rule it is silent."""
    (breach,) = breaches(bad, chosen())
    assert breach.rule == name
    assert expect in ("", breach.expect)
    # A find of it can be stored.
    assert re.fullmatch(finds._TEXTS["text"], breach.text, re.ASCII)
    assert breach.expect
    assert re.fullmatch(finds._TEXTS["expect"], breach.expect, re.ASCII)
    for without in (name, name.partition(".")[0]):
        assert breaches(bad, chosen([without])) == []
    assert breaches(bad, frozenset([name])) == [breach]


def test_each_rule_has_a_moment() -> None:
    """None is left that nothing can break, but for what the player sees by itself."""
    seen = {"splats.printed", "nofail.hangs"}
    assert {name for name, _, _ in BROKEN} | seen == {rule.name for rule in RULES}


@pytest.mark.parametrize(
    "good",
    [
        moment(),
        look("marked", "region", "R"),
        # The engine was off, or is stuck: nothing is known.
        *(look("marked", "region", letter) for letter in "ONMS"),
        *(look("control", "other", letter) for letter in "BONMS"),
        *(look("control", "page of control", letter, control=CLAIMED) for letter in "RONMS"),
        *(look("control", "other", x, control=seen(type="identity")) for x in "RONMS"),
        # Not known to the core for want of memory, and its removal after that.
        moment(
            after={"marked": seen(None)},
            reached={("marked", "region"): "B"},
            failed=frozenset(["marked"]),
        ),
        # A removed device has the requester ID of one that is claimed, or in identity.
        look("second", "region", "B", second=GONE, first=CLAIMED),
        look("second", "other", "R", second=GONE, first=seen(type="identity")),
        # In identity, which was asked for.
        look("control", "other", "R", control=seen(type="identity")),
        # Its owner has taken it from identity.
        look("control", "other", "B", control=seen(type="identity", claimed=True)),
        # In no group it has no type.
        look("control", "other", "B", control=seen(None)),
        # Of the same group, or with the same requester ID.
        look("function0", "page of function1", "R", function0=CLAIMED, function1=CLAIMED),
        look("first", "page of second", "R", second=CLAIMED, first=GONE),
        look("marked", "page of control", "B", control=CLAIMED),
        # Refused, as it must be.
        moment(Step("claim", ("group", "first")), "EINVAL"),
        moment(CLAIM, after={"control": CLAIMED}, before={"control": seen(driver=VFIO)}),
        moment(TYPE, "EBUSY"),
        moment(CLAIM, "ENOMEM", faulted=True),
        # To bind takes the driver before away, whatever comes of it.
        moment(Step("bind", ("ats", VFIO)), "UNBOUND", before={"ats": seen(driver="x")}, after={}),
        # Without memory a device may stay away, or come without a group.
        moment(RESCAN, before={"ats": GONE}, after={"ats": GONE}, faulted=True),
        moment(RESCAN, before={"ats": GONE}, after={"ats": seen(None)}, faulted=True),
        moment(RESCAN, "ENOMEM", faulted=True),
        # Beside an owner a device with a region is refused.
        moment(RESCAN, before={"second": GONE}, after={"second": seen(None), "first": CLAIMED}),
        moment(
            RESCAN,
            before={"function1": GONE},
            after={"function1": seen(None), "function0": CLAIMED},
        ),
        # It was there before, in no group.
        moment(RESCAN, before={"ats": seen(None)}, after={"ats": seen(None)}),
    ],
)
def test_no_rule_is_broken(good: Moment) -> None:
    """What is right, or not known, is no breach."""
    assert breaches(good, chosen()) == []


@pytest.mark.parametrize("kind", [each for each in kinds().values() if each.errnos])
def test_what_is_documented_may_come(kind: Any) -> None:
    """Each error of `drivers.toml` is taken, and others are not."""
    step = Step(kind.name, tuple("control" if w == "device" else "x" for w in kind.words))
    for word in kind.errnos:
        assert breaches(moment(step, word), frozenset(["errnos.documented"])) == []
    assert breaches(moment(step, "EXDEV"), frozenset(["errnos.documented"]))


def test_what_must_end_has_no_errors() -> None:
    """The two rules about errors leave no kind of step out, and judge none twice."""
    for kind in kinds().values():
        assert not (kind.name in MUST_END and kind.errnos)
        step = Step(kind.name, tuple("control" if w == "device" else "x" for w in kind.words))
        found = breaches(moment(step, "EXDEV"), chosen())
        assert len(found) == (kind.name != "look")


def test_the_rules_that_are_chosen() -> None:
    """A rule or a group of rules is left out; another name is an error of one line."""
    assert {rule.name for rule in RULES} == chosen()
    assert chosen() - chosen(["isolation"]) == {
        "isolation.memory",
        "isolation.removed",
        "isolation.owner",
    }
    assert chosen() - chosen(["regions.lost", "splats"]) == {"regions.lost", "splats.printed"}
    for name in ("region", "regions.", "", "isolation.*"):
        with pytest.raises(UserError, match=r"no rule .*; there are belief, ") as caught:
            chosen([name])
        assert "\n" not in str(caught.value)


def test_each_rule_says_what_and_where() -> None:
    """Its sentence and source go into comments and TOML strings."""
    for rule in RULES:
        assert named(rule.name) is rule
        assert rule.says.endswith(".")
        assert not set(f"{rule.says}{rule.source}") & set('"\\\n')
