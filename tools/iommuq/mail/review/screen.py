# SPDX-License-Identifier: GPL-2.0-only
"""Refuse a patch that would write outside the tree, before anything is written.

Names are checked in the text of the diff, and again in the trees that git made of it.
"""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Iterator

from iommuq.system.errors import UserError
from iommuq.system.git.command import is_safe_path
from iommuq.system.git.objects import Objects
from iommuq.system.progress import one_line

#: Modes that a patch must not create.
KINDS = {"120000": "a symbolic link", "160000": "a submodule"}

_START = re.compile(rb"^(?:diff -|Index: |--- \S)", re.MULTILINE)
_HUNK = re.compile(rb"@@ -\d+(?:,(\d{1,19}))? \+\d+(?:,(\d{1,19}))? @@")
_QUOTED = rb'"(?:[^"\\]|\\.)*"'
_PAIR = re.compile(rb"diff --git (" + _QUOTED + rb"|.*?) (" + _QUOTED + rb"|(?:b/)?\S+)$")
_NAME = re.compile(rb"(?:---|\+\+\+|Index:) (.+)$")
_MOVED = re.compile(rb"(?:rename|copy) (?:from|to|old|new) (.+)$")
_MODE = re.compile(rb"(?:old mode|new mode|new file mode|deleted file mode) (\d+)$")
_INDEX = re.compile(rb"index [0-9a-f]+\.\.[0-9a-f]+ (\d+)$")
_ESCAPE = re.compile(rb'\\([0-7]{3}|[abtnvfr"\\])')
_PLAIN = dict(zip(b'abtnvfr"\\', b'\a\b\t\n\v\f\r"\\', strict=True))
# Names that are .git to file systems that ignore case, or some characters.
_GIT = re.compile(r"(?:\.git|git~\d+)(?:[ .:].*)?|\.gitmodules", re.IGNORECASE | re.DOTALL)
# Bytes of a name, by the file systems of Linux, and of a path: the kernel's have 100.
_MOST_NAME, _MOST_PATH = 255, 1000
_HINT = "refused: nothing of the series was written or run"


def text_of(mail: bytes) -> bytes:
    """Return the decoded text of a mail as ``b4 am`` writes it.

    :raises UserError: it has mails in mails, too deep for Python's parser.
    """
    try:
        parsed = email.message_from_bytes(mail, policy=email.policy.compat32)
    except RecursionError as error:
        raise UserError("a mail is nested too deeply", hint=_HINT) from error
    payload = parsed.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def screen(mail: bytes, label: str) -> None:
    """Check every name and mode in the diff of a mail.

    :param label: the name of the patch, for errors.
    :raises UserError: one is not of a regular file in the tree.
    """
    text = text_of(mail)
    start = _START.search(text)
    if start is None:
        return
    path = "a file"
    for line in _headers(text[start.start() :]):
        for name, prefixed in _names(line):
            path = _checked(name, prefixed, label)
        mode = _MODE.match(line) or _INDEX.match(line)
        kind = KINDS.get(mode[1].decode(), "") if mode else ""
        if kind:
            raise UserError(f"{label}: {path} is {kind}", hint=_HINT)


def _headers(diff: bytes) -> Iterator[bytes]:
    """Yield the lines of a diff outside of hunks."""
    left = [0, 0]
    for line in diff.split(b"\n"):
        line = line.rstrip(b"\r")
        if left[0] > 0 or left[1] > 0:
            if line[:1] in (b" ", b"-", b""):
                left[0] -= 1
            if line[:1] in (b" ", b"+", b""):
                left[1] -= 1
            continue
        hunk = _HUNK.match(line)
        if hunk:
            left = [1 if count is None else int(count) for count in hunk.groups()]
        else:
            yield line


def _names(line: bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield the names in a header line, and whether git strips their first component."""
    if line.startswith(b"diff --git "):
        both = line.removeprefix(b"diff --git ")
        half = len(both) // 2
        # Names with blanks are not quoted; as in git, both are assumed equal.
        if both[half : half + 1] == b" " and both[1:half] == both[half + 2 :]:
            yield both[:half], True
            yield both[half + 1 :], True
        elif match := _PAIR.match(line):
            yield match[1], True
            yield match[2], True
    elif match := _NAME.match(line):
        # A tab and a time may follow.
        yield match[1].split(b"\t")[0].rstrip(), True
    elif match := _MOVED.match(line):
        yield match[1], False


def _checked(name: bytes, prefixed: bool, label: str) -> str:
    """Return a name as git strips it; UserError if it is not of a file in the tree."""

    def plain(found: re.Match[bytes]) -> bytes:
        return bytes([int(found[1], 8) & 255 if found[1].isdigit() else _PLAIN[found[1][0]]])

    if name[:1] == b'"':
        name = _ESCAPE.sub(plain, name[1:-1])
    shown = one_line(name.decode("utf-8", "backslashreplace"))
    if name == b"/dev/null":
        return shown
    if name.startswith(b"/"):
        raise UserError(f"{label}: {shown} is an absolute path", hint=_HINT)
    if b".." in name.split(b"/"):
        raise UserError(f"{label}: {shown} is outside of the tree", hint=_HINT)
    path = (name.partition(b"/")[2] or name) if prefixed else name
    _refuse(path.decode("utf-8", "surrogateescape"), label)
    return one_line(path.decode("utf-8", "backslashreplace"))


def _refuse(path: str, label: str) -> None:
    shown = one_line(path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
    parts = path.encode("utf-8", "surrogateescape").split(b"/")
    if max(map(len, parts)) > _MOST_NAME or sum(map(len, parts)) > _MOST_PATH:
        raise UserError(f"{label}: {shown[:_MOST_NAME]}…: a path that is too long", hint=_HINT)
    if any(_GIT.fullmatch(part) for part in path.split("/")):
        raise UserError(f"{label}: {shown} is reserved for git", hint=_HINT)
    if not is_safe_path(path) or "\\" in path:
        raise UserError(f"{label}: {shown} is outside of the tree", hint=_HINT)
    if not path.isprintable():
        raise UserError(f"{label}: {shown} has unprintable characters", hint=_HINT)


def screen_tree(store: Objects, before: str, after: str, label: str) -> None:
    """Check the changes between two trees of the object database.

    :raises UserError: there is a link, a submodule or a forbidden name.
    """
    words = ("diff-tree", "-r", "-z", "--raw", "--no-renames", before, after)
    fields = store.git(*words).output.split("\0")
    for entry, path in zip(fields[::2], fields[1::2], strict=False):
        old, new, *_ = entry.lstrip(":").split()
        _refuse(path, label)
        kind = KINDS.get(new) or KINDS.get(old)
        if kind:
            raise UserError(f"{label}: {one_line(path)} is {kind}", hint=_HINT)
