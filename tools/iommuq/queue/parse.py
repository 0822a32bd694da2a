# SPDX-License-Identifier: GPL-2.0-only
"""Read patches in mail form, with ``git mailsplit`` and ``git mailinfo`` like ``git am``."""

from __future__ import annotations

import codecs
import email.utils
import hashlib
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from iommuq.system.errors import DiskFull, UserError, os_errors_as
from iommuq.system.git.command import NO_REPOSITORY, QUICK, git, is_safe_path, pinned
from iommuq.system.groups import UNTRUSTED
from iommuq.system.run import Completed, exceeded, failure
from iommuq.system.sandbox.reader import read
from iommuq.system.temporary import temporary_folder

# Bytes that must be free where mails are taken apart.
_LEAST = 1 << 20
_RAW_DATE = re.compile(r"@?(\d{1,11}) ([+-]\d{4})")
_DIFFSTAT = re.compile(
    rb"^ (\d+) files? changed(?:, (\d+) insertions?\(\+\))?(?:, (\d+) deletions?\(-\))?$", re.M
)
_SIGNATURE = re.compile(rb"^-- $", re.M)
_SECTION = re.compile(rb"^diff --git ", re.M)
_HUNK = re.compile(rb"^@@ -", re.M)
_BINARY = re.compile(rb"^(?:GIT binary patch$|(?:Binary files|Files) .* differ$)", re.M)
_INDEX = re.compile(rb"^index ", re.M)
# A section may have no hunk if it makes or removes an empty file (blob e69de29) or, without
# an "index" line, changes a mode or renames a file.
_EMPTY_FILE = re.compile(rb"^index .*e69de29", re.M)
_NO_CONTENT = re.compile(
    rb"^(?:old mode |new file mode |deleted file mode |similarity index 100%)", re.M
)


@dataclass(frozen=True)
class FileChange:
    """The number of lines that a patch adds to and deletes from one file."""

    path: str
    added: int
    deleted: int


@dataclass(frozen=True)
class Mail:
    """A patch mail, decoded.

    :ivar author: ``Name <address>``.
    :ivar date: in git's raw form, ``<seconds since 1970> <+hhmm>``.
    :ivar subject: without ``[PATCH …]``.
    :ivar message: the whole commit message, subject included.
    :ivar diff: what follows the message, from ``---`` on.
    :ivar diff_line: the first line of *diff* in the file, from 1; 0 if the mail is encoded.
    :ivar changes: the files it changes, in the order of *diff*.
    :ivar sha256: of the file.
    """

    author: str
    date: str
    subject: str
    message: str
    diff: bytes
    diff_line: int
    changes: tuple[FileChange, ...]
    sha256: str


def read_mails(paths: Sequence[Path], *, boxed: bool = False) -> list[Mail]:
    """Read and check patch mails, one in a file.

    :param boxed: git reads them in a sandbox.
    :raises UserError: a file cannot be read, is no mail, or has no valid diff.
    """
    if not paths:
        return []
    contents = [_read(path) for path in paths]
    with temporary_folder("mail") as folder:
        # Copies, so that the hashed bytes are parsed even if a file changes meanwhile.
        copies = [folder / f"{number:04}.eml" for number in range(len(paths))]
        for copy, data in zip(copies, contents, strict=True):
            copy.write_bytes(data)
        mails = _split(paths, copies, folder, boxed)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(partial(_read_mail, boxed), paths, contents, mails))


def is_letter(data: bytes) -> bool:
    """Return whether a mail has no patch, such as a cover letter."""
    return not _SECTION.search(data) and not _HUNK.search(data)


def _read(path: Path) -> bytes:
    with os_errors_as(UserError, path):
        data = path.read_bytes()
    if not data.strip():
        raise UserError(f"{path}: the file is empty")
    if data.startswith(codecs.BOM_UTF8):
        raise UserError(f"{path}:1: byte order mark", hint="save it as UTF-8 without one")
    nul = data.find(b"\0")
    if nul >= 0:
        raise UserError(
            f"{path}:{_line_at(data, nul)}: NUL byte: not a mail",
            hint="save it as plain text in UTF-8",
        )
    return data


def _line_at(data: bytes, offset: int) -> int:
    """Return the line of the byte at *offset*, from 1."""
    return data.count(b"\n", 0, max(offset, 0)) + 1


def _split(paths: Sequence[Path], copies: Sequence[Path], folder: Path, boxed: bool) -> list[Path]:
    """Return the mail of each file in *copies*; *paths* are their names for errors."""
    out = folder / f"mails-{copies[0].stem}-{len(copies)}"
    out.mkdir()
    # -b: accept a mail without the "From <id> <date>" line.
    words = ("mailsplit", "-b", "-d6", f"-o{out}", "--")
    done = _parsed(boxed, folder, *words, *copies)
    mails = sorted(out.iterdir())
    if done.returncode == 0 and len(mails) == len(copies):
        return mails
    if len(copies) == 1:
        found = "not a mail" if done.returncode else f"holds {len(mails)} mails, not one"
        raise UserError(f"{paths[0]}: {found}", hint="one patch a file")
    return [
        mail
        for path, copy in zip(paths, copies, strict=True)
        for mail in _split([path], [copy], folder, boxed)
    ]


def _read_mail(boxed: bool, path: Path, data: bytes, mail: Path) -> Mail:
    """Decode one mail; *data* is its file, *mail* the output of mailsplit."""
    folder = mail.with_name(f"{mail.name}.parts")
    folder.mkdir()
    # Encoded bodies have CRLF; mailsplit removed it from all others.
    words = ("mailinfo", "--quoted-cr=strip", "message", "diff")
    done = _parsed(boxed, folder, *words, stdin=mail.read_bytes())
    if done.returncode != 0:
        raise UserError(f"{path}: {_complaint(done)}")
    # Bytes that are not UTF-8 are escaped in the output of a process.
    escape = re.compile(r"\\x([89a-f][0-9a-f])")
    head = escape.sub(lambda found: chr(int(found[1], 16)), done.output)
    info = dict(line.split(": ", 1) for line in head.split("\n") if ": " in line)
    subject = info.get("Subject", "").strip()
    name, address = info.get("Author", "").strip(), info.get("Email", "").strip()
    if not address or not any(char.isalnum() for char in name):
        raise UserError(
            f"{path}: no author", hint="a patch needs a line `From: Name <address>` at its head"
        )
    if not subject:
        raise UserError(f"{path}: no subject", hint="a patch needs a line `Subject: [PATCH] …`")
    date = _raw_date(info.get("Date", ""))
    if date is None:
        wrong = f"Date: {info['Date']!r} is no date" if info.get("Date") else "no date"
        raise UserError(
            f"{path}: {wrong}", hint="a patch needs a line `Date: Wed, 7 Jun 2023 12:00:00 +0200`"
        )
    diff = (folder / "diff").read_bytes()
    # Like git am: the message is UTF-8, and any byte that is not is Latin-1.
    text = (folder / "message").read_bytes().decode("utf-8", "surrogateescape")
    body = re.sub("[\udc80-\udcff]", lambda found: chr(ord(found[0]) - 0xDC00), text)
    plain = mail.read_bytes()
    at = plain.find(diff) if diff else -1
    diff_line = _line_at(plain, at) if at >= 0 else 0
    return Mail(
        author=f"{name} <{address}>",
        date=date,
        subject=subject,
        message=clean(f"{subject}\n\n{body}"),
        diff=diff,
        diff_line=diff_line,
        changes=_check_diff(boxed, path, folder, diff, diff_line),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _parsed(boxed: bool, folder: Path, *words: str | Path, stdin: bytes | None = None) -> Completed:
    """Let git read untrusted input; raise UserError if it takes more than it may."""
    if boxed:
        env, argv = pinned(NO_REPOSITORY, folder), ["git", *words]
        done = read(argv, cwd=folder, env=env, stdin=stdin, check=False, timeout=QUICK)
    else:
        options: dict[str, Any] = {"stdin": stdin, "check": False, "bounds": UNTRUSTED}
        done = git(*words, git_dir=NO_REPOSITORY, cwd=folder, **options)
    # `git mailinfo` does not look at whether it could write, and some room is free again.
    room = os.statvfs(folder)
    if room.f_bavail * room.f_frsize < _LEAST:
        raise DiskFull(f"{folder}: no space left on device", hint="set TMPDIR to another place")
    if done.returncode != 0 and (why := exceeded(done)):
        raise UserError(f"git {words[0]}: {why}", hint="or the machine is short of memory")
    if done.returncode < 0:
        raise failure(done)
    return done


def _complaint(done: Completed) -> str:
    """Return the first line of git's error message, without its prefix."""
    first = (done.stderr.strip() or "git cannot read it").splitlines()[0]
    return re.sub(r"^(?:error|fatal): ", "", first)


def clean(message: str) -> str:
    """Strip a message like ``git am``: no trailing blanks, single empty lines."""
    lines = "\n".join(line.rstrip() for line in message.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", lines).strip("\n") + "\n"


def _raw_date(text: str) -> str | None:
    """Turn a mail's date, a git raw date or an ISO 8601 date into git's raw form."""
    text = text.strip()
    raw = _RAW_DATE.fullmatch(text)
    if raw:
        return f"{raw[1]} {raw[2]}"
    date: datetime | None = None
    for parse in (email.utils.parsedate_to_datetime, datetime.fromisoformat):
        try:
            date = parse(text)
            break
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    if date is None:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    seconds = int(date.timestamp())
    return f"{seconds} {date.strftime('%z')[:5]}" if seconds >= 0 else None


def _check_diff(
    boxed: bool, path: Path, folder: Path, diff: bytes, diff_line: int
) -> tuple[FileChange, ...]:
    """Parse the diff with git; refuse binary patches and paths outside the tree."""

    def where(line: int) -> str:
        return f"{path}:{diff_line + line - 1}" if diff_line else f"{path}: line {line} of the diff"

    section = _SECTION.search(diff)
    binary = _BINARY.search(diff, section.start() if section else 0)
    if binary:
        raise UserError(
            f"{where(_line_at(diff, binary.start()))}: a binary patch",
            hint="it cannot be reviewed: send the source of the file",
        )
    words = ("apply", "--numstat", "-z", "-p1", "diff")
    done = _parsed(boxed, folder, *words)
    if done.returncode != 0:
        complaint = _complaint(done)
        if "No valid patches" in complaint:
            raise UserError(f"{path}: no diff in it", hint="a cover letter is not in the series")
        line = re.search(r" (?:at )?\(?line (\d+)\)?", complaint)
        place = where(int(line[1])) if line else str(path)
        raise UserError(
            f"{place}: {complaint.replace(line[0], '') if line else complaint}",
            hint="the file is cut off, or the counts in an @@ line are wrong after an edit",
        )
    changes: list[FileChange] = []
    for entry in done.output.split("\0")[:-1]:
        added, deleted, name = entry.split("\t", 2)
        if not is_safe_path(name):
            place = where(_line_at(diff, diff.find(name.encode())))
            raise UserError(f"{place}: {name!r} is outside the tree")
        changes.append(FileChange(name, int(added), int(deleted)))
    if _is_cut(diff, changes):
        raise UserError(
            f"{where(_line_at(diff, len(diff) - 1))}: the diff ends too early",
            hint="the file is cut off: get it again",
        )
    return tuple(changes)


def _is_cut(diff: bytes, changes: Sequence[FileChange]) -> bool:
    """Return whether a diff that git can parse was cut between two of its parts."""
    for section in _SECTION.split(diff)[1:]:
        whole = _EMPTY_FILE if _INDEX.search(section) else _NO_CONTENT
        if not _HUNK.search(section) and not whole.search(section):
            return True
    # Without the signature of format-patch, and with less than the diffstat says, hunks are
    # missing.  The diffstat alone is no evidence: it may be stale after an edit.
    promised = _DIFFSTAT.search(diff)
    if promised is None or _SIGNATURE.search(diff):
        return False
    files, added, deleted = (int(count or 0) for count in promised.groups())
    return (
        len(changes) < files
        or sum(change.added for change in changes) < added
        or sum(change.deleted for change in changes) < deleted
    )
