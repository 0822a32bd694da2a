# SPDX-License-Identifier: GPL-2.0-only
"""The lists of accepted and known breaches."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from iommuq.explore import wire
from iommuq.explore.drivers.rules import RULES
from iommuq.explore.exceptions import NAME, Exceptions, load
from iommuq.explore.finds import Find
from iommuq.explore.operations import Operation
from iommuq.explore.rules import all_rules
from iommuq.explore.rules.model import Breach, History, Moment
from iommuq.explore.wire import State
from iommuq.system.errors import UserError
from simheader import ROOT
from simstates import DEFAULT, GOOD, JOINED, changed, moment

NAMES = frozenset(rule.name for rule in all_rules())
REST = 'reason = "a reason"\nsource = "a source"\nexpires = 2027-06-30\n'
ACCEPTED = f'[[exception]]\nrules = ["regions.lost"]\n{REST}'
KNOWN = f'[[known]]\nsignatures = ["regions.lost after a*", "splats.printed: WARNING*"]\n{REST}'
FIND = Find(Breach("regions.lost", "a device", "state.ret == 0", 0), (Operation("add"),))
SECOND = Find(Breach("regions.lost", "a device", "state.ret == 0", 1), (Operation("add"),))


def read(folder: Path, text: str) -> Exceptions:
    """Read a list."""
    (folder / NAME).write_text(text, encoding="utf-8")
    return load(folder, NAMES)


def covers(
    folder: Path,
    line: str,
    *,
    kind: str = "add",
    operation: Operation | None = None,
    so_far: Sequence[Operation] = (),
    find: Find = FIND,
    group: dict[str, int] | None = None,
    groups: dict[int, dict[str, int]] | None = None,
    head: str = "blocks",
    devices: dict[int, dict[str, int]] | None = None,
    before: State = GOOD,
    user: int = 0,
    refused: Collection[int] = (),
    short: Collection[int] = (),
) -> bool:
    """Tell whether an entry with one more line accepts a breach.

    :param so_far: the operations of the sequence, to the last one.
    """
    found = read(folder, ACCEPTED + line)
    met: dict[str, Any] = {head: 1, "user": (user, 0, 0)}
    after = changed(GOOD, dev=devices or {}, group=groups or {0: group or {}}, **met)
    last = operation or (so_far[-1] if so_far else Operation(kind))
    history = History(list(so_far[:-1]), refused=set(refused))
    history.note(last, after)
    history.short |= set(short)
    return found.covering(find, Moment(last, before, after, history)) is not None


def test_a_base_without_the_file_has_none(tmp_path: Path) -> None:
    """Nothing is accepted, and nothing is known."""
    assert load(tmp_path, NAMES) == Exceptions()
    assert read(tmp_path, "# nothing\n") == Exceptions()


def test_an_accepted_rule(tmp_path: Path) -> None:
    """An entry accepts its rules, and no other ones."""
    assert covers(tmp_path, "")
    other = Find(Breach("regions.refused", "a", "b"), (Operation("add"),))
    assert not covers(tmp_path, "", find=other)


def test_accepted_after_some_operations(tmp_path: Path) -> None:
    """The last operation decides."""
    line = 'operations = ["add", "rescan"]'
    assert covers(tmp_path, line)
    assert covers(tmp_path, line, kind="rescan")
    assert not covers(tmp_path, line, kind="bind")


@pytest.mark.parametrize("head", ["fault_hit", "alloc_hit"])
def test_accepted_with_or_without_a_failure(tmp_path: Path, head: str) -> None:
    """`faulted` asks for a failure that was met, or for none; the other keys for one of a kind."""
    assert covers(tmp_path, "faulted = true", head=head)
    assert not covers(tmp_path, "faulted = true")
    assert covers(tmp_path, "faulted = false")
    assert not covers(tmp_path, "faulted = false", head=head)
    for key, own in (("attach_failed", "fault_hit"), ("alloc_failed", "alloc_hit")):
        assert covers(tmp_path, f"{key} = true", head=head) == (head == own)
        assert not covers(tmp_path, f"{key} = true")


def test_accepted_if_each_later_attach_fails(tmp_path: Path) -> None:
    """`fails_again` asks for that, and for an attach that did fail."""
    line = "fails_again = true"
    once, each = [Operation("attach_group", fail_kind="paging", fail_every=n) for n in (0, 1)]
    assert covers(tmp_path, line, operation=each, head="fault_hit")
    assert not covers(tmp_path, line, operation=once, head="fault_hit")
    assert not covers(tmp_path, line, operation=each)


def test_accepted_with_a_splat(tmp_path: Path) -> None:
    """Each splat must be a WARN in one of the functions, and there must be one."""
    line = 'splats = ["iommu_attach_group", "iommu_detach_device"]'
    warn = "WARNING: drivers/iommu/iommu.c:2282 at {}+0x207/0x2f0, CPU#0: swapper/0/1"
    named, other = warn.format("iommu_detach_device"), warn.format("iommu_detach")
    kasan = "BUG: KASAN: slab-use-after-free in iommu_detach_device+0x207/0x2f0"

    def accepted(*titles: str) -> bool:
        return covers(tmp_path, line, find=Find(FIND.breach, FIND.operations, titles))

    assert accepted(named)
    assert accepted(named, warn.format("iommu_attach_group.constprop.0"))
    assert not accepted(other)
    assert not accepted(named, other)
    assert not accepted(named, kasan)
    assert not accepted()


def test_accepted_with_other_devices(tmp_path: Path) -> None:
    """`shared` asks for another device behind the bridge, also for one that was removed."""
    one = {0: {"config": wire.BEHIND}, 1: {"flags": JOINED}}
    two = {0: {"config": wire.BEHIND}, 1: {"flags": wire.USED, "config": wire.BEHIND}}
    assert covers(tmp_path, "shared = true", devices=two)
    assert not covers(tmp_path, "shared = true", devices=one)
    assert covers(tmp_path, "shared = false", devices=one)
    # The other one, which is not behind it.
    two[0] = {"config": 0}
    assert not covers(tmp_path, "shared = true", devices=two)


@pytest.mark.parametrize(
    ("devices", "group"),
    [
        ({}, {"setup": 6}),
        ({}, {"owner": 1}),
        ({}, {"owner_cnt": 1}),
        ({0: {"config": wire.UNTRUSTED}}, {}),
        ({1: {"flags": JOINED, "config": wire.UNTRUSTED}}, {}),
        ({0: {"config": wire.BEHIND}, 1: {"flags": JOINED, "config": wire.BEHIND}}, {}),
    ],
    ids=["no identity", "owner", "driver", "untrusted", "beside untrusted", "shared"],
)
def test_where_identity_is_no_last_resort(
    tmp_path: Path, devices: dict[int, dict[str, int]], group: dict[str, int]
) -> None:
    """`identity_safe` is false for what iommu_identity_is_safe() asks for."""
    for value in (True, False):
        line = f"identity_safe = {str(value).lower()}"
        assert covers(tmp_path, line, devices=devices, group=group) != value
        assert covers(tmp_path, line) == value
        # One that is in no group any more, or in another one, is asked for nothing.
        gone = {n: f | ({"flags": wire.USED} if n else {}) for n, f in devices.items()}
        if 1 in devices:
            assert covers(tmp_path, line, devices=gone, group=group) == value


def test_accepted_while_a_group_is_unclaimed(tmp_path: Path) -> None:
    """`unclaimed` asks for a group that is attached and has no owner."""
    line = "unclaimed = true"
    assert covers(tmp_path, line, group={"attached": 5})
    assert not covers(tmp_path, line, group={"attached": 5, "owner": 1})
    assert not covers(tmp_path, line)
    assert covers(tmp_path, "unclaimed = false")


QUARANTINE, USER, NEW = 9, 7, 8


@pytest.mark.parametrize(
    ("place", "device", "group"),
    [
        ("default", {}, {}),
        ("group", {"hw": USER}, {"domain": USER}),
        ("cut", {"hw": wire.NONE}, {"setup": 15}),
        ("elsewhere", {"hw": wire.NONE}, {}),
        ("parked", {"hw": wire.IDENTITY}, {}),
        ("parked", {"hw": wire.BLOCKED}, {}),
        ("parked", {"hw": NEW}, {"blocking_domain": NEW}),
        ("parked", {"hw": QUARANTINE}, {}),
        ("elsewhere", {"hw": USER}, {}),
        ("elsewhere", {"hw": wire.FREED}, {}),
        ("elsewhere", {"flags": wire.USED | wire.PRESENT}, {}),
    ],
)
def test_places(tmp_path: Path, place: str, device: dict[str, int], group: dict[str, int]) -> None:
    """Each device is in one of the places."""
    for name in ("default", "group", "cut", "undeferred", "parked", "elsewhere"):
        line = f'places = ["{name}"]'
        assert covers(tmp_path, line, devices={0: device}, group=group, user=USER) == (
            name == place
        )
    assert covers(
        tmp_path, f'places = ["cut", "{place}"]', devices={0: device}, group=group, user=USER
    )


def test_the_place_of_what_could_not_join(tmp_path: Path) -> None:
    """It is where the device of its group is that has the same requester ID."""
    line = 'places = ["cut"]'
    alone = {"flags": wire.USED | wire.PRESENT, "config": wire.BEHIND, "hw": wire.NONE}
    twin = {"flags": JOINED, "config": wire.BEHIND, "hw": wire.NONE}
    group = {"setup": 15}
    assert covers(tmp_path, line, devices={0: alone, 1: twin}, group=group)
    for other in (
        {"hw": wire.BLOCKED},
        {"config": 0},
        {"flags": wire.USED},
        {"flags": wire.USED | wire.PRESENT},
        {"config": wire.BEHIND | 1},
    ):
        assert not covers(tmp_path, line, devices={0: alone, 1: twin | other}, group=group)
    assert not covers(tmp_path, line, devices={0: alone | {"config": 0}, 1: twin}, group=group)


def test_a_deferred_attach_that_was_forgotten(tmp_path: Path) -> None:
    """Its device is where it was, and is not deferred any more."""
    line = 'places = ["undeferred"]'
    before = changed(GOOD, dev={0: {"flags": JOINED | wire.DEFERRED, "hw": 0}})
    assert covers(tmp_path, line, before=before, devices={0: {"hw": 0}})
    assert not covers(tmp_path, line, before=before, devices={0: {"hw": wire.BLOCKED}})
    assert not covers(tmp_path, line, before=before)
    assert not covers(tmp_path, line, devices={0: {"hw": 0}})


ADD, LATER = Operation("add"), Operation("add", dev=1, b=1)
ATTACH, MAP = Operation("attach_group", group=0), Operation("dma_map")
TWO = {1: {"flags": JOINED}}


@pytest.mark.parametrize(
    ("line", "operations"),
    [
        ("late", [ADD, ATTACH, LATER]),
        ("late", [ADD, Operation("attach_device"), LATER]),
        ("late", [ADD, LATER, Operation("remove", dev=1), ATTACH, Operation("rescan", dev=1)]),
        ("beside", [ADD, LATER]),
        ("beside", [ADD, Operation("remove"), Operation("rescan"), LATER]),
        ("beside", [Operation("add", fail_alloc=1), LATER]),
        ("join_failed", [ADD, Operation("add", dev=1, fail_alloc=3)]),
        ("join_failed", [LATER, Operation("rescan", dev=1, fail_kind="paging")]),
        ("mapped_before", [ADD, MAP, LATER, MAP]),
        ("mapped_before", [LATER, MAP, Operation("remove", dev=1), Operation("rescan", dev=1)]),
    ],
)
def test_what_has_happened_to_a_device(
    tmp_path: Path, line: str, operations: list[Operation]
) -> None:
    """The operations of the sequence tell."""
    assert covers(tmp_path, f"{line} = true", devices=TWO, so_far=operations, find=SECOND)
    assert not covers(tmp_path, f"{line} = false", devices=TWO, so_far=operations, find=SECOND)


@pytest.mark.parametrize(
    ("line", "operations"),
    [
        ("late", [ADD, LATER, ATTACH]),
        ("late", [ADD, Operation("attach_group", group=1), LATER]),
        ("late", [ADD, LATER]),
        ("beside", [LATER, ADD]),
        ("beside", [ADD, Operation("remove"), LATER]),
        ("join_failed", [ADD, LATER, Operation("claim_group", fail_alloc=3)]),
        ("join_failed", [Operation("add", dev=1, fail_alloc=3), Operation("rescan", dev=1)]),
        ("join_failed", [Operation("claim_group", fail_alloc=3)]),
        ("mapped_before", [ADD, LATER, MAP]),
        ("mapped_before", [LATER, MAP, ADD, MAP]),
        ("mapped_before", [ADD, LATER]),
        ("mapped_before", [MAP]),
    ],
)
def test_what_has_not_happened_to_a_device(
    tmp_path: Path, line: str, operations: list[Operation]
) -> None:
    """The order of the operations counts, and whose they are."""
    assert not covers(tmp_path, f"{line} = true", devices=TWO, so_far=operations, find=SECOND)
    assert covers(tmp_path, f"{line} = false", devices=TWO, so_far=operations, find=SECOND)


def test_a_device_beside_one_whose_failure_was_met(tmp_path: Path) -> None:
    """One that is in no group was none that it could join, whatever became of it later."""
    failing = Operation("add", fail_alloc=1)
    refused = {0: {"flags": wire.USED | wire.PRESENT}, 1: {"flags": JOINED}}
    line = "beside = true"
    assert not covers(tmp_path, line, devices=refused, so_far=[failing, LATER], find=SECOND)
    assert covers(tmp_path, line, devices=refused, so_far=[ADD, LATER], find=SECOND)
    again = [failing, LATER, Operation("remove"), Operation("rescan")]
    assert not covers(tmp_path, line, devices=TWO, so_far=again, find=SECOND)


def test_a_device_of_a_group_that_was_short_of_memory(tmp_path: Path) -> None:
    """`short` asks for an allocation that failed in its group since it joined."""
    assert covers(tmp_path, "short = true", head="alloc_hit")
    assert not covers(tmp_path, "short = true", kind="bind", head="alloc_hit")
    assert not covers(tmp_path, "short = true", head="fault_hit")


def test_a_device_beside_one_that_was_short_of_memory(tmp_path: Path) -> None:
    """`short_beside` asks for one of its group, whichever it is."""
    line = "short_beside = true"
    assert covers(tmp_path, line, short={0})
    assert covers(tmp_path, line, devices=TWO, short={1})
    assert not covers(tmp_path, "short = true", kind="bind", devices=TWO, short={1})
    assert not covers(tmp_path, line, devices=TWO)
    for other in ({"flags": JOINED, "config": 1}, {"flags": wire.USED}):
        assert not covers(tmp_path, line, devices={1: other}, short={1})


def test_a_device_beside_one_that_could_not_join(tmp_path: Path) -> None:
    """`refused` asks for another one that a failure has kept out of its group."""
    line = "refused = true"
    group = {1: {"flags": wire.USED, "regions": 1}}
    assert covers(tmp_path, line, devices=group, refused={1})
    assert not covers(tmp_path, line, devices={1: {"flags": wire.USED}}, refused={1})
    assert not covers(tmp_path, line, devices=group)
    assert not covers(tmp_path, line, devices=group, refused={0})
    elsewhere = {1: {"flags": wire.USED, "config": 1, "regions": 1}}
    assert not covers(tmp_path, line, devices=elsewhere, refused={1})


FREED = Find(Breach("lifetime.freed", "a domain", "state.freed_in_use == 0"), (ADD,))
LIFETIME = ACCEPTED.replace("regions.lost", "lifetime.freed")
FREE, FAILED = Operation("free"), Operation("detach_group", fail_kind="paging", fail_at=1)


def frees(folder: Path, line: str, *operations: Operation, **fields: int) -> bool:
    """Tell whether an entry accepts that a domain is freed that device 0 is in."""
    before = changed(GOOD, dev={0: {"hw": USER, "own": USER} | fields}, user=(USER, 0, 0))
    gone = {name: wire.FREED for name, value in fields.items() if value == USER}
    after = changed(before, dev={0: {"hw": wire.FREED, "own": wire.FREED} | gone})
    history = History([*operations, FREE])
    return (
        read(folder, LIFETIME + line).covering(FREED, Moment(FREE, before, after, history))
        is not None
    )


def test_a_device_that_was_left_in_what_is_freed(tmp_path: Path) -> None:
    """`left_by` asks for an attach that failed before, and for a group that is elsewhere."""
    line = 'left_by = ["paging", "identity"]'
    assert frees(tmp_path, line, FAILED)
    assert not frees(tmp_path, line)
    assert not frees(tmp_path, 'left_by = ["blocked"]', FAILED)
    # No attach that fails leaves a PASID.
    assert not frees(tmp_path, line, FAILED, pasid0=USER)
    assert frees(tmp_path, line, FAILED, pasid0=wire.NONE)
    # The domain of its group.
    before = changed(GOOD, user=(DEFAULT, 0, 0))
    after = changed(before, dev={0: {"hw": wire.FREED, "own": wire.FREED}})
    history = History([FAILED, FREE])
    found = read(tmp_path, LIFETIME + line)
    assert found.covering(FREED, Moment(FREE, before, after, history)) is None
    # The state before it shows no device in the domain.
    assert found.covering(FREED, Moment(FREE, before, before, history)) is None


def test_which_group_a_breach_is_about(tmp_path: Path) -> None:
    """Neither the driver of another group counts, nor a group without devices."""
    line = "blocked = false"
    for setup, other, accepted in ((7, 0, False), (0, 7, True), (5, 5, True), (7, 7, False)):
        groups = {0: {"setup": setup}, 1: {"setup": other}}
        before = changed(GOOD, dev={0: {"hw": USER, "own": USER}}, group=groups)
        after = changed(before, dev={0: {"hw": wire.FREED, "own": wire.FREED}})
        met = Moment(FREE, before, after, History([FREE]))
        assert (read(tmp_path, LIFETIME + line).covering(FREED, met) is not None) == accepted
        assert covers(tmp_path, line, groups=groups) == accepted
    # It may name it; else it is that of the operation.
    named = Find(Breach("regions.lost", "a", "state.group[1].domain == 1"), (ADD,))
    groups = {0: {"setup": 7}, 1: {"setup": 0}}
    assert covers(tmp_path, line, find=named, groups=groups)
    of_no_device = Find(Breach("regions.lost", "a", "state.ret == 0"), (ADD,))
    claim = Operation("claim_group", group=1)
    assert covers(tmp_path, line, find=of_no_device, groups=groups, operation=claim)
    assert not covers(tmp_path, line, find=of_no_device, groups=groups)
    assert not covers(tmp_path, line, find=of_no_device, operation=Operation("end"), groups=groups)


def test_which_device_a_breach_is_about(tmp_path: Path) -> None:
    """A breach that names a group is about no device."""
    line = 'places = ["parked"]'
    devices = {0: {"hw": wire.BLOCKED}, 1: {"flags": JOINED, "hw": DEFAULT}}
    for expect, accepted in (
        ("state.ret == 0", True),
        ("state.dev[0].hw == 3", True),
        ("state.dev[1].hw == 3", False),
        ("state.group[0].owner == 0", False),
    ):
        find = Find(Breach("regions.lost", "a", expect), (ADD,))
        assert covers(tmp_path, line, find=find, devices=devices) == accepted
    assert not covers(tmp_path, line, find=find, devices=devices, kind="claim_group")


@pytest.mark.parametrize(
    ("line", "lasts"),
    [
        ("", False),
        ('operations = ["add"]', True),
        ("faulted = false", True),
        ("attach_failed = true", True),
        ("alloc_failed = true", True),
        ("fails_again = true", True),
        ('waiting = true\nshared = true\nplaces = ["default"]', False),
    ],
)
def test_how_long_a_breach_is_accepted(tmp_path: Path, line: str, lasts: bool) -> None:
    """One of an operation for as long as it lasts."""
    (entry,) = read(tmp_path, ACCEPTED + line).exception
    assert entry.lasts == lasts


def test_known_signatures(tmp_path: Path) -> None:
    """A star stands for anything, and the rest is as it is written."""
    found = read(tmp_path, KNOWN)
    assert found.knows("regions.lost after add")
    assert found.knows("regions.lost after add that met a failure")
    assert found.knows("splats.printed: WARNING in iommu_x")
    for other in ("regions.lost after rescan", "regions.lost", "Regions.lost after add", ""):
        assert not found.knows(other)
    # A known breach is not an accepted one.
    assert found.covering(FIND, moment(Operation("add"), GOOD)) is None


def test_expired_entries(tmp_path: Path) -> None:
    """The last day counts; the reasons of both kinds of entries are told."""
    found = read(tmp_path, ACCEPTED + KNOWN.replace("a reason", " another\\n"))
    assert found.expired(datetime.date(2027, 6, 30)) == []
    assert found.expired(datetime.date(2027, 7, 1)) == ["a reason", "another"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[exception]]\n" + REST, "exception.0.rules: is missing"),
        (ACCEPTED.replace('["regions.lost"]', "[]"), "rules is empty"),
        (ACCEPTED.replace('["regions.lost"]', '"regions.lost"'), "exception.0.rules"),
        (ACCEPTED.replace("regions.lost", "regions.none"), "no rule 'regions.none'"),
        (ACCEPTED.replace("regions.lost", "regions"), "no rule 'regions'"),
        (ACCEPTED.replace("a reason", "  "), "reason is empty"),
        (ACCEPTED.replace("a source", ""), "source is empty"),
        (ACCEPTED.replace("2027-06-30", '"soon"'), "exception.0.expires"),
        (ACCEPTED.replace("expires = 2027-06-30", ""), "exception.0.expires: is missing"),
        (ACCEPTED + "operation = []", "exception.0.operation: unknown key"),
        (ACCEPTED + 'operations = ["rescann"]', "no operation 'rescann'"),
        (ACCEPTED + 'faulted = "perhaps"', "exception.0.faulted"),
        (ACCEPTED + "splats = [1]", "exception.0.splats.0"),
        (ACCEPTED + 'places = ["nowhere"]', "exception.0.places.0"),
        (ACCEPTED + 'fail_kinds = ["dma"]', "no attach to a domain of type 'dma' can fail"),
        (ACCEPTED + 'left_by = ["dma"]', "no attach to a domain of type 'dma' can fail"),
        (KNOWN.replace('"regions.lost after a*", "splats.printed: WARNING*"', ""), "signatures"),
        ("[[known]]\n" + REST, "known.0.signatures: is missing"),
        (KNOWN.replace("a reason", ""), "reason is empty"),
        ("[[accepted]]\n" + REST, "accepted: unknown key"),
        ("[exception]\n" + REST, "exception"),
        ("[[exception]\n", "line 1"),
        ("a" + ".a" * 1000 + " = 1", "nested too deeply"),
        ("x = " + "[" * 5000, "nested too deeply"),
    ],
    ids=lambda value: value[-40:].strip(),
)
def test_malformed_lists(tmp_path: Path, text: str, words: str) -> None:
    """Each is an error of the user that names file and key."""
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / NAME}")
    assert words in str(caught.value)


def test_places_without_a_list(tmp_path: Path) -> None:
    """A directory and bytes that are no text are errors that name the file."""
    path = tmp_path / NAME
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        load(tmp_path, NAMES)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"explore\.toml: Is a directory"):
        load(tmp_path, NAMES)


@pytest.mark.parametrize("path", sorted(ROOT.glob(f"patches/*/{NAME}")), ids=str)
def test_the_lists_of_the_project(path: Path) -> None:
    """They can be read, and each entry has a source that says something."""
    found = load(path.parent, NAMES)
    assert found.exception or found.known
    assert all(len(each.source) > 8 for each in found.exception)
    assert all(len(each.source) > 8 for each in found.known)
    # A pattern that is for no rule would never match.
    for each in found.known:
        for signature in each.signatures:
            machine, _, name = signature.rpartition("q35-")[2].partition(": ")
            driver = signature.startswith("q35-")
            names = {rule.name for rule in RULES} if driver else NAMES
            text = name if driver else signature
            assert text.split(" ")[0].rstrip(":*") in names, signature
            assert not driver or machine in ("*", "intel", "intel-scalable", "amd"), signature


def test_there_is_a_list() -> None:
    """The test above is for one list at least."""
    assert list(ROOT.glob(f"patches/*/{NAME}"))
