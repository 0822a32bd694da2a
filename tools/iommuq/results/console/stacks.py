# SPDX-License-Identifier: GPL-2.0-only
"""Decode the stacks of splats: which function is each bare address in?

A kernel without CONFIG_KALLSYMS, as the one for KUnit under UML, prints addresses alone.
The image is the linker's output there and has its symbol table; binutils' nm reads it, as
the kernel's own scripts/decode_stacktrace.sh does.  Where the kernel printed names, or the
image has no table, the text stays as it is.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from iommuq.results.console.ktap import Report
from iommuq.results.console.splats import Expected, Splat, attribute
from iommuq.results.store import Complaint
from iommuq.system.errors import InfraError
from iommuq.system.run import run

#: Seconds for nm: a tenth of one is usual.
_LIMIT = 30.0
# "[<60028deb>] ? 0x0000000060028deb", and "at 0x000000006015803e" in a title.
_FRAME = re.compile(r"\[<(?:0x)?([0-9a-f]{8,16})>\] (\? )?(?:0x)?[0-9a-f]{8,16}(?![0-9a-f])")
_BARE = re.compile(r"\bat 0x([0-9a-f]{8,16})\b(?! \()")
_ELF = b"\x7fELF"


@dataclass(frozen=True)
class Symbols:
    """The functions of an image, by address.

    :ivar starts: the addresses, ascending.
    :ivar names: of the same order.
    """

    starts: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def read(cls, image: Path) -> Symbols:
        """Return the symbols of an image; none if it has none, or there is no nm."""
        try:
            with image.open("rb") as file:
                if file.read(len(_ELF)) != _ELF:
                    return cls()
            argv = ["nm", "--numeric-sort", "--defined-only", str(image)]
            output = run(argv, cwd=image.parent, timeout=_LIMIT).output
        except (OSError, InfraError):
            # A splat is worth telling without names, too.
            return cls()
        found = []
        for line in output.splitlines():
            address, _, rest = line.partition(" ")
            kind, _, name = rest.partition(" ")
            if kind in "tTwW" and name:
                found.append((int(address, 16), name))
        return cls(tuple(start for start, _ in found), tuple(name for _, name in found))

    def name(self, address: int) -> str:
        """Return ``function+0x12`` for an address, or nothing if it is in none."""
        at = bisect.bisect_right(self.starts, address) - 1
        # What is after the last function is no code any more.
        if at < 0 or at + 1 >= len(self.starts):
            return ""
        return f"{self.names[at]}+{address - self.starts[at]:#x}"


def decode(text: str, symbols: Symbols) -> str:
    """Return a splat with names in place of its bare addresses."""

    def frame(match: re.Match[str]) -> str:
        name = symbols.name(int(match[1], 16))
        return f"[<{match[1]}>] {match[2] or ''}{name}" if name else match[0]

    def bare(match: re.Match[str]) -> str:
        name = symbols.name(int(match[1], 16))
        return f"at {name} (0x{match[1]})" if name else match[0]

    return _BARE.sub(bare, _FRAME.sub(frame, text))


def complaints(
    report: Report,
    splats: Iterable[Splat],
    expected: Iterable[Expected],
    log: Path,
    *,
    prefix: str = "",
) -> list[Complaint]:
    """Return splats as they are kept.

    :param report: what `iommuq.results.console.ktap.parse` made of the lines that they are from.
    :param expected: what `iommuq.results.console.splats.expected` found there.
    :param prefix: of the names of tests, ``suite.``.
    """
    promises = list(expected)
    found = []
    for splat, case in attribute(report, splats):
        mine = (
            promise.covers(splat)
            for promise in promises
            if case is not None and case.first <= promise.line <= case.last
        )
        found.append(
            Complaint(
                "" if case is None else prefix + case.name,
                splat.kind,
                splat.title,
                splat.text,
                str(log),
                splat.start_line,
                any(mine),
            )
        )
    return found


def decoded(found: Iterable[Complaint], image: Path) -> list[Complaint]:
    """Return splats with their stacks decoded by an image; it is only read if there are any."""
    splats = list(found)
    if not any(_FRAME.search(one.text) or _BARE.search(one.text) for one in splats):
        return splats
    symbols = Symbols.read(image)
    return [
        replace(one, text=decode(one.text, symbols), title=decode(one.title, symbols))
        for one in splats
    ]
