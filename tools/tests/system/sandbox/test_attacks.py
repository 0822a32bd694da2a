# SPDX-License-Identifier: GPL-2.0-only
"""Attacks on files, network, rights and secrets from inside of a sandbox, as root and as a user.

The table is in tests/data/attacks.  All attacks run in one sandbox.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from boxed import WHO, leftovers, reason_not_to, remove, run_boxed
from iommuq.mail.review import review as reviews
from outside import Attack, Outcome, attacks, outside

pytestmark = pytest.mark.hostile


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


@pytest.mark.parametrize("who", WHO)
def test_kill_of_all_processes(who: str) -> None:
    if reason := reason_not_to(who):
        pytest.skip(reason)
    with outside(who) as around:
        run_boxed(who, around.work, ["sh", "-c", "sleep 600 & kill -9 -1"])
        assert around.state() == around.before
        assert leftovers(around.work) == []


#: What is found in place of the logs; {home} is outside.
_LEFT = {
    "a link": "mkdir state; ln -s {home} state/logs",
    "a link above": "ln -s {home}/.. state; ls",
    "a pipe": "mkdir state; mkfifo state/logs",
    "pipes and links": "mkdir -p state/logs; cd state/logs; mkfifo pipe; ln -s {home}/.netrc link",
    "a closed directory": "mkdir -p state/logs; echo 1 > state/logs/x; chmod 0 state/logs state",
    "long names": "mkdir -p state/logs; cd state/logs; i=0; while [ $i -lt 99 ]; do"
    " echo 1 > $(printf '%0255d' $i); i=$((i+1)); done",
    "deep": "mkdir -p state/logs; cd state/logs; i=0; while [ $i -lt 300 ]; do"
    " mkdir ddddddddddddddd; cd -P ddddddddddddddd; i=$((i+1)); done 2>/dev/null; true",
}


@pytest.mark.parametrize("left", _LEFT)
@pytest.mark.parametrize("who", WHO)
def test_logs_that_are_something_else(who: str, left: str) -> None:
    """What the outside does with the directory later follows no link, and waits for no pipe."""
    if reason := reason_not_to(who):
        pytest.skip(reason)
    with outside(who) as around:
        script = _LEFT[left].format(home=around.folder / "home")
        done = run_boxed(who, around.work, ["sh", "-c", script])
        # The watcher may look while it is there, and say that it cannot.
        assert done.returncode == 0 or "unreadable directory" in done.error, done
        reviews._keep_logs(around.work / "state" / "logs", around.folder / "kept")
        kept = [*(around.folder / "kept").rglob("*")]
        secret = around.targets["canary"].encode()
        assert all(path.is_file() and secret not in path.read_bytes() for path in kept)
        remove(around.work)
        assert not around.work.exists()
        shutil.rmtree(around.folder / "kept", ignore_errors=True)
        around.work.mkdir()
        assert around.state() == around.before
