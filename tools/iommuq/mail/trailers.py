# SPDX-License-Identifier: GPL-2.0-only
"""Collect the trailers of a thread; ``b4 trailers`` adds the valid ones to the commits.

Valid: given to the unchanged patch, by the person named, and the attestation does not fail.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from email import message_from_bytes
from enum import StrEnum
from pathlib import Path
from typing import Any

from iommuq.mail.b4tool import PATIENCE, b4, side
from iommuq.mail.branch import MailBranch
from iommuq.system.groups import Bounds
from iommuq.system.temporary import temporary_folder

# Of b4, which reads answers of others beside the branch's repository: packs do not count.
_BOUNDS = Bounds(memory=1 << 30, seconds=300, file=256 << 20, maps=True)


class Fate(StrEnum):
    """The verdict on a trailer; STALE: its patch has changed, THERE: the commit has it."""

    TAKEN = "taken"
    THERE = "there"
    STALE = "stale"
    FORGED = "attestation fails"
    MISMATCH = "not by the sender"


@dataclass(frozen=True)
class Found:
    """A trailer in the thread.

    :ivar text: ``Reviewed-by: Name <address>``.
    :ivar sender: of the mail.
    :ivar msgid: of the mail.
    :ivar attestation: b4's result for the mail.
    :ivar revision: the version of the series that it was given to; 0 if unknown.
    :ivar patch: the subject of the patch that it was given to.
    """

    text: str
    fate: Fate
    sender: str
    msgid: str
    attestation: str
    revision: int
    patch: str


@dataclass(frozen=True)
class Collected:
    """The trailers of a thread, and the faults of the thread itself, one line each."""

    found: tuple[Found, ...]
    problems: tuple[str, ...]

    @property
    def taken(self) -> list[Found]:
        """The trailers that are taken."""
        return [each for each in self.found if each.fate is Fate.TAKEN]


def collect(branch: MailBranch, *, mbox: Path | None = None, take: bool = True) -> Collected:
    """Read the threads of a series, and add the valid trailers to the branch's commits.

    :param mbox: a file or Maildir to read in place of the archive.
    :param take: change the branch.
    :raises InfraError: the archive does not answer.
    """
    with temporary_folder("thread") as folder:
        data = {
            "change_id": branch.change_id,
            "msgids": [each for ids in branch.history.values() for each in ids],
            "mbox": str(mbox.absolute()) if mbox else "",
            "save": str(folder / "all"),
        }
        options: dict[str, Any] = {"timeout": PATIENCE, "bounds": _BOUNDS}
        answer = side("gather", cwd=branch.tree.folder, data=data, network=mbox is None, **options)
        current = {each["patch_id"]: each for each in answer["current"]}
        found = [each for reply in answer["replies"] for each in _judge(branch, reply, current)]
        done = Collected(tuple(dict.fromkeys(found)), tuple(_problems(answer)))
        if take and done.taken:
            patches = {str(each["msgid"]) for each in answer["patches"]}
            _take(branch, folder, patches | {each.msgid for each in done.taken})
    return done


def _judge(
    branch: MailBranch, reply: dict[str, Any], current: dict[str, dict[str, Any]]
) -> list[Found]:
    there = current.get(reply["patch_id"])
    fates = []
    for text in reply["trailers"]:
        if not reply["holds"]:
            fate = Fate.FORGED
        elif there is None:
            fate = Fate.STALE
        else:
            message = branch.tree.repo.describe(there["commit"]).message
            fate = Fate.THERE if text in message.splitlines() else Fate.TAKEN
        fates.append((text, fate))
    fates += [(text, Fate.MISMATCH) for text in reply["mismatches"]]
    attestation = ", ".join(reply["attestation"]) or "no attestation"
    sender, msgid, patch = reply["from"], reply["msgid"], reply["patch"]
    revision = int(reply["revision"])
    return [Found(*each, sender, msgid, attestation, revision, patch) for each in fates]


def _problems(answer: dict[str, Any]) -> list[str]:
    """Return the faults of a thread: missing and duplicate patches, unreadable mails."""
    found = [f"cannot be read: {text}" for text in answer["unreadable"]]
    patches: Sequence[dict[str, Any]] = answer["patches"]
    for revision in sorted({each["revision"] for each in patches}):
        own = [each for each in patches if each["revision"] == revision]
        of = max(each["of"] for each in own)
        times = Counter(each["number"] for each in own)
        missing = [str(number) for number in range(1, of + 1) if not times[number]]
        if missing:
            found.append(f"v{revision}: {', '.join(missing)} of {of} missing")
        for number, count in sorted(times.items()):
            if count > 1:
                found.append(f"v{revision}: {number}/{of} was posted {count} times")
        if len({each["of"] for each in own}) > 1:
            found.append(f"v{revision}: the patches differ in the length of the series")
    return found


def _take(branch: MailBranch, folder: Path, msgids: set[str]) -> None:
    """Run ``b4 trailers`` on the messages with these ids."""
    kept = folder / "kept"
    for name in ("cur", "new", "tmp"):
        (kept / name).mkdir(parents=True)
    for path in sorted((folder / "all/new").iterdir()):
        message = message_from_bytes(path.read_bytes())
        if str(message.get("Message-ID", "")).strip().strip("<>") in msgids:
            shutil.copyfile(path, kept / "new" / path.name)
    b4("trailers", "-u", "-m", str(kept), cwd=branch.tree.folder)
