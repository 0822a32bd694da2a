# SPDX-License-Identifier: GPL-2.0-only
"""A series' ``0000-cover.md``: the letter, its changelog, and what identifies the series.

Markdown, so that it reads well where the patches are kept.  b4 has the same text as a
commit message; the two differ in the first line, and in lines that start with ``#``, which
are comments to b4 unless a ``>`` stands before them.  At the end of the file a comment
holds what another machine needs to go on with the series:

    <!-- b4
    change-id: 20261122-follow-up-0123456789ab
    revision: 2
    v1: 20261122-follow-up-v1-0-ba9876543210@example.com
    -->
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from iommuq.queue.model import COVER
from iommuq.system.errors import InfraError, UserError

_BLOCK = re.compile(r"\n*<!-- b4\n(.*?)-->\n*\Z", re.DOTALL)
_CHANGE_ID = re.compile(r"[A-Za-z0-9][\w.-]{3,200}")
_VERSION = re.compile(r"v([1-9]\d{0,3})")
_MSGID = re.compile(r"[^\s<>]{3,300}@[^\s<>]{1,200}")
_PEOPLE = re.compile(r"(?:To|Cc): .*\n?", re.IGNORECASE)
#: What somebody has to fill in before it is sent.
PLACEHOLDER = re.compile(r"EDITME|TODO|FIXME|XXX|\*\*\* .* HERE \*\*\*", re.IGNORECASE)


@dataclass(frozen=True)
class Cover:
    """A cover letter.

    :ivar subject: without ``[PATCH …]``.
    :ivar body: all below it, with Markdown's headings and the changelog.
    :ivar change_id: what all versions have in common; empty until there is one.
    :ivar revision: the version at work, from 1.
    :ivar sent: version -> message id of its first mail.
    """

    subject: str
    body: str
    change_id: str = ""
    revision: int = 1
    sent: Mapping[str, str] = field(default_factory=dict)

    @property
    def for_b4(self) -> str:
        """The text that b4 keeps, without its tracking."""
        body = re.sub(r"^#", ">#", self.body, flags=re.M)
        return f"{self.subject}\n\n{body}".strip() + "\n"

    @property
    def text(self) -> str:
        """The file."""
        block = ""
        if self.change_id:
            lines = [f"change-id: {self.change_id}", f"revision: {self.revision}"]
            lines += [f"{version}: {msgid}" for version, msgid in self.sent.items()]
            block = "\n<!-- b4\n" + "\n".join(lines) + "\n-->\n"
        return f"# {self.subject}\n\n{self.body.strip()}\n{block}"


def parse(text: str, where: str) -> Cover:
    """Read a cover letter.

    :param where: what to call the file.
    :raises UserError: it is malformed.
    """
    block = _BLOCK.search(text)
    facts: dict[str, str] = {}
    if block:
        text = text[: block.start()] + "\n"
        for line in block[1].splitlines():
            key, colon, value = line.partition(": ")
            if not colon or key in facts:
                raise UserError(f"{where}: the comment at its end: {line!r} is not `key: value`")
            facts[key] = value.strip()
    title, _, body = text.partition("\n")
    if not title.startswith("# ") or not title[2:].strip():
        raise UserError(f"{where}: its first line is not `# ` and a subject")
    change_id = facts.pop("change-id", "")
    revision = facts.pop("revision", "1")
    if change_id and not _CHANGE_ID.fullmatch(change_id):
        raise UserError(f"{where}: {change_id!r} is no change-id")
    if not re.fullmatch(r"[1-9]\d{0,3}", revision):
        raise UserError(f"{where}: revision {revision!r} is no number of a version")
    for version, msgid in facts.items():
        if not _VERSION.fullmatch(version) or not _MSGID.fullmatch(msgid):
            raise UserError(f"{where}: `{version}: {msgid}` is no version and message id")
    return Cover(title[2:].strip(), body.strip(), change_id, int(revision), facts)


def read(folder: Path, section: str) -> Cover | None:
    """Read the cover letter of a section, None if it has none.

    :param folder: ``patches/<base>``.
    """
    path = folder / section / COVER
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error


def write(folder: Path, section: str, cover: Cover) -> bool:
    """Write a cover letter.

    :return: whether the file changed.
    """
    path = folder / section / COVER
    try:
        if path.is_file() and path.read_text(encoding="utf-8") == cover.text:
            return False
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(cover.text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise InfraError(f"{path}: {error.strerror}") from error
    return True


def from_b4(text: str, tracking: Mapping[str, object], old: Cover | None) -> Cover:
    """Make a cover letter of what b4 keeps.

    To and Cc that get_maintainer.pl gave stay with the branch: kept, they would be stale
    when they are next looked at.

    :param text: the letter, as b4 has it.
    :param tracking: b4's ``series``.
    :param old: the file as it is; who is in it stays in it.
    """
    subject, _, body = text.partition("\n")
    kept = set(_PEOPLE.findall(old.body + "\n")) if old else set()
    lines = [
        line
        for line in body.splitlines(keepends=True)
        if not _PEOPLE.fullmatch(line) or f"{line.rstrip()}\n" in kept
    ]
    body = re.sub(r"^>#", "#", "".join(lines), flags=re.M)
    body = re.sub(r"\n{3,}", "\n\n", body).strip()
    if old is not None and _same(body, old.body):
        body = old.body
    history = tracking.get("history")
    sent = {
        str(version): str(ids[-1])
        for version, ids in (history.items() if isinstance(history, dict) else ())
        if ids
    }
    return Cover(
        subject.strip(),
        body,
        str(tracking.get("change-id", "")),
        int(str(tracking.get("revision", 1))),
        sent,
    )


def _same(one: str, other: str) -> bool:
    """Tell whether two texts differ in nothing but empty lines."""
    return [line.rstrip() for line in one.split("\n") if line.strip()] == [
        line.rstrip() for line in other.split("\n") if line.strip()
    ]
