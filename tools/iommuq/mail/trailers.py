# SPDX-License-Identifier: GPL-2.0-only
"""Collect the trailers of a thread: what is sound is taken by ``b4 trailers``, the rest shown.

Sound is a trailer that was given to the patch as it is now, by whom it names, in a mail
whose attestation does not fail.  A mail without attestation is taken, and shown as such.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from email import message_from_bytes
from enum import StrEnum
from pathlib import Path
from typing import Any

from iommuq.mail.b4tool import PATIENCE, b4, side
from iommuq.mail.branch import MailBranch

_UPDATE_LIMIT = 600.0


class Fate(StrEnum):
    """What becomes of a trailer."""

    TAKEN = "taken"
    THERE = "there"
    #: The patch it was given to has changed.
    STALE = "stale"
    FORGED = "attestation fails"
    MISMATCH = "not by the sender"


@dataclass(frozen=True)
class Found:
    """A trailer in the thread.

    :ivar text: ``Reviewed-by: Name <address>``.
    :ivar sender: of the mail.
    :ivar msgid: of the mail.
    :ivar attestation: what is known of who wrote it.
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
    """What a thread has.

    :ivar problems: what is wrong with the thread itself, one line each.
    """

    found: tuple[Found, ...]
    problems: tuple[str, ...]

    @property
    def taken(self) -> list[Found]:
        """What is taken."""
        return [each for each in self.found if each.fate is Fate.TAKEN]


def collect(branch: MailBranch, *, mbox: Path | None = None, take: bool = True) -> Collected:
    """Read the threads of a series, and put what is sound into the branch's commits.

    :param mbox: a file or Maildir to read in place of the archive.
    :param take: change the branch; else only look.
    :raises InfraError: the archive does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="iommuq-thread-") as name:
        folder = Path(name)
        data = {
            "change_id": branch.change_id,
            "msgids": [each for ids in branch.history.values() for each in ids],
            "mbox": str(mbox.absolute()) if mbox else "",
            "save": str(folder / "all"),
        }
        answer = side(
            "gather", cwd=branch.tree.folder, data=data, network=mbox is None, timeout=PATIENCE
        )
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
    attestation = ", ".join(reply["attestation"]) or "no attestation"
    there = current.get(reply["patch_id"])
    found = []
    for text in reply["trailers"]:
        if not reply["holds"]:
            fate = Fate.FORGED
        elif there is None:
            fate = Fate.STALE
        elif text in _message(branch, there["commit"]):
            fate = Fate.THERE
        else:
            fate = Fate.TAKEN
        found.append(_found(reply, text, fate, attestation))
    for text in reply["mismatches"]:
        found.append(_found(reply, text, Fate.MISMATCH, attestation))
    return found


def _found(reply: dict[str, Any], text: str, fate: Fate, attestation: str) -> Found:
    return Found(
        text,
        fate,
        reply["from"],
        reply["msgid"],
        attestation,
        int(reply["revision"]),
        reply["patch"],
    )


def _message(branch: MailBranch, commit: str) -> list[str]:
    return branch.tree.repo.describe(commit).message.splitlines()


def _problems(answer: dict[str, Any]) -> list[str]:
    """Say what is wrong with a thread: what is missing, what is there twice."""
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
                found.append(f"v{revision}: {number}/{of} is there {count} times")
        if len({each["of"] for each in own}) > 1:
            found.append(f"v{revision}: patches of series of different lengths")
    return found


def _take(branch: MailBranch, folder: Path, msgids: set[str]) -> None:
    """Give b4 the patches and the replies that are sound, and let it do the rest.

    :param msgids: theirs.
    """
    kept = folder / "kept"
    for name in ("cur", "new", "tmp"):
        (kept / name).mkdir(parents=True)
    for path in sorted((folder / "all/new").iterdir()):
        message = message_from_bytes(path.read_bytes())
        if str(message.get("Message-ID", "")).strip().strip("<>") in msgids:
            shutil.copyfile(path, kept / "new" / path.name)
    words = ("trailers", "-u", "-m", str(kept))
    b4(*words, cwd=branch.tree.folder, timeout=_UPDATE_LIMIT)
