# SPDX-License-Identifier: GPL-2.0-only
"""What is said of a driver."""

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
    """A way to an error, or to what nobody can tell.

    :ivar what: ``-ENOMEM``, or why nothing is known.
    :ivar chain: the functions on the way, from the attach callback on.
    :ivar when: the condition that the error stands under.
    """

    what: str
    place: Place | None
    chain: tuple[str, ...] = ()
    when: str = ""


@dataclass(frozen=True)
class Verdict:
    """Whether an attach can fail, and how.

    :ivar attach: the callback.
    :ivar failures: errors that there is a way to.
    :ivar unknown: what could not be followed.
    """

    attach: str
    place: Place | None
    failures: tuple[Reason, ...] = ()
    unknown: tuple[Reason, ...] = ()

    @property
    def answer(self) -> Answer:
        """The answer in a word."""
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
    :ivar verdict: of its attach; None if there is no attach to be judged.
    :ivar notes: what else is to be known, a sentence each.
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
    :ivar place: where the type is named.
    :ivar chain: the functions from the callback on.
    """

    kind: str
    place: Place
    chain: tuple[str, ...]


@dataclass(frozen=True)
class Driver:
    """All that the table says of a driver.

    :ivar identity: its identity domains; more than one if it depends.
    :ivar release: the domain that it names for a device that goes; empty if none.
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
