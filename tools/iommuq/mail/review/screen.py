# SPDX-License-Identifier: GPL-2.0-only
"""Refuse a patch that would write anywhere but into the tree, before anything is written.

The names in a diff are looked at as text, every one that git might go by; a second look
is at the trees that git made of it in its object database, which is what is checked out.
git refuses much of this by itself, each in its own words.
"""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Iterator

from iommuq.system.errors import UserError
from iommuq.system.git.command import is_safe_path
from iommuq.system.git.objects import Store
from iommuq.system.progress import one_line

#: What a mode stands for, of those that a patch may not bring.
KINDS = {"120000": "a symbolic link", "160000": "a submodule"}

_START = re.compile(rb"^(?:diff -|Index: |--- \S)", re.MULTILINE)
_HUNK = re.compile(rb"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_QUOTED = rb'"(?:[^"\\]|\\.)*"'
_PAIR = re.compile(rb"diff --git (" + _QUOTED + rb"|.*?) (" + _QUOTED + rb"|(?:b/)?\S+)$")
_NAME = re.compile(rb"(?:---|\+\+\+|Index:) (.+)$")
_MOVED = re.compile(rb"(?:rename|copy) (?:from|to|old|new) (.+)$")
_MODE = re.compile(rb"(?:old mode|new mode|new file mode|deleted file mode) (\d+)$")
_INDEX = re.compile(rb"index [0-9a-f]+\.\.[0-9a-f]+ (\d+)$")
_ESCAPE = re.compile(rb'\\([0-7]{3}|[abtnvfr"\\])')
_PLAIN = dict(zip(b'abtnvfr"\\', b'\a\b\t\n\v\f\r"\\', strict=True))
# What file systems take for .git that ignore case, or some characters.
_GIT = re.compile(r"(?:\.git|git~\d+)(?:[ .:].*)?|\.gitmodules", re.IGNORECASE | re.DOTALL)
_HINT = "refused: nothing of the series was written or run"


def text_of(mail: bytes) -> bytes:
    """Return the decoded text of a mail as ``b4 am`` writes it."""
    payload = email.message_from_bytes(mail, policy=email.policy.compat32).get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def screen(mail: bytes, label: str) -> None:
    """Look at every name and mode in the diff of a mail.

    :param label: what to call the patch.
    :raises UserError: one is not of a file in the tree.
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
    """Yield the lines of a diff that are not in a hunk."""
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
    """Yield the names in a header line, and whether each has a component to be stripped."""
    if line.startswith(b"diff --git "):
        both = line.removeprefix(b"diff --git ")
        half = len(both) // 2
        # As git does it: names with blanks are not quoted, but the two are the same.
        if both[half : half + 1] == b" " and both[1:half] == both[half + 2 :]:
            yield both[:half], True
            yield both[half + 1 :], True
        elif match := _PAIR.match(line):
            yield match[1], True
            yield match[2], True
    elif match := _NAME.match(line):
        # A time may follow, after a tab.
        yield match[1].split(b"\t")[0].rstrip(), True
    elif match := _MOVED.match(line):
        yield match[1], False


def _checked(name: bytes, prefixed: bool, label: str) -> str:
    """Return a name, without what git strips.

    :raises UserError: it is not of a file in the tree.
    """
    if name[:1] == b'"':
        name = _ESCAPE.sub(
            lambda found: bytes(
                [int(found[1], 8) & 255 if found[1].isdigit() else _PLAIN[found[1][0]]]
            ),
            name[1:-1],
        )
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
    if any(_GIT.fullmatch(part) for part in path.split("/")):
        raise UserError(f"{label}: {shown} is git's own", hint=_HINT)
    if not is_safe_path(path) or "\\" in path:
        raise UserError(f"{label}: {shown} is outside of the tree", hint=_HINT)
    if not path.isprintable():
        raise UserError(f"{label}: {shown} has characters that a file name should not", hint=_HINT)


def screen_tree(store: Store, before: str, after: str, label: str) -> None:
    """Look at what a patch made of a tree, both being in the object database.

    :raises UserError: it has a link, a submodule or a name that a tree should not have.
    """
    words = ("diff-tree", "-r", "-z", "--raw", "--no-renames", before, after)
    fields = store.git(*words).output.split("\0")
    for entry, path in zip(fields[::2], fields[1::2], strict=False):
        old, new, *_ = entry.lstrip(":").split()
        _refuse(path, label)
        kind = KINDS.get(new) or KINDS.get(old)
        if kind:
            shown = one_line(path)
            raise UserError(f"{label}: {shown} is {kind}", hint=_HINT)
