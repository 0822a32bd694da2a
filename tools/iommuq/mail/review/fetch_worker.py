# SPDX-License-Identifier: GPL-2.0-only
"""The process that gets a series with b4 0.16 from an archive or a file.

Reads and writes one line of JSON; the patches, as ``b4 am`` makes them, go into a directory.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import b4
import b4.command

#: Warnings of b4 that are kept.
_MOST_NOTES = 40
# Characters of a subject in an error.
_SHOWN = 100


class Refused(Exception):
    """The series cannot be used; *kind* is ``user`` or ``infra``."""

    def __init__(self, kind: str, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.answer = {"error": {"kind": kind, "what": what, "hint": hint}}


class _Notes(logging.Handler):
    """Keeps the warnings of b4."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = " ".join(record.getMessage().split())
        if line.strip("- ") and len(self.lines) < _MOST_NOTES:
            self.lines.append(line)


def collect(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Get a series.

    :param request: ``what`` (a message id, or None for all of ``mbox``), ``mbox`` (a file or a
        directory, or None for the archive), ``version`` (or None), ``config`` (of b4), ``offline``.
    :param folder: the directory for the patches, ``0001.eml`` and so on.
    :return: the answer, as `iommuq.mail.review.fetch` reads it.
    :raises Refused: there is no complete series.
    """
    notes = _Notes()
    b4.logger.handlers = [notes]
    b4.logger.setLevel(logging.INFO)
    words = [word for each in request["config"] for word in ("-c", each)]
    words += ["--no-interactive", "--no-stdin", "am", "--no-cache"]
    if request["mbox"] is not None:
        words += ["--use-local-mbox", request["mbox"]]
    words += ["--", request["what"]] if request["what"] is not None else []
    arguments = b4.command.setup_parser().parse_args(words)
    b4.setup_config(arguments)
    b4.can_network = not request["offline"]
    messages = _messages(arguments, request, notes)
    mailbox = b4.LoreMailbox()
    for message in messages:
        try:
            mailbox.add_message(message)
        except ValueError as error:
            subject = b4.LoreMessage.clean_header(message.get("Subject"))
            hint = "take the mail from the list's archive"
            why = "cannot be read" if message.get("Message-ID") else "no Message-ID"
            raise Refused("user", f"{subject[:_SHOWN]!r}: {why}", hint) from error
    series = _series(mailbox, request["version"])
    patches = [patch for patch in series.patches[1:] if patch is not None]
    answer: dict[str, Any] = {
        "revision": series.revision,
        "revisions": sorted(mailbox.series),
        "messages": len(messages),
        "base_commit": series.base_commit or "",
        "cover": None,
        "patches": [],
    }
    cover = series.patches[0]
    if series.has_cover and cover is not None:
        answer["cover"] = _describe(cover)
    for number, patch in enumerate(patches, 1):
        described = _describe(patch)
        described["remarks"] = _straighten(patch)
        if getattr(patch, "reroll_from_revision", None) not in (None, series.revision):
            described["remarks"].append(f"taken from v{patch.reroll_from_revision}")
        before = len(notes.lines)
        try:
            mail = patch.get_am_message(add_trailers=False)
        except SystemExit as error:
            # b4 exits on characters that hide code from readers.
            said = "; ".join(notes.lines[before:])
            raise Refused("user", f"{patch.full_subject}: {said}") from error
        # Lines are not changed, since findings refer to line numbers.
        data = b4.LoreMessage.get_msg_as_bytes(mail, headers="encode")
        (folder / f"{number:04}.eml").write_bytes(data)
        answer["patches"].append(described)
    answer["notes"] = notes.lines
    return answer


def _messages(arguments: Any, request: dict[str, Any], notes: _Notes) -> list[Any]:
    try:
        _, messages = b4.retrieve_messages(arguments)
    except LookupError as error:
        raise Refused("user", str(error)) from error
    if messages:
        return list(messages)
    said = "; ".join(notes.lines)
    if request["mbox"] is not None:
        raise Refused("user", f"{request['mbox']}: no mail found")
    if re.search(r"\b404\b|No messages found", said) or not said:
        raise Refused("user", f"the archive has no message {request['what']}")
    raise Refused("infra", said, "check that the archive of b4.midmask is up")


def _series(mailbox: b4.LoreMailbox, version: int | None) -> b4.LoreSeries:
    """Return the selected series; Refused if it is not complete."""
    if not mailbox.series:
        raise Refused("user", "no patch found", _no_patch(mailbox))
    if version is not None and version not in mailbox.series:
        have = ", ".join(f"v{each}" for each in sorted(mailbox.series))
        raise Refused("user", f"no v{version} of this series; found: {have}")
    series = mailbox.get_series(version, codereview_trailers=False)
    if series is None:
        raise Refused("user", "all patches are missing")
    patches = [patch for patch in series.patches[1:] if patch is not None]
    for counter, times in Counter(patch.counter for patch in patches).items():
        if times > 1:
            ids = " and ".join(f"<{patch.msgid}>" for patch in patches if patch.counter == counter)
            raise Refused(
                "user",
                f"v{series.revision}: {times} mails are patch {counter}: {ids}",
                "name a message of the right thread, or give an mbox with one of them",
            )
    expected = max(patch.expected for patch in patches)
    missing = sorted(set(range(1, expected + 1)) - {patch.counter for patch in patches})
    if missing:
        names = ", ".join(f"{number}/{expected}" for number in missing)
        hint = "it may not have arrived yet; `b4 mbox` shows the content of the archive"
        raise Refused("user", f"v{series.revision}: missing: {names}", hint)
    return series


def _no_patch(mailbox: b4.LoreMailbox) -> str:
    """Return the hint for a thread without patches."""
    for each in [*mailbox.unknowns, *mailbox.followups, *mailbox.covers.values()]:
        kinds = [part.get_content_type() for part in each.msg.walk() if part.get_filename()]
        if kinds:
            return f"an attachment of type {kinds[0]} is not a patch; ask for an inline patch"
    return "check that this is the thread of the series"


def _describe(message: b4.LoreMessage) -> dict[str, Any]:
    """Return the facts about a message, and the headers of a reply to it."""
    reply = message.make_reply("")
    attestations, _, _ = message.get_attestation_status("softfail")
    return {
        "msgid": message.msgid,
        "subject": message.full_subject,
        "sender": message.fromname,
        "date": b4.LoreMessage.clean_header(message.msg.get("Date")),
        "body": message.body,
        "attestation": [
            {key: each.get(key, "") for key in ("status", "identity", "mismatch")}
            for each in attestations
        ],
        "errors": [" ".join(str(e).split()) for a in message.attestors for e in a.errors],
        "reply": {
            name: b4.LoreMessage.clean_header(str(reply[name] or ""))
            for name in ("From", "To", "Cc", "Subject", "In-Reply-To", "References")
        },
    }


def _straighten(message: b4.LoreMessage) -> list[str]:
    """Undo changes of a mail program to a patch, and return a remark for each."""
    remarks: list[str] = []
    part = _text_part(message)
    if part is None:
        return remarks
    if str(part.get_param("format", "")).lower() == "flowed":
        # Unlike b4, git joins folded lines.
        _, log, diff = b4.get_mailinfo(message.msg.as_bytes(policy=b4.emlpolicy))
        message.body = (log + diff).decode("utf-8", "replace")
        remarks.append("sent as format=flowed")
    elif (wrong := _wrong_charset(part)) is not None:
        message.body, remark = wrong
        remarks.append(remark)
    if len([each for each in message.msg.walk() if not each.is_multipart()]) > 1:
        remarks.append("sent in several parts or as an attachment")
    if "\r\n" in message.body:
        message.body = message.body.replace("\r\n", "\n")
        remarks.append("sent with CRLF line ends")
    return remarks


def _text_part(message: b4.LoreMessage) -> Any:
    parts = [each for each in message.msg.walk() if not each.is_multipart()]
    texts = [each for each in parts if re.search(r"/(?:plain|x-patch)$", each.get_content_type())]
    for each in texts:
        data = each.get_payload(decode=True)
        if isinstance(data, bytes) and b4.DIFF_RE.search(data.decode("latin-1")):
            return each
    return texts[0] if texts else None


def _wrong_charset(part: Any) -> tuple[str, str] | None:
    """Return text and remark for a part in UTF-8 that declares another charset."""
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return None
    named = part.get_content_charset() or "utf-8"
    try:
        data.decode(named)
    except (LookupError, UnicodeDecodeError) as error:
        try:
            return data.decode("utf-8"), f"is UTF-8, but declared as {named}"
        except UnicodeDecodeError:
            raise Refused(
                "user",
                f"charset of a mail: declared as {named}, but neither that nor UTF-8",
                "ask the author to send it again",
            ) from error
    return None


def main() -> None:
    """Handle the request on standard input."""
    request = json.loads(sys.stdin.read())
    try:
        answer = collect(request, Path(request["folder"]))
    except Refused as error:
        answer = error.answer
    except RecursionError:
        answer = Refused("user", "mails, parts or comments are nested too deeply").answer
    except SystemExit as error:
        answer = Refused("user", f"b4 ended with {error.code}").answer
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
