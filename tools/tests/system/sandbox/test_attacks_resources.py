# SPDX-License-Identifier: GPL-2.0-only
"""Programs that use up memory, disk, processes, output and time: each ends at its limit.

The table is tests/data/resources.toml.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from boxed import WHO, leftovers, place, reason_not_to, reason_not_to_mount, run_boxed

pytestmark = pytest.mark.hostile

_DATA = Path(__file__).parents[2] / "data" / "resources.toml"
_NAMES = """
import ctypes, fcntl, mmap, os, resource, signal, socket, struct, sys, threading, time
MIB = 1 << 20
def took(number):
    os.write(1, b'TOOK %d %d\\n' % (os.getpid(), number))
def rest():
    time.sleep(600)
"""
#: Bytes that the process outside may take for what is printed inside.
_OUTSIDE = 400 << 20


@dataclass(frozen=True)
class Resource:
    """An attack; the table explains the fields."""

    id: str
    tries: str
    python: str
    most: int
    limits: dict[str, Any]
    stops: str = ""
    within: float = 12.0
    both: bool = False
    known: str = ""


def attacks() -> Iterator[Resource]:
    """Yield each attack of the table."""
    for entry in tomllib.loads(_DATA.read_text(encoding="utf-8"))["attack"]:
        yield Resource(**{"limits": {}, **entry})


def cases() -> Iterator[object]:
    """Yield each attack, and those that a user may meet in another way twice."""
    for attack in attacks():
        marks = [pytest.mark.xfail(strict=True, reason=attack.known)] if attack.known else []
        for who in WHO if attack.both else WHO[:1]:
            yield pytest.param(who, attack, id=f"{who}-{attack.id}", marks=marks)


@pytest.mark.parametrize(("who", "attack"), list(cases()))
def test_resource(who: str, attack: Resource) -> None:
    if reason := reason_not_to(who):
        pytest.skip(reason)
    with place(who) as folder:
        work = folder / "work"
        words = ["/usr/bin/python3", "-c", _NAMES + attack.python]
        done = run_boxed(who, work, words, limits=attack.limits)
        print(f"{done.took} of {attack.most}, {done.seconds:.1f} s: {done.error or done.stderr}")
        assert leftovers(work) == []
    assert done.seconds < attack.within
    if attack.stops:
        assert done.error, "it ended by itself"
        assert re.search(attack.stops, done.error), done.error
    else:
        assert (done.returncode, done.error) == (0, ""), done.stderr
    assert done.took <= attack.most, f"it took {done.took / attack.most:.1f} times what it may"
    assert done.memory < _OUTSIDE


@pytest.mark.parametrize("name", ["allocated", "deleted-files", "fat-directory-and-disk"])
def test_size_of_a_file_system(name: str) -> None:
    """The kernel stops at once what the watcher sees late, or not at all."""
    if reason := reason_not_to_mount():
        pytest.skip(reason)
    attack = next(each for each in attacks() if each.id == name)
    with place("root") as folder:
        words = ["/usr/bin/python3", "-c", _NAMES + attack.python]
        done = run_boxed("root", folder / "work", words, limits=attack.limits, fixed=True)
    assert "No space left on device" in done.stderr
    assert done.took <= attack.limits["disk"] << 20
