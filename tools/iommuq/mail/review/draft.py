# SPDX-License-Identifier: GPL-2.0-only
"""Write what there is to say of a series as replies, for a person to read, change and send.

One reply to the cover letter, or to the only patch, says what was run and what came of it;
each patch with something to its discredit gets one of its own.  Each is a file in the form
of a mail, which mail programs open as a draft and ``git send-email`` takes as it is.
"""

from __future__ import annotations

import email.header
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import formataddr, getaddresses
from pathlib import Path

from iommuq.mail.review.draft_text import head_body, patch_body
from iommuq.mail.review.fetch import Message
from iommuq.mail.review.model import Reviewed
from iommuq.system.errors import InfraError, UserError
from iommuq.system.progress import one_line

_ORDER = ("From", "To", "Cc", "Subject", "In-Reply-To", "References")
_ADDRESSES = ("From", "To", "Cc")
_IDS = ("In-Reply-To", "References")
_ID = re.compile(r"<[^<>\s]+@[^<>\s]+>|<[^<>\s]+>")


@dataclass(frozen=True)
class Draft:
    """A reply.

    :ivar name: of its file.
    """

    name: str
    subject: str
    data: bytes


def compose(found: Reviewed) -> list[Draft]:
    """Write the replies.

    :return: the one to the whole series first.
    """
    posted = found.posted
    head = posted.cover or posted.patches[0]
    alone = posted.cover is None and len(posted.patches) == 1
    # A single patch has all that there is to say of it in one mail.
    bodies: list[tuple[str, Message, str]] = []
    details = patch_body(found, 1) if alone else ""
    bodies.append(("0000-reply.eml", head, head_body(found, details=details)))
    if not alone:
        for number, patch in enumerate(posted.patches, 1):
            body = patch_body(found, number)
            if body and patch is head:
                bodies[0] = (bodies[0][0], head, head_body(found, details=body))
            elif body:
                bodies.append((f"{number:04}-reply.eml", patch, body))
    return [Draft(name, message.subject, _mail(message, body)) for name, message, body in bodies]


def write(drafts: Sequence[Draft], folder: Path) -> list[Path]:
    """Write drafts into a new directory.

    :raises UserError: there is something already: it may be a draft that somebody changed.
    :raises InfraError: it cannot be written.
    """
    check_target(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for draft in drafts:
            path = folder / draft.name
            path.write_bytes(draft.data)
            paths.append(path)
    except OSError as error:
        raise InfraError(f"{folder}: {error.strerror}", hint="--output names a place") from error
    return paths


def check_target(folder: Path) -> None:
    """See that a directory for drafts is new or empty.

    :raises UserError: it is not.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{folder}: there already, and never written over", hint="--output names another place"
        )


def default_name(title: str) -> str:
    """Return what the directory for the drafts of a series is called."""
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return f"review-{words[:48].rstrip('-') or 'series'}"


def _mail(message: Message, body: str) -> bytes:
    """Make a mail of a text.  Date and Message-ID are for whoever sends it."""
    lines = []
    own = {address for _, address in getaddresses([message.reply.get("From", "")])}
    for name in _ORDER:
        value = one_line(message.reply.get(name, ""))
        if name in _ADDRESSES:
            value = _addresses(value, set() if name == "From" else own)
        elif name in _IDS:
            # A line each: ids must not be broken, and there may be many.
            value = "\n ".join(_ID.findall(value))
        elif not value.isascii():
            value = email.header.Header(value, "utf-8", header_name=name).encode()
        if value:
            lines.append(f"{name}: {value}")
    lines += [
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
    ]
    head = "\n".join(lines)
    return f"{head}\n\n{body}".encode("utf-8", "backslashreplace")


def _addresses(value: str, without: set[str]) -> str:
    """Return addresses in the form of a header, one a line.

    :param without: whom to leave out.
    """
    people = [
        (name, address)
        for name, address in getaddresses([value])
        if "@" in address
        and address not in without
        and address.isascii()
        and not re.search(r"[\s<>,]", address)
    ]
    return ",\n ".join(formataddr(each) for each in people)
