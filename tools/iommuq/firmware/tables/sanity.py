# SPDX-License-Identifier: GPL-2.0-only
"""Check the regions of a table: findings are reported; only unreadable tables are errors."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

#: Bits of the widest physical address, on x86 and on Arm.
ADDRESS_BITS = 52
PAGE = 0x1000
_REVISION_AT = 8


@dataclass(frozen=True)
class Oddity:
    """Something odd in a table; *offset* is the byte of it where the structure begins."""

    offset: int
    text: str

    def __str__(self) -> str:
        return f"byte 0x{self.offset:x}: {self.text}"


@dataclass(frozen=True)
class Reserved:
    """A region that a table claims.

    :ivar offset: the byte of the table where its structure begins.
    :ivar base: first address.
    :ivar size: in bytes; 0 or less if the end comes before the base.
    :ivar who: the devices.
    :ivar what: the kind of structure, such as ``RMRR``.
    """

    offset: int
    base: int
    size: int
    who: Hashable
    what: str

    @property
    def name(self) -> str:
        """The structure and its region."""
        return f"{self.what} {span(self.base, self.size)}"


def span(base: int, size: int) -> str:
    """Return a region as first and last address, with its size."""
    if size <= 0:
        return f"0x{base:x} ({size} bytes)"
    return f"0x{base:x}-0x{base + size - 1:x} ({amount(size)})"


def amount(size: int) -> str:
    """Return a number of bytes in the largest unit that it is a multiple of."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size % (1 << shift) == 0:
            return f"{size >> shift} {unit}"
    return f"{size} bytes"


def check_revision(revision: int, known: range) -> list[Oddity]:
    """Return a finding if a table's revision is not in *known*; kernels ignore the revision."""
    if revision in known:
        return []
    text = f"table revision {revision} is unknown; known are {known[0]} to {known[-1]}"
    return [Oddity(_REVISION_AT, text)]


def check(
    claims: Iterable[Reserved], *, granule: int = PAGE, bits: int = ADDRESS_BITS
) -> list[Oddity]:
    """Return what is odd about regions, in the order of the table.

    :param granule: bytes that base and size must be a multiple of.
    :param bits: bits of a physical address.
    """
    claims = list(claims)
    found = [Oddity(one.offset, text) for one in claims for text in _alone(one, granule, bits)]
    found += _overlaps(claims)
    return sorted(found, key=lambda finding: finding.offset)


def _alone(claim: Reserved, granule: int, bits: int) -> Iterator[str]:
    end = claim.base + claim.size
    if claim.size < 0:
        yield f"{claim.what} 0x{claim.base:x} ends before it begins, at 0x{end - 1:x}"
    elif claim.size == 0:
        yield f"{claim.what} 0x{claim.base:x} is empty"
    if claim.base == 0:
        yield f"{claim.name} begins at address 0"
    if claim.base % granule:
        yield f"{claim.name} does not begin at a multiple of {amount(granule)}"
    if end % granule:
        yield f"{claim.name} does not end at a multiple of {amount(granule)}"
    if max(claim.base, end - 1) >= 1 << bits:
        yield f"{claim.name} lies beyond the last address of {bits} bits"


def _overlaps(claims: list[Reserved]) -> Iterator[Oddity]:
    """Yield a finding for each overlap, in one pass: a table may have thousands of regions."""
    seen: dict[tuple[int, int, Hashable], Reserved] = {}
    furthest: Reserved | None = None
    some = [claim for claim in claims if claim.size > 0]
    for claim in sorted(some, key=lambda one: (one.base, -one.size, one.offset)):
        first = seen.setdefault((claim.base, claim.size, claim.who), claim)
        if first is not claim:
            text = f"{claim.name} is a duplicate of the entry at byte 0x{first.offset:x}"
            yield Oddity(claim.offset, f"{text}, for the same devices")
        if furthest is None:
            furthest = claim
            continue
        same = (claim.base, claim.size) == (furthest.base, furthest.size)
        if claim.base < furthest.base + furthest.size and not same:
            text = f"{claim.name} overlaps {furthest.name} at byte 0x{furthest.offset:x}"
            yield Oddity(claim.offset, text)
        if claim.base + claim.size > furthest.base + furthest.size:
            furthest = claim
