# SPDX-License-Identifier: GPL-2.0-only
"""Read the threads of a series with b4: patches, trailers, attestations.

Runs in the process of `b4side`.  Mails are untrusted; one that b4 cannot read is only reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import b4
import b4.ez

from iommuq.system.errors import InfraError, UserError, os_errors_as

Data = dict[str, Any]
#: Messages that the threads of one series may have.
_MANY = 5000


def gather(data: Data) -> Data:
    """Read threads and report what is in them.

    :param data: ``change_id``, ``msgids`` of cover letters, or ``mbox`` with all messages;
        ``save`` is the Maildir that the messages are written to.
    :return: ``patches``, ``replies``, ``current`` and ``unreadable``.
    """
    messages = _local(Path(data["mbox"])) if data.get("mbox") else _fetch(data)
    if len(messages) > _MANY:
        raise UserError(f"{len(messages)} messages: a series has at most {_MANY}")
    sound, unreadable = _sound(messages)
    _save(sound, Path(data["save"]))
    parents: dict[str, b4.LoreMessage] = {}
    found = b4.map_codereview_trailers(sound, parent_patches=parents)
    return {
        "patches": [
            _patch(each)
            for each in map(b4.LoreMessage, sound)
            if not each.reply and (each.has_diff or each.counter == 0)
        ],
        "replies": [
            _reply(each, patch_id, parents.get(patch_id))
            for patch_id, replies in found.items()
            for each in replies
        ],
        "current": _current(),
        "unreadable": unreadable,
    }


def _save(messages: Sequence[EmailMessage], folder: Path) -> None:
    """Write messages as a Maildir: in an mbox, a body could be parsed as another mail."""
    for name in ("cur", "new", "tmp"):
        (folder / name).mkdir(parents=True)
    for number, each in enumerate(messages, 1):
        (folder / "new" / f"{number:04}").write_bytes(each.as_bytes(policy=b4.emlpolicy))


def _local(path: Path) -> list[EmailMessage]:
    with os_errors_as(UserError, path):
        path.stat()
    return b4.get_msgs_from_mailbox_or_maildir(str(path))


def _fetch(data: Data) -> list[EmailMessage]:
    """Get all threads of a series from the archive."""
    messages: list[EmailMessage] = []
    reached = False
    for msgid in data.get("msgids", []):
        thread = b4.get_pi_thread_by_msgid(msgid, nocache=True, quiet=True)
        if thread is not None:
            reached = True
            messages += thread
    if data.get("change_id"):
        query = f'"change-id: {data["change_id"]}"'
        results = b4.get_pi_search_results(query, nocache=True)
        if results is not None:
            reached = True
            messages += results
    if not reached:
        raise InfraError(
            f"{b4.get_lore_node().hostname}: no answer, or no message of this series",
            hint="check b4.midmask, or read a file with --mbox",
        )
    seen: dict[str, EmailMessage] = {}
    for each in messages:
        seen.setdefault(str(each.get("Message-ID", "")).strip(), each)
    return list(seen.values())


def _sound(messages: Iterable[EmailMessage]) -> tuple[list[EmailMessage], list[str]]:
    """Return the messages that b4 can read, and subject and error of the others."""
    sound, unreadable = [], []
    for each in messages:
        try:
            parsed = b4.LoreMessage(each)
            parsed.get_trailers()
            _ = parsed.git_patch_id
        except Exception as error:
            unreadable.append(f"{each.get('Subject', '(no subject)')}: {error}")
            continue
        sound.append(each)
    return sound, unreadable


def _patch(message: b4.LoreMessage) -> Data:
    return {
        "msgid": message.msgid,
        "revision": message.revision,
        "number": message.counter,
        "of": message.expected,
        "subject": message.subject,
        "patch_id": message.git_patch_id,
        "from": message.fromemail,
    }


def _reply(message: b4.LoreMessage, patch_id: str, parent: b4.LoreMessage | None) -> Data:
    good, bad = message.get_trailers()
    config = b4.get_main_config()
    status, passing, _ = message.get_attestation_status(str(config["attestation-policy"]))
    return {
        "msgid": message.msgid,
        "from": f"{message.fromname} <{message.fromemail}>",
        "subject": message.full_subject,
        "date": message.date.isoformat(),
        "patch_id": patch_id,
        "revision": parent.revision if parent else 0,
        "number": parent.counter if parent else 0,
        "patch": parent.subject if parent else "",
        "trailers": [each.as_string(omit_extinfo=True) for each in good],
        "mismatches": [each.as_string(omit_extinfo=True) for each in bad],
        "attestation": [_attestation(each) for each in status],
        "holds": bool(passing),
    }


def _attestation(status: Data) -> str:
    words = {"signed": "signed by", "badsig": "BAD SIGNATURE of", "nokey": "no key for"}
    text = f"{words.get(status['status'], status['status'])} {status['identity']}"
    return f"{text}, not {status['mismatch']}" if status.get("mismatch") else text


def _current() -> Sequence[Data]:
    """Return the patches of the branch that is checked out."""
    _, start, end = b4.ez.get_series_range()
    cover = b4.ez.find_cover_commit()
    patches = b4.git_range_to_patches(None, start, end, ignore_commits={cover} if cover else None)
    found = []
    for commit, message in patches:
        body, _ = b4.LoreMessage.get_payload(message)
        subject = b4.LoreSubject(b4.LoreMessage.clean_header(message.get("Subject"))).subject
        patch_id = b4.LoreMessage.get_patch_id(body)
        found.append({"commit": commit, "subject": subject, "patch_id": patch_id})
    return found
