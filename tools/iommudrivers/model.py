# SPDX-License-Identifier: GPL-2.0-only
"""The results for a driver."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from iommudrivers.values import Place


class Answer(Enum):
    """Whether an attach can fail."""

    NEVER = "never"
    FAILS = "can fail"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Reason:
    """A path to an error, or to an unknown value.

    :ivar what: ``-ENOMEM``, or why the value is unknown.
    :ivar chain: the functions on the path, from the attach callback.
    :ivar when: the condition of the error.
    """

    what: str
    place: Place | None
    chain: tuple[str, ...] = ()
    when: str = ""


@dataclass(frozen=True)
class Verdict:
    """Whether an attach can fail, and how.

    :ivar attach: the callback.
    :ivar failures: the possible errors.
    :ivar unknown: the calls and values that are unknown.
    """

    attach: str
    place: Place | None
    failures: tuple[Reason, ...] = ()
    unknown: tuple[Reason, ...] = ()

    @property
    def answer(self) -> Answer:
        """The answer."""
        if self.failures:
            return Answer.FAILS
        return Answer.UNDECIDED if self.unknown else Answer.NEVER


class How(Enum):
    """Where a domain comes from."""

    STATIC = "static"
    ALLOCATED = "allocated"
    NONE = "none"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Source:
    """A domain that the core may attach.

    :ivar name: of the variable, or of the callback that allocates it.
    :ivar verdict: of its attach; None without an attach callback.
    :ivar notes: further remarks, one sentence each.
    """

    how: How
    name: str = ""
    place: Place | None = None
    verdict: Verdict | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Region:
    """A type of reserved regions that a driver may report.

    :ivar kind: ``DIRECT``, ``MSI``, …
    :ivar place: the line with the type.
    :ivar chain: the functions from the callback.
    """

    kind: str
    place: Place
    chain: tuple[str, ...]


@dataclass(frozen=True)
class Driver:
    """All results for a driver.

    :ivar identity: its identity domains; more than one if there are conditions.
    :ivar release: the domain for a removed device; empty if none.
    :ivar default: how the default domain is chosen.
    :ivar resv: its callback for reserved regions; empty if it has none.
    """

    name: str
    ops: str
    place: Place
    identity: tuple[Source, ...]
    blocked: tuple[Source, ...]
    release: str
    default: str
    resv: str
    regions: tuple[Region, ...]
    unknown: tuple[str, ...] = ()
