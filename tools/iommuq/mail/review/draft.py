# SPDX-License-Identifier: GPL-2.0-only
"""Write the results of a review as draft replies, for the user to edit and send.

One for the whole series, and one for each patch with findings, as files in the form of mails.
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
    """A reply; *name* is that of its file."""

    name: str
    subject: str
    data: bytes


def compose(found: Reviewed) -> list[Draft]:
    """Return the replies, that to the whole series first."""
    posted = found.posted
    head = posted.cover or posted.patches[0]
    alone = posted.cover is None and len(posted.patches) == 1
    # A single patch gets one reply with everything.
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

    :raises UserError: it is not empty: drafts in it may have been edited.
    :raises InfraError: it cannot be written.
    """
    check_target(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for draft in drafts:
            (folder / draft.name).write_bytes(draft.data)
    except OSError as error:
        hint = "choose a directory with --output"
        raise InfraError(f"{folder}: {error.strerror}", hint=hint) from error
    return [folder / draft.name for draft in drafts]


def check_target(folder: Path) -> None:
    """Raise UserError if the directory for drafts exists and is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        hint = "choose another directory with --output"
        raise UserError(f"{folder}: exists, and is never overwritten", hint=hint)


def default_name(title: str) -> str:
    """Return the name of the directory for the drafts of a series."""
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return f"review-{words[:48].rstrip('-') or 'series'}"


def _mail(message: Message, body: str) -> bytes:
    """Make a mail of a text, without Date and Message-ID, which sending adds."""
    lines = []
    own = {address for _, address in getaddresses([message.reply.get("From", "")])}
    for name in _ORDER:
        value = one_line(message.reply.get(name, ""))
        if name in _ADDRESSES:
            value = _addresses(value, set() if name == "From" else own)
        elif name in _IDS:
            # One per line, since ids must not be folded.
            value = "\n ".join(_ID.findall(value))
        elif not value.isascii():
            value = email.header.Header(value, "utf-8", header_name=name).encode()
        if value:
            lines.append(f"{name}: {value}")
    lines += ["MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8"]
    head = "\n".join([*lines, "Content-Transfer-Encoding: 8bit"])
    return f"{head}\n\n{body}".encode("utf-8", "backslashreplace")


def _addresses(value: str, without: set[str]) -> str:
    """Return the valid addresses as a header value, one per line, except those in *without*."""
    people = [
        (name, address)
        for name, address in getaddresses([value])
        if "@" in address
        and address not in without
        and address.isascii()
        and not re.search(r"[\s<>,]", address)
    ]
    return ",\n ".join(formataddr(each) for each in people)
