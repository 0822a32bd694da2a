# SPDX-License-Identifier: GPL-2.0-only
"""The lists of accepted and known breaches."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from iommuq.explore import wire
from iommuq.explore.drivers.rules import RULES
from iommuq.explore.exceptions import NAME, Exceptions, load
from iommuq.explore.finds import Find
from iommuq.explore.operations import Operation
from iommuq.explore.rules import all_rules
from iommuq.explore.rules.model import Breach
from iommuq.system.errors import UserError
from simheader import ROOT
from simstates import GOOD, JOINED, changed, moment

NAMES = frozenset(rule.name for rule in all_rules())
REST = 'reason = "a reason"\nsource = "a source"\nexpires = 2027-06-30\n'
ACCEPTED = f'[[exception]]\nrules = ["regions.lost"]\n{REST}'
KNOWN = f'[[known]]\nsignatures = ["regions.lost after a*", "splats.printed: WARNING*"]\n{REST}'
FIND = Find(Breach("regions.lost", "a device", "state.ret == 0"), (Operation("add"),))


def read(folder: Path, text: str) -> Exceptions:
    """Read a list."""
    (folder / NAME).write_text(text, encoding="utf-8")
    return load(folder, NAMES)


def covers(
    folder: Path,
    line: str,
    *,
    kind: str = "add",
    find: Find = FIND,
    group: dict[str, int] | None = None,
    head: str = "blocks",
    devices: dict[int, dict[str, int]] | None = None,
) -> bool:
    """Tell whether an entry with one more line accepts a breach."""
    found = read(folder, ACCEPTED + line)
    met: dict[str, Any] = {head: 1}
    after = changed(GOOD, dev=devices or {}, group={0: group or {}}, **met)
    return found.covering(find, moment(Operation(kind), after)) is not None


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
    """`faulted` asks for a failure that was met, or for none."""
    assert covers(tmp_path, "faulted = true", head=head)
    assert not covers(tmp_path, "faulted = true")
    assert covers(tmp_path, "faulted = false")
    assert not covers(tmp_path, "faulted = false", head=head)


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
    """`untrusted` and `bound` ask for one such device, `shared` for two behind a bridge."""
    plain = {"flags": JOINED}
    one = {0: {"config": wire.UNTRUSTED | wire.BEHIND}, 1: plain}
    two = {0: {"config": wire.BEHIND}, 1: plain | {"config": wire.BEHIND}}
    assert covers(tmp_path, "untrusted = true", devices=one)
    assert not covers(tmp_path, "untrusted = true", devices=two)
    assert covers(tmp_path, "shared = true", devices=two)
    assert not covers(tmp_path, "shared = true", devices=one)
    assert covers(tmp_path, "shared = false", devices=one)
    bound = {0: {"flags": JOINED | wire.BOUND}}
    assert covers(tmp_path, "bound = true", devices=bound)
    assert not covers(tmp_path, "bound = true", devices=one)


def test_accepted_while_a_group_is_unclaimed(tmp_path: Path) -> None:
    """`unclaimed` asks for a group that is attached and has no owner."""
    line = "unclaimed = true"
    assert covers(tmp_path, line, group={"attached": 5})
    assert not covers(tmp_path, line, group={"attached": 5, "owner": 1})
    assert not covers(tmp_path, line)
    assert covers(tmp_path, "unclaimed = false")


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
