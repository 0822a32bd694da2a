# SPDX-License-Identifier: GPL-2.0-only
"""Let b4 get a series from an archive or a file, and write down what it makes of it.

A process of its own: b4 ends the process it is in, and a server may be slow.  It is
given one line of JSON on standard input and answers with one on standard output; the
patches, as ``b4 am`` makes them, go into a directory.

This is what b4 0.16 offers to other programs: its parser of arguments, `LoreMailbox`,
`LoreSeries.patches` and of `LoreMessage` the attestation, `make_reply` and
`get_am_message`.
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

#: What b4 may have to say; more is dropped.
_MOST_NOTES = 40


class Refused(Exception):
    """The series cannot be taken.

    :param kind: ``user`` or ``infra``, whose fault it is.
    """

    def __init__(self, kind: str, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.answer = {"error": {"kind": kind, "what": what, "hint": hint}}


class _Notes(logging.Handler):
    """Keeps what b4 warns of."""

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
    :param folder: where to put the patches, as ``0001.eml`` and on.
    :return: the answer, as `iommuq.mail.review.fetch` reads it.
    :raises Refused: there is no whole series.
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
            raise Refused(
                "user", f"{subject!r}: no Message-ID", "take the mail from the list's archive"
            ) from error
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
            # It suspects that what people see is not what a compiler does.
            said = "; ".join(notes.lines[before:])
            raise Refused("user", f"{patch.full_subject}: {said}") from error
        # Its lines as they are: what is said of line 43 is said of the 43rd of the file.
        (folder / f"{number:04}.eml").write_bytes(
            b4.LoreMessage.get_msg_as_bytes(mail, headers="encode")
        )
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
        raise Refused("user", f"{request['mbox']}: no mail in it")
    if re.search(r"\b404\b|No messages found", said) or not said:
        raise Refused("user", f"the archive has no message {request['what']}")
    raise Refused("infra", said, "is the archive up? b4.midmask says where it is")


def _series(mailbox: b4.LoreMailbox, version: int | None) -> b4.LoreSeries:
    """Return the one series that is meant, and see that it is whole."""
    if not mailbox.series:
        raise Refused("user", "there is no patch in it", _no_patch(mailbox))
    if version is not None and version not in mailbox.series:
        have = ", ".join(f"v{each}" for each in sorted(mailbox.series))
        raise Refused("user", f"there is no v{version} of it; there are {have}")
    series = mailbox.get_series(version, codereview_trailers=False)
    if series is None:
        raise Refused("user", "none of its patches is there")
    patches = [patch for patch in series.patches[1:] if patch is not None]
    for counter, times in Counter(patch.counter for patch in patches).items():
        if times > 1:
            ids = " and ".join(f"<{patch.msgid}>" for patch in patches if patch.counter == counter)
            raise Refused(
                "user",
                f"v{series.revision}: {times} mails say that they are patch {counter}: {ids}",
                "name a message of the right thread, or give an mbox with one of them",
            )
    expected = max(patch.expected for patch in patches)
    missing = sorted(set(range(1, expected + 1)) - {patch.counter for patch in patches})
    if missing:
        names = ", ".join(f"{number}/{expected}" for number in missing)
        raise Refused(
            "user",
            f"v{series.revision}: {names} of it is missing",
            "it may still be on its way; b4 mbox shows what the archive has",
        )
    return series


def _no_patch(mailbox: b4.LoreMailbox) -> str:
    """Say why mails that may well be meant as patches are none."""
    for each in [*mailbox.unknowns, *mailbox.followups, *mailbox.covers.values()]:
        kinds = [part.get_content_type() for part in each.msg.walk() if part.get_filename()]
        if kinds:
            return f"an attachment of type {kinds[0]} is no patch to review; ask for it inline"
    return "is that the cover letter's thread?"


def _describe(message: b4.LoreMessage) -> dict[str, Any]:
    """Return what is told of a message, and the headers of a reply to it."""
    reply = message.make_reply("")
    attestations, _, _ = message.get_attestation_status("softfail")
    return {
        "msgid": message.msgid,
        "subject": message.full_subject,
        "sender": message.fromname,
        "date": b4.LoreMessage.clean_header(message.msg.get("Date")),
        "body": message.body,
        "attestation": [
            {
                "status": each["status"],
                "identity": each["identity"],
                "mismatch": each.get("mismatch", ""),
            }
            for each in attestations
        ],
        "errors": [" ".join(str(e).split()) for a in message.attestors for e in a.errors],
        "reply": {
            name: b4.LoreMessage.clean_header(str(reply[name] or ""))
            for name in ("From", "To", "Cc", "Subject", "In-Reply-To", "References")
        },
    }


def _straighten(message: b4.LoreMessage) -> list[str]:
    """Undo what a mail program did to a patch, as far as that can be done.

    :return: what there was to undo, for people.
    """
    remarks: list[str] = []
    part = _text_part(message)
    if part is None:
        return remarks
    if str(part.get_param("format", "")).lower() == "flowed":
        # git undoes the folding of lines; b4 takes them as they are.
        _, log, diff = b4.get_mailinfo(message.msg.as_bytes(policy=b4.emlpolicy))
        message.body = (log + diff).decode("utf-8", "replace")
        remarks.append("sent as format=flowed")
    elif (wrong := _wrong_charset(part)) is not None:
        text, remark = wrong
        message.body = text
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
    """Return the text of a part whose bytes are not in the charset it names, and a remark.

    :raises Refused: nobody knows what its characters are.
    """
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return None
    named = part.get_content_charset() or "utf-8"
    try:
        data.decode(named)
    except (LookupError, UnicodeDecodeError) as error:
        try:
            return data.decode("utf-8"), f"is UTF-8, though it says {named}"
        except UnicodeDecodeError:
            raise Refused(
                "user",
                f"a mail says that it is in {named}, and is not, nor in UTF-8",
                "characters would be lost; ask for it once more",
            ) from error
    return None


def main() -> None:
    """Do what standard input asks for."""
    request = json.loads(sys.stdin.read())
    try:
        answer = collect(request, Path(request["folder"]))
    except Refused as error:
        answer = error.answer
    except SystemExit as error:
        answer = Refused("user", f"b4 ended with {error.code}").answer
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
