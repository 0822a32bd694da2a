# SPDX-License-Identifier: GPL-2.0-only
"""Make hostile mails: each function returns an mbox.  tests/data/mails.toml names them."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Iterable

#: What all diffs here are for: the driver of the toy kernel.
_FILE = "drivers/iommu/iommu.c"
_FROM = b"From mboxrd@z Thu Jan  1 00:00:00 1970\n"
_SIGNED = "Because.\n\nSigned-off-by: Ada Toy <ada@example.com>\n"
_STAT = "---\n"
_MAKERS: dict[str, Callable[[str], bytes]] = {}


def make(name: str, good: str) -> bytes:
    """Return the mbox of this name.

    :param good: a diff that applies.
    """
    return _MAKERS[name](good)


def names() -> set[str]:
    """Return the names of all."""
    return set(_MAKERS)


def _maker(function: Callable[[str], bytes]) -> Callable[[str], bytes]:
    _MAKERS[function.__name__.strip("_").replace("_", "-")] = function
    return function


def _mail(
    body: str | bytes,
    *,
    subject: str = "[PATCH] iommu: Refuse to block",
    name: str = "1",
    headers: str = "",
    content: str = "text/plain; charset=utf-8",
    encoding: str = "8bit",
    sender: str = "Ada Toy <ada@example.com>",
) -> bytes:
    head = (
        f"From: {sender}\nTo: iommu@lists.example.com\nSubject: {subject}\n"
        f"Date: Wed, 7 Jun 2023 12:00:00 +0200\nMessage-ID: <{name}@example.com>\n{headers}"
        f"MIME-Version: 1.0\nContent-Type: {content}\nContent-Transfer-Encoding: {encoding}\n\n"
    )
    data = body if isinstance(body, bytes) else body.encode()
    return _FROM + head.encode() + data + b"\n"


def _patch(diff: str, *, message: str = _SIGNED, **options: str) -> bytes:
    return _mail(f"{message}{_STAT}{diff}-- \n2.39.0\n", **options)


def _new(path: str, *, mode: str = "100644", text: Iterable[str] = ("x",)) -> str:
    lines = list(text)
    body = "".join(f"+{each}\n" for each in lines)
    quoted = path if path.startswith('"') else f"b/{path}"
    old = quoted.replace("b/", "a/", 1)
    return (
        f"diff --git {old} {quoted}\nnew file mode {mode}\nindex 0000000..1234567\n"
        f"--- /dev/null\n+++ {quoted}\n@@ -0,0 +1,{len(lines)} @@\n{body}"
    )


# Where a patch writes.


@_maker
def _git_hook(_good: str) -> bytes:
    return _patch(_new(".git/hooks/post-checkout", mode="100755", text=["#!/bin/sh", "id"]))


@_maker
def _git_below(good: str) -> bytes:
    """A repository of its own, below: its configuration may name programs."""
    return _patch(good + _new("drivers/.git/config", text=["[core]", "fsmonitor = id"]))


@_maker
def _git_attributes(good: str) -> bytes:
    """A filter and a merge driver, which only a configuration could give a program."""
    lines = ["* filter=evil merge=evil diff=evil", "*.c ident export-subst"]
    return _patch(good + _new(".gitattributes", text=lines))


@_maker
def _absolute(good: str) -> bytes:
    return _patch(good + _new("x").replace("b/x", "/etc/cron.d/evil").replace("a/x", "/dev/null"))


@_maker
def _octal_dots(good: str) -> bytes:
    return _patch(good + _new('"b/\\056\\056/\\056\\056/evil"'))


@_maker
def _octal_escape(good: str) -> bytes:
    """A name that clears the screen."""
    return _patch(good + _new('"b/\\033[2J\\033]0;evil\\007x"'))


@_maker
def _octal_newline(good: str) -> bytes:
    return _patch(good + _new('"b/x\\nTested-by: Eve <eve@example.com>"'))


@_maker
def _octal_broken(good: str) -> bytes:
    """Escapes that are none."""
    return _patch(good + _new('"b/x\\9\\400\\"'))


@_maker
def _bidi_name(good: str) -> bytes:
    return _patch(good + _new("drivers/iommu/\u202ec.evil"))


@_maker
def _long_name(good: str) -> bytes:
    return _patch(good + _new("drivers/" + "x" * 5000))


@_maker
def _deep_name(good: str) -> bytes:
    return _patch(good + _new("d/" * 1900 + "x"))


@_maker
def _file_and_folder(good: str) -> bytes:
    """The same name as a file and as a directory."""
    return _patch(good + _new("evil") + _new("evil/inner"))


@_maker
def _link_then_write(good: str) -> bytes:
    """A link in one patch, and a file below it in the next."""
    first = _patch(_new("drivers/out", mode="120000", text=["/tmp"]), subject="[PATCH 1/2] a")
    second = _patch(_new("drivers/out/evil") + good, subject="[PATCH 2/2] b", name="2")
    return first + second


@_maker
def _submodule(good: str) -> bytes:
    return _patch(good + _new("sub", mode="160000", text=[f"Subproject commit {'1' * 40}"]))


@_maker
def _mode_of_root(good: str) -> bytes:
    """Modes that git does not have."""
    return _patch(good + _new("drivers/suid.sh", mode="104755"))


@_maker
def _mode_directory(good: str) -> bytes:
    return _patch(good + _new("drivers/folder", mode="040000"))


@_maker
def _rename_out(_good: str) -> bytes:
    rename = f"similarity index 100%\nrename from {_FILE}\nrename to ../../evil\n"
    return _patch(f"diff --git a/{_FILE} b/x\n{rename}")


@_maker
def _rename_twice(_good: str) -> bytes:
    """Names of the three places of a header that differ."""
    text = f"diff --git a/{_FILE} b/one\nsimilarity index 100%\n"
    text += f"rename from {_FILE}\nrename to two\n--- a/three\n+++ b/four\n@@ -1 +1 @@\n-a\n+b\n"
    return _patch(text)


@_maker
def _delete_everything(_good: str) -> bytes:
    files = ("Makefile", "Kconfig", _FILE, "scripts/checkpatch.pl")
    return _patch(
        "".join(
            f"diff --git a/{name} b/{name}\ndeleted file mode 100644\nindex 1234567..0000000\n"
            f"--- a/{name}\n+++ /dev/null\n@@ -1,3 +0,0 @@\n-a\n-b\n-c\n"
            for name in files
        )
    )


@_maker
def _binary(good: str) -> bytes:
    text = "diff --git a/x.bin b/x.bin\nnew file mode 100644\nindex 0000000..1234567\n"
    return _patch(good + text + "GIT binary patch\nliteral 10\nRcmZQzWMT#Y01f~L\n\n")


@_maker
def _binary_bomb(good: str) -> bytes:
    """A literal that is said to have 2 GiB."""
    text = "diff --git a/x.bin b/x.bin\nnew file mode 100644\nindex 0000000..1234567\n"
    return _patch(good + text + "GIT binary patch\nliteral 2147483647\nzcmZQz" + "0" * 60 + "\n\n")


@_maker
def _traditional(_good: str) -> bytes:
    """Without the words of git, and out of the tree."""
    return _patch("--- ../../etc/passwd\n+++ ../../etc/passwd\n@@ -1 +1 @@\n-a\n+b\n")


# What a patch changes.


@_maker
def _our_files(good: str) -> bytes:
    """Files with the names of those that iommuq reads itself."""
    new = _new(".kunitconfig", text=["CONFIG_EVIL=y"]) + _new("patches/toy/series", text=["../x"])
    new += _new("patches/toy/base.toml", text=['name = "evil"', "[source]", 'provider = "git"'])
    new += _new("kunit/overlay.toml", text=["evil = 1"]) + _new("conftest.py", text=["raise"])
    return _patch(good + new + _new("sitecustomize.py", text=["raise SystemExit(1)"]))


@_maker
def _build_files(good: str) -> bytes:
    """Files that run when a kernel is configured: applied, not run by it."""
    text = ["$(shell touch /tmp/iommuq-evil)"]
    return _patch(good + _new("drivers/evil/Makefile", text=text) + _new("Kconfig.evil", text=text))


@_maker
def _executable(good: str) -> bytes:
    return _patch(good + _new("scripts/evil.sh", mode="100755", text=["#!/bin/sh", "id"]))


# What a mail says.


@_maker
def _trailers(good: str) -> bytes:
    """Trailers of others, folded and with controls."""
    lies = (
        "Reviewed-by: Grace Toy <grace@example.com>\r\nTested-by:\n Toy <committer@example.com>\n"
    )
    return _patch(good, message=f"Because.\n\n{_SIGNED}{lies}")


@_maker
def _diff_in_message(good: str) -> bytes:
    """A diff in the message, before that of the patch."""
    return _patch(good, message=f"Because of\n\n{_new('../evil')}\n{_SIGNED}")


@_maker
def _scissors(good: str) -> bytes:
    """Another mail below scissors, with another author."""
    lie = "Nothing here.\n-- >8 --\nFrom: Eve <eve@example.com>\nSubject: evil\n\n"
    return _patch(good, message=lie + _SIGNED)


@_maker
def _from_in_body(good: str) -> bytes:
    """A line that begins a mail of an mbox, in the middle of one."""
    return _patch(good, message=f"Because.\n\nFrom eve Thu Jan  1 00:00:00 1970\n\n{_SIGNED}")


@_maker
def _mail_in_body(good: str) -> bytes:
    """A second mail after an unescaped line."""
    return _patch(
        good, message=f"Because.\n\n{_patch(_new('../evil'), name='2').decode()}{_SIGNED}"
    )


@_maker
def _cover_lies(good: str) -> bytes:
    """A cover letter whose base-commit is an option of git."""
    body = "What.\n\nbase-commit: --output=/tmp/iommuq-evil\nprerequisite-patch-id: ../../x\n"
    cover = _mail(body, subject="[PATCH 0/1] toy: Mend it", name="0")
    reply = "In-Reply-To: <0@example.com>\n"
    return cover + _patch(good, subject="[PATCH 1/1] toy: Mend", headers=reply)


@_maker
def _message_id(good: str) -> bytes:
    """An id that is a path, an option and a command."""
    return _patch(good, name="../../--output=/tmp/iommuq-evil;$(id)")


@_maker
def _same_id(good: str) -> bytes:
    """Two patches with one id."""
    first = _patch(good, subject="[PATCH 1/2] toy: One")
    return first + _patch(_new("x"), subject="[PATCH 2/2] toy: Two")


@_maker
def _loop(good: str) -> bytes:
    """Mails that answer each other."""
    first = _patch(good, subject="[PATCH 1/2] a", headers="In-Reply-To: <2@example.com>\n")
    second = _patch(
        _new("x"), subject="[PATCH 2/2] b", name="2", headers="In-Reply-To: <1@example.com>\n"
    )
    return first + second


@_maker
def _references(good: str) -> bytes:
    """A mail that answers 20,000 others."""
    many = "\n ".join(f"<{number}@example.com>" for number in range(20_000))
    return _patch(good, headers=f"References: {many}\n")


@_maker
def _counters(good: str) -> bytes:
    """Two of ten to the ninth patches."""
    first = _patch(good, subject="[PATCH 1/999999999] toy: One")
    return first + _patch(_new("x"), subject="[PATCH 2/999999999] toy: Two", name="2")


@_maker
def _version(good: str) -> bytes:
    return _patch(good, subject=f"[PATCH v{'9' * 5000} 1/1] toy: Count")


@_maker
def _many(_good: str) -> bytes:
    """200 patches, of which one is missing."""
    return b"".join(
        _patch(_new(f"x{n}"), subject=f"[PATCH {n:04}/200] toy: {n}", name=str(n))
        for n in range(1, 200)
    )


@_maker
def _two_series(good: str) -> bytes:
    """Another series in the same thread, with the same version."""
    return _patch(good, subject="[PATCH 1/1] a") + _patch(
        _new("x"), subject="[PATCH 1/1] b", name="2", headers="In-Reply-To: <1@example.com>\n"
    )


@_maker
def _sender(good: str) -> bytes:
    """An author with controls, and without an address."""
    return _patch(good, sender="=?utf-8?q?=1b]0;evil=07_=0ABcc:_eve@example.com?= <--evil>")


@_maker
def _subject_controls(good: str) -> bytes:
    """A subject with escapes, a new line and a header of its own."""
    return _patch(good, subject="[PATCH] =?utf-8?q?toy:_=1b[2J=0ABcc:_eve@example.com=0D=0A_x?=")


# How a mail is made.


@_maker
def _charset_utf7(good: str) -> bytes:
    """What is no tag in ASCII is one in UTF-7."""
    return _patch(good + _new("+AC4ALg-/evil"), content="text/plain; charset=utf-7")


@_maker
def _charset_utf16(good: str) -> bytes:
    data = f"{_SIGNED}{_STAT}{good}".encode("utf-16")
    body = base64.encodebytes(data)
    return _mail(body, content="text/plain; charset=utf-16", encoding="base64")


@_maker
def _charset_codec(good: str) -> bytes:
    """A codec of Python that is none of text, and expands."""
    return _patch(good, content="text/plain; charset=zlib_codec")


@_maker
def _charset_huge(good: str) -> bytes:
    return _patch(good, content=f"text/plain; charset={'x' * 100_000}")


@_maker
def _base64_garbage(good: str) -> bytes:
    body = base64.encodebytes(f"{_SIGNED}{_STAT}{good}".encode())
    noise = body.replace(b"\n", b"\n!@#$%^&*()\n")[:-8] + b"=====\n===\n"
    return _mail(noise, encoding="base64")


@_maker
def _quoted_bomb(good: str) -> bytes:
    """Quoted-printable of soft line ends alone: 2 MB."""
    return _mail(f"{_SIGNED}{_STAT}{good}" + "=\n" * 1_000_000, encoding="quoted-printable")


@_maker
def _uuencoded(good: str) -> bytes:
    return _patch(good, encoding="x-uuencode")


@_maker
def _nul(good: str) -> bytes:
    body = f"{_SIGNED}{_STAT}{good}".encode().replace(b"Because", b"Be\0cause")
    return _mail(base64.encodebytes(body), encoding="base64")


@_maker
def _nested(good: str) -> bytes:
    """Multiparts in each other, 1000 deep."""
    depth = 1000
    head = "".join(
        f'--{n}\nContent-Type: multipart/mixed; boundary="{n + 1}"\n\n' for n in range(depth)
    )
    inner = f"--{depth}\nContent-Type: text/plain\n\n{_SIGNED}{_STAT}{good}\n"
    tail = "".join(f"--{n}--\n" for n in range(depth, -1, -1))
    return _mail(head + inner + tail, content='multipart/mixed; boundary="0"')


@_maker
def _nested_messages(good: str) -> bytes:
    """Mails in each other, 900 deep."""
    body = "Content-Type: message/rfc822\n\n" * 900
    inner = f"Content-Type: text/plain\n\n{_SIGNED}{_STAT}{good}\n"
    return _mail(body + inner, content="message/rfc822")


@_maker
def _parts(good: str) -> bytes:
    """10,000 parts."""
    parts = "--X\nContent-Type: text/plain\n\nx\n" * 10_000
    body = f"--X\nContent-Type: text/plain\n\n{_SIGNED}{_STAT}{good}\n{parts}--X--\n"
    return _mail(body, content='multipart/mixed; boundary="X"')


@_maker
def _boundary(good: str) -> bytes:
    """A boundary that the diff has, too."""
    body = f"--+x\nContent-Type: text/plain\n\n{_SIGNED}{_STAT}{good}{_new('y', text=['x', '--'])}"
    return _mail(body, content='multipart/mixed; boundary="+x"')


@_maker
def _html(good: str) -> bytes:
    return _patch(f"<pre>{good}</pre>", content="text/html; charset=utf-8")


@_maker
def _attachment_name(good: str) -> bytes:
    """An attachment whose name is a path."""
    kind = 'Content-Disposition: attachment; filename="../../../evil.patch"\n'
    body = f"--X\nContent-Type: text/x-patch\n{kind}\n{_SIGNED}{_STAT}{good}\n--X--\n"
    return _mail(body, content='multipart/mixed; boundary="X"')


@_maker
def _external(good: str) -> bytes:
    """A part that is a file of the reader's."""
    kind = "message/external-body; access-type=local-file; name=/etc/passwd"
    return _mail(f"{_SIGNED}{_STAT}{good}", content=kind)


@_maker
def _flowed_path(good: str) -> bytes:
    """A name that only joined lines have."""
    diff = good + _new("x").replace("+++ b/x", "+++ b/.. \n/../evil")
    return _patch(diff, content="text/plain; charset=utf-8; format=flowed")


@_maker
def _crlf_path(good: str) -> bytes:
    data = _patch(good + _new("../evil"))
    return data.replace(b"\n", b"\r\n")


# How large a mail is.


@_maker
def _header_long(good: str) -> bytes:
    return _patch(good, headers=f"X-Long: {'x' * 20_000_000}\n")


@_maker
def _headers_many(good: str) -> bytes:
    return _patch(good, headers="".join(f"X-{n}: x\n" for n in range(100_000)))


@_maker
def _received(good: str) -> bytes:
    """A header that is folded 200,000 times."""
    return _patch(good, headers="Received: by x\n" + " by y;\n" * 200_000)


@_maker
def _recipients(good: str) -> bytes:
    many = ",\n ".join(f"=?utf-8?q?N{n}?= <{n}@example.com>" for n in range(2_000))
    return _patch(good, headers=f"Cc: {many}\n")


@_maker
def _words(good: str) -> bytes:
    """A subject of encoded words that do not end: 80 KB."""
    return _patch(good, subject="[PATCH] " + "\n ".join(["=?utf-8?q?a" * 5] * 1500))


@_maker
def _comments(good: str) -> bytes:
    """An address of nested comments."""
    return _patch(good, sender="(" * 5000 + ")" * 5000 + " <ada@example.com>")


@_maker
def _dkim(good: str) -> bytes:
    """A signature whose tags are endless."""
    tags = "; ".join(f"a{n}=x" for n in range(20_000))
    return _patch(good, headers=f"DKIM-Signature: v=1; {tags}\n")


@_maker
def _line(_good: str) -> bytes:
    """A line of 30 MB."""
    return _patch(_new("x", text=["x" * 30_000_000]))


@_maker
def _lines(_good: str) -> bytes:
    """600 KB of lines of one character."""
    return _patch(_new("x", text=["x"] * 200_000))


@_maker
def _hunks(_good: str) -> bytes:
    """5,000 hunks."""
    hunk = "@@ -1 +1 @@\n-a\n+b\n"
    return _patch(f"diff --git a/{_FILE} b/{_FILE}\n--- a/{_FILE}\n+++ b/{_FILE}\n" + hunk * 5_000)


@_maker
def _hunk_numbers(_good: str) -> bytes:
    """Lines that no file has."""
    head = f"diff --git a/{_FILE} b/{_FILE}\n--- a/{_FILE}\n+++ b/{_FILE}\n"
    return _patch(f"{head}@@ -4294967295,4294967295 +18446744073709551615,9 @@\n-a\n+b\n")


@_maker
def _files(_good: str) -> bytes:
    """1,000 files."""
    return _patch("".join(_new(f"drivers/evil/{n}") for n in range(1_000)))


@_maker
def _message_long(good: str) -> bytes:
    """A message of 160 KB, of lines that may be trailers."""
    return _patch(good, message="Link: x\n" * 20_000 + _SIGNED)


@_maker
def _noise(_good: str) -> bytes:
    """Bytes without a meaning."""
    return _FROM + random.Random(7).randbytes(2_000_000).replace(b"\0", b"1")
