# SPDX-License-Identifier: GPL-2.0-only
"""Decode addresses in splats of kernels without CONFIG_KALLSYMS, such as KUnit's under UML.

The symbols are read from the ELF image with nm, as scripts/decode_stacktrace.sh does."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from iommuq.results.console.ktap import Case, Report
from iommuq.results.console.splats import Expected, Splat, attribute, owners_of
from iommuq.results.store import Complaint
from iommuq.system.errors import InfraError
from iommuq.system.run import run

#: Seconds for nm.
_LIMIT = 30.0
# "[<60028deb>] ? 0x0000000060028deb", and "at 0x000000006015803e" in a title.
_FRAME = re.compile(r"\[<(?:0x)?([0-9a-f]{8,16})>\] (\? )?(?:0x)?[0-9a-f]{8,16}(?![0-9a-f])")
_BARE = re.compile(r"\bat 0x([0-9a-f]{8,16})\b(?! \()")
_ELF = b"\x7fELF"


@dataclass(frozen=True)
class Symbols:
    """The functions of an image: their ascending addresses, and their names in that order."""

    starts: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def read(cls, image: Path) -> Symbols:
        """Return the symbols of an image; empty if they cannot be read."""
        try:
            with image.open("rb") as file:
                if file.read(len(_ELF)) != _ELF:
                    return cls()
            argv = ["nm", "--numeric-sort", "--defined-only", str(image)]
            output = run(argv, cwd=image.parent, timeout=_LIMIT).output
        except (OSError, InfraError):
            return cls()
        found = []
        for line in output.splitlines():
            address, _, rest = line.partition(" ")
            kind, _, name = rest.partition(" ")
            if kind in "tTwW" and name:
                found.append((int(address, 16), name))
        return cls(tuple(start for start, _ in found), tuple(name for _, name in found))

    def name(self, address: int) -> str:
        """Return ``function+0x12`` for an address; empty if it is in no function."""
        at = bisect.bisect_right(self.starts, address) - 1
        # The end of the last function is unknown.
        if at < 0 or at + 1 >= len(self.starts):
            return ""
        return f"{self.names[at]}+{address - self.starts[at]:#x}"


def decode(text: str, symbols: Symbols) -> str:
    """Return the text of a splat with its addresses replaced by names."""

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
    """Return splats in the form of the store.

    :param report: from `iommuq.results.console.ktap.parse`, of the same lines.
    :param expected: from `iommuq.results.console.splats.expected`, of the same lines.
    :param prefix: of the names of tests, ``suite.``.
    """
    promises: dict[Case, list[Expected]] = {}
    awaited = list(expected)
    owners = owners_of(report, (one.line for one in awaited))
    for one in awaited:
        if one.line in owners:
            promises.setdefault(owners[one.line], []).append(one)
    found = []
    for splat, case in attribute(report, splats):
        name, mine = "", False
        if case is not None:
            name = prefix + case.name
            left = promises.get(case, [])
            fitting = [one for one in left if one.covers(splat)]
            mine = bool(fitting)
            if fitting:
                # As in `fail_cases`: a promise stands for one splat.
                left.remove(max(fitting, key=lambda one: len(one.part)))
        place = (str(log), splat.start_line)
        found.append(Complaint(name, splat.kind, splat.title, splat.text, *place, mine))
    return found


def decoded(found: Iterable[Complaint], image: Path) -> list[Complaint]:
    """Return splats with their stacks decoded; the image is read only if one needs it."""
    splats = list(found)
    if not any(_FRAME.search(one.text) or _BARE.search(one.text) for one in splats):
        return splats
    symbols = Symbols.read(image)
    return [
        replace(one, text=decode(one.text, symbols), title=decode(one.title, symbols))
        for one in splats
    ]
