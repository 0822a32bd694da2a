# SPDX-License-Identifier: GPL-2.0-only
"""Read ``selftests/vfio.toml``: the programs, their guest, and the skips that are expected."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path

from iommuq.firmware.scenario import Scenario
from iommuq.system import tables
from iommuq.system.errors import UserError
from iommuq.system.tables import Table, require

#: The file, below the checkout.
PLACE = Path("selftests/vfio.toml")
#: The devices that a program runs with.
CONTROL, MARKED = "control", "marked"


@dataclass(frozen=True)
class Program(Table):
    """One program.

    :ivar limit: seconds for one of its two runs.
    :ivar unopened: its cases that do not open the device, and so pass with the marked one.
    """

    name: str
    limit: float
    unopened: tuple[str, ...] = ()


@dataclass(frozen=True)
class Skip(Table):
    """Cases that may be skipped.

    :ivar tests: ``<program>.<device>.<case>``; ``*`` stands for anything.
    :ivar says: a part of the reason that the program gives.
    """

    tests: str
    says: str

    def __post_init__(self) -> None:
        require(self.says.strip(), "says is empty")

    def covers(self, test: str, reason: str) -> bool:
        """Return whether a test may be skipped for a reason."""
        pattern = ".*".join(map(re.escape, self.tests.split("*")))
        return re.fullmatch(pattern, test) is not None and self.says in reason


@dataclass(frozen=True)
class VfioSuite(Table):
    """All programs, and how their results are judged.

    :ivar guest: binds the devices; not one of ``selftests/scenarios``.
    :ivar refused: parts of an assertion that fails because a device cannot be opened.
    :ivar silent: those whose program prints no errno.
    :ivar errnos: names of the errnos of a refusal.
    :ivar huge_pages: of the guest.
    """

    guest: Scenario
    program: tuple[Program, ...]
    refused: tuple[str, ...]
    errnos: tuple[str, ...]
    huge_pages: int = 0
    silent: tuple[str, ...] = ()
    skip: tuple[Skip, ...] = ()

    def __post_init__(self) -> None:
        require(self.program, "there is no program")
        require(self.refused, "refused is empty")
        require(self.errnos, "errnos is empty")
        for name in self.errnos:
            require(hasattr(errno, name), f"errnos: no errno {name!r}")

    @property
    def numbers(self) -> frozenset[int]:
        """The numbers of the errnos of a refusal."""
        return frozenset(int(getattr(errno, name)) for name in self.errnos)

    def may_skip(self, test: str, reason: str) -> bool:
        """Return whether a test may be skipped for a reason; see `Skip`."""
        return any(skip.covers(test, reason) for skip in self.skip)


def load_suite(root: Path) -> VfioSuite:
    """Read the file.

    :param root: the checkout of the project.
    :raises UserError: it is missing or malformed.
    """
    suite = tables.load_toml(VfioSuite, root / PLACE)
    object.__setattr__(suite.guest, "name", "guest")
    return suite


def choose(suite: VfioSuite, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Return the machines of these names; all of the suite if none is given.

    :raises UserError: the suite has no such machine.
    """
    there_are = suite.guest.machines
    for name in wanted:
        if name not in there_are:
            what = f"the vfio suite has no machine {name!r}; there are {', '.join(there_are)}"
            raise UserError(what)
    return tuple(dict.fromkeys(wanted)) or there_are
