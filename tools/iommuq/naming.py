# SPDX-License-Identifier: GPL-2.0-only
"""What the patches of a queue are called after commits came, went and changed places.

A name changes only where it must: a patch gets another number if one before it
took its own, and another text if its subject changed and its name was made of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from iommuq.errors import UserError
from iommuq.patchqueue import BASELINE

_NUMBERED = re.compile(r"(?P<number>\d+)(?P<rest>[-_].*)")
_SECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Slot:
    """A patch to be named.

    :ivar old: its name in the series file so far; None if it is new.
    :ivar old_subject: the subject that went with that name.
    :ivar made: the file name that git makes of its subject now.
    :ivar subject: the subject now.
    """

    old: str | None
    old_subject: str
    made: str
    subject: str


def assign(slots: Sequence[Slot], section: str | None = None) -> list[str]:
    """Return the names of patches, in the order of the series.

    :param section: where new ones go; None for where they stand.
    :raises UserError: nothing says where a new one belongs.
    """
    if section is not None and not _SECTION.fullmatch(section):
        raise UserError(f"{section!r} cannot be the name of a section", hint="use one like resv")
    last: dict[str, int] = {}
    names: list[str] = []
    for at, slot in enumerate(slots):
        folder = _folder(slots, at, section)
        file = _rest(slot)
        match = _NUMBERED.fullmatch(file)
        if match:
            number = last.get(folder, 0) + 1
            if slot.old is not None:
                number = max(number, int(match["number"]))
            last[folder] = number
            width = len(match["number"]) if slot.old is not None else 4
            file = f"{number:0{width}}{match['rest']}"
        names.append(str(PurePosixPath(folder, file)))
    return names


def _folder(slots: Sequence[Slot], at: int, section: str | None) -> str:
    """Return the folder of a patch."""
    own = slots[at].old
    if own is not None:
        return str(PurePosixPath(own).parent)
    if section is not None:
        return section
    before = next((slot.old for slot in reversed(slots[:at]) if slot.old), None)
    after = next((slot.old for slot in slots[at:] if slot.old), None)
    # What is put between the baseline and the first series is meant to be sent.
    for name in (before, after):
        if name is not None and _is_sent(name):
            return str(PurePosixPath(name).parent)
    if after is not None:
        return BASELINE
    raise UserError(
        f"nothing says where the patch {slots[at].subject!r} belongs",
        hint="name its section: --section NAME",
    )


def _is_sent(name: str) -> bool:
    return str(PurePosixPath(name).parent) != BASELINE


def _rest(slot: Slot) -> str:
    """Return the file name of a patch, with some number."""
    if slot.old is None:
        return slot.made
    old = PurePosixPath(slot.old).name
    match = _NUMBERED.fullmatch(old)
    stem = PurePosixPath(match["rest"][1:] if match else old).stem
    if slot.subject == slot.old_subject or match is None or not _made_of(stem, slot.old_subject):
        return old
    made = _NUMBERED.fullmatch(slot.made)
    return f"{match['number']}{made['rest'] if made else match['rest']}"


def _made_of(stem: str, subject: str) -> bool:
    """Tell whether git made a file's name of a subject, by the way git does it."""
    text = re.sub(r"[^A-Za-z0-9._]+", "-", subject)
    return re.sub(r"\.+", ".", text).strip("-").startswith(stem)
