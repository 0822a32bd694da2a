# SPDX-License-Identifier: GPL-2.0-only
"""Tests of iommuq.mail.review.fetch: the mails of a series as they come, or do not."""

from __future__ import annotations

import base64
import re
import resource
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest

import toy
from iommuq.mail.review import fetch as fetching
from iommuq.queue.parse import read_mails
from iommuq.system.errors import UserError
from mailfetched import WANTED, alone, changes, get, refused, text
from seriesmaker import Series, as_mbox, in_mbox, mail, message_id


def test_whole_series(inbox: Path, series: Series, tmp_path: Path) -> None:
    posted = get(inbox, series.write(tmp_path / "x.mbox"))
    assert (posted.revision, posted.revisions, posted.messages) == (1, (1,), 3)
    assert posted.base_commit == "0123456789abcdef0123456789abcdef01234567"
    assert posted.title == "toy: Mend it"
    assert [each.msgid for each in posted.patches] == ["patch1@example.com", "patch2@example.com"]
    assert [each.signature for each in posted.patches] == ["not signed"] * 2
    assert changes(posted) == WANTED
    reply = posted.patches[1].reply
    assert reply["Subject"] == "Re: [PATCH 2/2] toy: Count"
    assert reply["In-Reply-To"] == "<patch2@example.com>"
    assert reply["References"] == "<cover@example.com> <patch2@example.com>"
    assert "ada@example.com" in reply["To"]
    assert "iommu@lists.example.com" in reply["Cc"]


def test_reordered_and_repeated(inbox: Path, series: Series, tmp_path: Path) -> None:
    """The same mail twice, as from two lists, and the last one first."""
    mails = [*reversed(series.mails), series.mails[1]]
    assert changes(get(inbox, series.write(tmp_path / "x.mbox", mails))) == WANTED


def test_missing_patch(inbox: Path, series: Series, tmp_path: Path) -> None:
    path = series.write(tmp_path / "x.mbox", [series.mails[0], series.mails[2]])
    assert "v1: missing: 1/2" in refused(inbox, path).what


def test_two_mails_for_one_patch(inbox: Path, series: Series, tmp_path: Path) -> None:
    series.patch(1, 2, {toy.IOMMU_C: ("int ret = 6;", "int ret = 60;")}, name="again")
    error = refused(inbox, series.write(tmp_path / "x.mbox"))
    assert "2 mails are patch 1" in error.what
    assert "<patch1@example.com>" in error.what
    assert "<again@example.com>" in error.what


def test_two_versions_mixed(inbox: Path, series: Series, tmp_path: Path) -> None:
    """The latest is taken, the other can be had, and a third cannot."""
    series.prefix = "PATCH v2"
    series.cover(1, name="cover-v2")
    later = series.patch(
        1, 1, {toy.IOMMU_C: ("int ret = 7;", "int ret = 70;")}, name="v2-1", parent="cover-v2"
    )
    for each in series.mails[3:]:
        each.replace_header("Date", "Thu, 8 Jun 2023 12:00:00 +0200")
    later["In-Reply-To"] = message_id("cover-v2")
    path = series.write(tmp_path / "x.mbox")
    posted = get(inbox, path)
    assert (posted.revision, posted.revisions) == (2, (1, 2))
    assert changes(posted) == [b"+\tint ret = 70;"]
    assert changes(get(inbox, path, version=1)) == WANTED
    assert "no v3 of this series; found: v1, v2" in refused(inbox, path, version=3).what


def recoded(message: EmailMessage, payload: bytes, content: str, encoding: str) -> bytes:
    """Return a mail with another body, as an mbox has it."""
    head = [
        f"{name}: {value}"
        for name, value in message.items()
        if name.lower() not in ("content-type", "content-transfer-encoding", "mime-version")
    ]
    head += ["MIME-Version: 1.0", f"Content-Type: {content}"]
    head += [f"Content-Transfer-Encoding: {encoding}"]
    return in_mbox("\n".join(head).encode() + b"\n\n" + payload)


def crlf(message: EmailMessage) -> bytes:
    return as_mbox(message).replace(b"\n", b"\r\n")


def encoded(message: EmailMessage) -> bytes:
    body = base64.encodebytes(text(message))
    return recoded(message, body, "text/plain; charset=utf-8", "base64")


def encoded_crlf(message: EmailMessage) -> bytes:
    body = base64.encodebytes(text(message).replace(b"\n", b"\r\n"))
    return recoded(message, body, "text/plain; charset=utf-8", "base64")


def flowed(message: EmailMessage) -> bytes:
    """As a mail program does it: blanks go at the end of lines, and come at their beginning."""
    body = re.sub(rb"(?<!--) +$", b"", text(message), flags=re.M)
    body = re.sub(rb"^(?= |From |>)", b" ", body, flags=re.M)
    # And what the sender wrote as one line is folded.
    body = body.replace(b"The baseline does not.", b"The baseline \ndoes not.")
    return recoded(message, body, "text/plain; charset=utf-8; format=flowed", "8bit")


def attached(message: EmailMessage, kind: str = "text/x-patch") -> bytes:
    patch = f"Subject: [PATCH] {message['Subject']}\n".replace("[PATCH] [PATCH]", "[PATCH]")
    patch += "From: Ada Toy <ada@example.com>\n\n"
    body = (
        b"--XX\nContent-Type: text/plain\n\nSee the attachment.\n--XX\nContent-Type: "
        + kind.encode()
        + b'; name="0001.patch"\nContent-Disposition: attachment; filename="0001.patch"\n'
        b"Content-Transfer-Encoding: base64\n\n"
        + base64.encodebytes(patch.encode() + text(message))
        + b"--XX--\n"
    )
    return recoded(message, body, 'multipart/mixed; boundary="XX"', "7bit")


def wrong_charset(message: EmailMessage) -> bytes:
    body = text(message).replace(b"int ret = 40", "int ret = 40 /* größer */".encode())
    return recoded(message, body, "text/plain; charset=us-ascii", "8bit")


def unknown_charset(message: EmailMessage) -> bytes:
    return recoded(message, text(message), "text/plain; charset=x-nobody", "8bit")


@pytest.mark.parametrize(
    ("form", "remark"),
    [
        (as_mbox, None),
        (crlf, None),
        (encoded, None),
        (encoded_crlf, "sent with CRLF line ends"),
        (flowed, "sent as format=flowed"),
        (attached, "sent in several parts or as an attachment"),
        (wrong_charset, "is UTF-8, but declared as us-ascii"),
        (unknown_charset, None),
    ],
)
def test_what_mail_programs_do(
    inbox: Path,
    series: Series,
    tmp_path: Path,
    form: Callable[[EmailMessage], bytes],
    remark: str | None,
) -> None:
    """The patch comes out as it was, and what had to be undone is told."""
    message = alone(series)
    path = tmp_path / "x.mbox"
    path.write_bytes(form(message))
    posted = get(inbox, path)
    [read] = read_mails(posted.mails)
    # What the file had, line by line.
    wanted = text(message)[text(message).index(b"diff --git") :].rstrip()
    if form is flowed:
        wanted = re.sub(rb"(?<!--) +$", b"", wanted, flags=re.M)
    if form is wrong_charset:
        wanted = wanted.replace(b"int ret = 40", "int ret = 40 /* größer */".encode())
    assert wanted in read.diff.replace(b"\r", b"")
    assert b"\r" not in read.diff
    assert read.subject == "toy: Refuse to block"
    assert read.author == "Ada Toy <ada@example.com>"
    assert "The baseline does not." in read.message or form is attached
    assert (remark in posted.patches[0].remarks) if remark else not posted.patches[0].remarks


def test_characters_that_nobody_knows(inbox: Path, series: Series, tmp_path: Path) -> None:
    message = alone(series)
    body = text(message).replace(b"int ret = 40", b"int ret = 40 /* gr\xf6\xdfer */")
    path = tmp_path / "x.mbox"
    path.write_bytes(recoded(message, body, "text/plain; charset=utf-8", "8bit"))
    assert "declared as utf-8, but neither that" in refused(inbox, path).what


def test_attachment_of_no_text(inbox: Path, series: Series, tmp_path: Path) -> None:
    path = tmp_path / "x.mbox"
    path.write_bytes(attached(alone(series), "application/octet-stream"))
    error = refused(inbox, path)
    assert "no patch found" in error.what
    assert "application/octet-stream" in error.hint


def test_characters_that_deceive(inbox: Path, series: Series, tmp_path: Path) -> None:
    """Those that make people see another order than the compiler does."""
    message = alone(series)
    body = text(message).replace(b"int ret = 40", "int ret = \u202e40".encode())
    path = tmp_path / "x.mbox"
    path.write_bytes(recoded(message, body, "text/plain; charset=utf-8", "8bit"))
    assert "unicode control characters" in refused(inbox, path).what


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "empty"),
        (b"hello\n", "no Message-ID"),
        (b"\0\0", "NUL byte"),
        (as_mbox(mail("Re: lunch", "At noon?\n", name="lunch")), "no patch found"),
        (b"From: a\nSubject: [PATCH] x\n\n---\ndiff --git a/x b/x\n", "no Message-ID"),
    ],
)
def test_no_series_at_all(inbox: Path, tmp_path: Path, data: bytes, complaint: str) -> None:
    path = tmp_path / "x.mbox"
    path.write_bytes(data)
    assert complaint in refused(inbox, path).what


def test_no_file_and_no_id(inbox: Path, tmp_path: Path) -> None:
    assert "neither a file nor a Message-ID" in refused(inbox, Path("nothing.mbox")).what
    assert "not a maildir" in refused(inbox, tmp_path).what
    with pytest.raises(UserError, match="--offline"):
        fetching.fetch("x@example.com", inbox, offline=True)


def test_file_without_a_size(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a device, a pipe or /proc has none, and may have no end either."""
    monkeypatch.setattr(fetching, "MOST", 16)
    assert "MiB: too large for a series" in refused(inbox, Path("/proc/self/status")).what


def test_a_mail_and_a_maildir(inbox: Path, series: Series, tmp_path: Path) -> None:
    path = tmp_path / "one.eml"
    path.write_bytes(alone(series).as_bytes())
    assert changes(get(inbox, path)) == WANTED[:1]
    maildir = tmp_path / "maildir"
    for name in ("cur", "new", "tmp"):
        (maildir / name).mkdir(parents=True)
    (maildir / "new" / "1").write_bytes(series.mails[1].as_bytes())
    assert changes(get(inbox, maildir)) == WANTED[:1]


def test_a_mail_that_takes_more_memory_than_it_may(tmp_path: Path) -> None:
    """Encoded words are decoded in quadratic time and memory: 2 MB of them took 22 GiB."""
    # Not the fixture: there b4 runs in our own process, without bounds.
    subject = "[PATCH] " + "\n ".join(["=?utf-8?q?a?= " * 5] * 30_000)
    head = f"From: A <a@example.com>\nMessage-ID: <1@example.com>\nSubject: {subject}\n"
    diff = "diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1 +1,2 @@\n x\n+y\n"
    path = tmp_path / "x.eml"
    path.write_text(f"{head}Date: Wed, 7 Jun 2023 12:00:00 +0200\n\nbody\n---\n{diff}")
    with pytest.raises(UserError, match="than it may"):
        fetching.fetch(str(path), tmp_path, offline=True)
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert most <= 1 << 20  # KiB


def test_a_file_of_the_largest_size(inbox: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.mbox"
    with path.open("wb") as file:
        file.truncate(fetching.MOST + 1)
    with pytest.raises(UserError, match="more than 32 MiB"):
        get(inbox, path)
