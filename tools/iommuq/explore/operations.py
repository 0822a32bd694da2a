# SPDX-License-Identifier: GPL-2.0-only
"""The operations of a sequence, in data, in words, and as files.

``operations.toml`` lists them; the simulated IOMMU in ``explore/`` carries them out.
"""

from __future__ import annotations

import errno
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any

from iommuq.system.errors import UserError
from iommuq.system.tables import Table, own_table

#: Largest number of operations of a sequence that is read from a file.
MOST = 500
#: Kinds of domain whose attach can be made to fail; the values are those of the driver.
FAIL_KINDS = {"identity": 1, "blocked": 2, "paging": 3}
#: The errnos that an attach is made to fail with.
FAIL_ERRNOS = ("ENOMEM", "EINVAL", "ENODEV", "EBUSY")
#: Largest values of `Operation.fail_at` and `Operation.fail_alloc`.
FAIL_AT, FAIL_ALLOC = 9, 60

# Bits of `setup` and `add`, as in iommu_sim.h.
_SETUP = {1: "identity", 2: "blocked", 4: "release", 8: "cuts"}
_ADD = {1: "PCI", 2: "untrusted", 4: "behind a bridge", 8: "deferred attach"}
_INSISTS = {1: "insists on DMA", 2: "insists on identity"}
_REGIONS = ("", "direct", "direct-relaxable", "reserved")
_TYPES = ("DMA", "DMA-FQ", "identity", "auto")


@dataclass(frozen=True)
class Kind(Table):
    """One line of ``operations.toml``."""

    name: str
    words: str
    errnos: tuple[str, ...]
    source: str
    fields: Mapping[str, int]
    weight: int
    fails: bool = True


@cache
def kinds() -> dict[str, Kind]:
    """Return the kinds of operation by name, in the order of their numbers."""
    tables = own_table(__package__, "operations.toml")["operation"]
    return {table["name"]: Kind(**{**table, "errnos": tuple(table["errnos"])}) for table in tables}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation; which fields it uses is in ``operations.toml``.

    :ivar fail_kind: kind of domain whose attach fails; empty: none.
    :ivar fail_at: the number of that attach in the operation, from 1.
    :ivar fail_errno: the name of its error.
    :ivar fail_every: and so does each later one of the operation.
    :ivar fail_alloc: the number of the allocation that fails, from 1; 0: none.
    """

    kind: str
    dev: int = 0
    group: int = 0
    domain: int = 0
    a: int = 0
    b: int = 0
    c: int = 0
    fail_kind: str = ""
    fail_at: int = 0
    fail_errno: str = ""
    fail_alloc: int = 0
    fail_every: int = 0

    def packed(self) -> tuple[int, ...]:
        """Return the values of struct iommu_sim_op."""
        code = getattr(errno, self.fail_errno) if self.fail_errno else 0
        kind = FAIL_KINDS.get(self.fail_kind, 0)
        number = _numbers()[self.kind]
        return (
            number, self.dev, self.group, self.domain, self.a, self.b, self.c,
            kind, self.fail_at, code, self.fail_alloc, self.fail_every,
        )  # fmt: skip

    def words(self) -> str:
        """Return it as a line of text."""
        said = {"user": self.a + 1, "pasid": self.a + 1, "how": "", "regions": ""}
        said["type"] = _TYPES[self.a % len(_TYPES)]
        said["handle"] = " with a handle" if self.a else ""
        if self.kind == "setup":
            said["how"] = ", ".join(_bits(self.a, _SETUP)) or "no static domain"
        elif self.kind == "add":
            said["how"] = ", ".join(_how(self.a))
            said["regions"] = _regions(self.b, self.c)
        text = kinds()[self.kind].words.format_map({**asdict(self), **said})
        if self.fail_kind:
            nth = f"attach {self.fail_at} to a domain of type {self.fail_kind}"
            later = " and each later one" if self.fail_every else ""
            text += f" ({nth}{later} fails with {self.fail_errno})"
        if self.fail_alloc:
            text += f" (allocation {self.fail_alloc} fails)"
        return text

    def to_json(self) -> dict[str, Any]:
        """Return it without fields of default value."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name))}


@cache
def _numbers() -> dict[str, int]:
    return {name: number for number, name in enumerate(kinds())}


def _bits(value: int, names: Mapping[int, str]) -> list[str]:
    return [name for bit, name in names.items() if value & bit]


def _how(value: int) -> list[str]:
    found = _bits(value, _ADD)
    if not value & 1:
        found = ["not PCI", *(word for word in found if word == _ADD[8])]
    return found + _bits(1 << (value >> 4 & 3) >> 1 << 0, _INSISTS)


def _regions(types: int, shape: int) -> str:
    found = [_REGIONS[types >> 2 * number & 3] for number in range(3)]
    found = [name for name in found if name]
    if not found:
        return ""
    size = "three pages" if shape & 2 else "one page"
    where = ", the first at the end of 32 bits" if shape & 1 and types & 3 else ""
    return f", regions: {', '.join(found)} of {size}{where}"


def from_json(data: object, where: str) -> list[Operation]:
    """Check the operations of a file.

    :param data: what a JSON parser returned.
    :param where: the file, for errors.
    :raises UserError: an operation is unknown, or a value is out of range.
    """
    if not isinstance(data, list) or not 0 < len(data) <= MOST:
        raise UserError(f"{where}: operations must be a list of 1 to {MOST}")
    return [_checked(entry, f"{where}: operation {n}") for n, entry in enumerate(data, 1)]


def _checked(entry: object, where: str) -> Operation:
    if not isinstance(entry, dict) or entry.get("kind") not in list(kinds()):
        raise UserError(f"{where}: needs a kind, one of {', '.join(kinds())}")
    allowed: dict[str, int] = {**kinds()[entry["kind"]].fields}
    allowed |= {"fail_at": FAIL_AT + 1, "fail_alloc": FAIL_ALLOC + 1, "fail_every": 2}
    for name, value in entry.items():
        if name == "kind":
            continue
        if name in ("fail_kind", "fail_errno"):
            good = value in (list(FAIL_KINDS) if name == "fail_kind" else FAIL_ERRNOS)
        else:
            good = type(value) is int and name in allowed and 0 <= value < allowed[name]
        if not good:
            raise UserError(f"{where}: {name} cannot be {reprlib.repr(value)}")
    found = Operation(**entry)
    if (found.fail_kind == "") != (found.fail_at == 0) or (found.fail_errno == "") != (
        found.fail_kind == ""
    ):
        raise UserError(f"{where}: fail_kind, fail_at and fail_errno go together")
    return found


def listing(operations: Iterable[Operation]) -> list[str]:
    """Return a sequence in numbered lines."""
    return [f"{number:3d}. {each.words()}" for number, each in enumerate(operations, 1)]


def to_json(operations: Sequence[Operation]) -> list[dict[str, Any]]:
    """Return a sequence for a file."""
    return [each.to_json() for each in operations]
