# SPDX-License-Identifier: GPL-2.0-only
"""Attacks on files, network, rights and secrets from inside of a sandbox, as root and as a user.

The table is in tests/data/attacks.  All attacks run in one sandbox.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from boxed import WHO, leftovers, reason_not_to
from outside import Attack, Outcome, attacks, outside


@dataclass(frozen=True)
class Tried:
    """The whole table, tried by one user.

    :ivar changed: what is not as before outside.
    """

    outcomes: dict[str, Outcome]
    changed: dict[str, object]
    arrived: list[str]
    left: list[str]


@pytest.fixture(scope="module")
def tried() -> dict[str, Tried]:
    """Return the outcomes, by who tried; each is made once."""
    return {}


def try_all(tried: dict[str, Tried], who: str) -> Tried:
    """Try the whole table, unless that was done."""
    if reason := reason_not_to(who):
        pytest.skip(reason)
    if who not in tried:
        with outside(who) as around:
            outcomes = around.attempt([each for each in attacks().values() if each.here])
            after = around.state()
            changed = {key: after[key] for key in after if after[key] != around.before[key]}
            tried[who] = Tried(outcomes, changed, around.arrived(), leftovers(around.work))
    return tried[who]


def cases() -> Iterator[object]:
    """Yield each attack as root and as a user."""
    for who in WHO:
        for attack in attacks().values():
            reason = attack.open.get(who)
            known = [pytest.mark.xfail(strict=True, reason=reason)] if reason else []
            yield pytest.param(who, attack, id=f"{who}-{attack.id}", marks=known)


@pytest.mark.parametrize(("who", "attack"), list(cases()))
def test_attack(tried: dict[str, Tried], who: str, attack: Attack) -> None:
    if not attack.here:
        pytest.skip(f"only on {attack.machine}")
    outcome = try_all(tried, who).outcomes[attack.id]
    assert not outcome.crashed, f"the program of the attack: {outcome.crashed}"
    assert not outcome.escaped, f"{attack.tries}: {outcome.escaped}"
    assert not outcome.unexpected(attack), outcome


@pytest.mark.parametrize("who", WHO)
def test_outside_is_as_before(tried: dict[str, Tried], who: str) -> None:
    """Whatever an attack says of itself: files, servers, settings and processes outside."""
    found = try_all(tried, who)
    assert found.changed == {}
    assert found.arrived == []
    assert found.left == []


@pytest.mark.parametrize("who", WHO)
def test_attacks_succeed_without_a_sandbox(who: str) -> None:
    """Those that can do no harm: their programs do what the table says."""
    if reason := reason_not_to(who):
        pytest.skip(reason)
    wanted = [each for each in attacks().values() if each.controls(who)]
    assert len(wanted) > 30
    # Its program does not know whether a datagram arrived.
    udp = attacks()["udp-loopback"]
    with outside(who) as around:
        outcomes = around.attempt([*wanted, udp], trusted=True)
        assert [name for name, each in outcomes.items() if not each.escaped] == [udp.id]
        assert len(around.arrived()) >= 4
        assert around.state() != around.before
