# SPDX-License-Identifier: GPL-2.0-only
"""Tests of iommuq.mail.fetch: the mails of a series as they come, or do not."""

from __future__ import annotations

import base64
import dataclasses
import email.policy
import functools
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import dkim  # type: ignore[import-untyped]
import patatt
import pytest
import toy
from mailservers import needs_archive, serve_archive
from seriesmaker import Series, as_mbox, mail, message_id

from iommuq import run as runs
from iommuq.errors import InfraError, UserError
from iommuq.mail import fetch as fetching
from iommuq.mail import fetch_worker
from iommuq.mail.fetch import Posted
from iommuq.mailform import read_mails


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory to put patches into; b4 runs in our own process."""
    folder = tmp_path / "mails"
    folder.mkdir()
    work = tmp_path / "cwd"
    work.mkdir()
    monkeypatch.chdir(work)

    def in_process(argv: Sequence[str], *, stdin: str = "", **options: Any) -> runs.Completed:
        if argv[0] == "git":
            return runs.run(argv, **options)
        request = json.loads(stdin)
        try:
            answer = fetch_worker.collect(request, Path(request["folder"]))
        except fetch_worker.Refused as error:
            answer = error.answer
        return runs.Completed((), 0, json.dumps(answer), "", 0.0)

    monkeypatch.setattr(fetching, "run", in_process)
    return folder


@pytest.fixture
def series(tmp_path: Path, toy_work: Path) -> Series:
    """Return a series of two patches with a cover letter."""
    made = Series(toy.QueueMaker(folder=tmp_path / "none", work=toy_work))
    made.cover(2, "What it is for.\n\nbase-commit: 0123456789abcdef0123456789abcdef01234567\n")
    made.patch(1, 2, {toy.IOMMU_C: ("int ret = 4;", "int ret = 40;")})
    made.patch(2, 2, {toy.IOMMU_C: ("int ret = 5;", "int ret = 50;")}, subject="toy: Count")
    return made


def get(inbox: Path, path: Path, **options: Any) -> Posted:
    return fetching.fetch(str(path), inbox, **{"offline": True, **options})


def refused(inbox: Path, path: Path, **options: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        get(inbox, path, **options)
    assert "\n" not in str(caught.value)
    return caught.value


def changes(posted: Posted) -> list[bytes]:
    """Return the lines that each patch adds, as the rest of the project reads the mails."""
    added = re.compile(rb"^\+[^+].*$", re.M)
    return [b"".join(added.findall(each.diff)) for each in read_mails(posted.mails)]


WANTED = [b"+\tint ret = 40;", b"+\tint ret = 50;"]


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
    assert "1/2 of it is missing" in refused(inbox, path).what


def test_two_mails_for_one_patch(inbox: Path, series: Series, tmp_path: Path) -> None:
    series.patch(1, 2, {toy.IOMMU_C: ("int ret = 6;", "int ret = 60;")}, name="again")
    error = refused(inbox, series.write(tmp_path / "x.mbox"))
    assert "2 mails say that they are patch 1" in error.what
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
    assert "no v3 of it; there are v1, v2" in refused(inbox, path, version=3).what


def recoded(message: EmailMessage, payload: bytes, content: str, encoding: str) -> bytes:
    """Return a mail with another body, as an mbox has it."""
    head = [
        f"{name}: {value}"
        for name, value in message.items()
        if name.lower() not in ("content-type", "content-transfer-encoding", "mime-version")
    ]
    head += ["MIME-Version: 1.0", f"Content-Type: {content}"]
    head += [f"Content-Transfer-Encoding: {encoding}"]
    begin = b"From mboxrd@z Thu Jan  1 00:00:00 1970\n"
    return begin + "\n".join(head).encode() + b"\n\n" + payload + b"\n"


def alone(series: Series) -> EmailMessage:
    """Return the first patch as one that was posted alone."""
    message = series.mails[1]
    subject = str(message["Subject"]).replace(" 1/2", "")
    message.replace_header("Subject", subject)
    for name in ("In-Reply-To", "References"):
        del message[name]
    return message


def text(message: EmailMessage) -> bytes:
    payload = message.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload


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
        (wrong_charset, "is UTF-8, though it says us-ascii"),
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
    assert "says that it is in utf-8, and is not" in refused(inbox, path).what


def test_attachment_of_no_text(inbox: Path, series: Series, tmp_path: Path) -> None:
    path = tmp_path / "x.mbox"
    path.write_bytes(attached(alone(series), "application/octet-stream"))
    error = refused(inbox, path)
    assert "no patch in it" in error.what
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
        (as_mbox(mail("Re: lunch", "At noon?\n", name="lunch")), "no patch in it"),
        (b"From: a\nSubject: [PATCH] x\n\n---\ndiff --git a/x b/x\n", "no Message-ID"),
    ],
)
def test_no_series_at_all(inbox: Path, tmp_path: Path, data: bytes, complaint: str) -> None:
    path = tmp_path / "x.mbox"
    path.write_bytes(data)
    assert complaint in refused(inbox, path).what


def test_no_file_and_no_id(inbox: Path, tmp_path: Path) -> None:
    assert "no such file, and no Message-ID" in refused(inbox, Path("nothing.mbox")).what
    assert "not a maildir" in refused(inbox, tmp_path).what
    with pytest.raises(UserError, match="--offline"):
        fetching.fetch("x@example.com", inbox, offline=True)


def test_a_mail_and_a_maildir(inbox: Path, series: Series, tmp_path: Path) -> None:
    path = tmp_path / "one.eml"
    path.write_bytes(alone(series).as_bytes())
    assert changes(get(inbox, path)) == WANTED[:1]
    maildir = tmp_path / "maildir"
    for name in ("cur", "new", "tmp"):
        (maildir / name).mkdir(parents=True)
    (maildir / "new" / "1").write_bytes(series.mails[1].as_bytes())
    assert changes(get(inbox, maildir)) == WANTED[:1]


@dataclasses.dataclass
class Key:
    """A key of patatt's own kind, with what git has to know of it."""

    config: list[str]
    identity: str = "ada@example.com"


@pytest.fixture
def keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory that b4 looks for public keys in."""
    data = tmp_path / "data"
    monkeypatch.setenv("XDG_DATA_HOME", str(data))
    return data / "b4" / "keyring"


def sign(message: EmailMessage, folder: Path, *, known: Path | None) -> bytes:
    """Sign a mail with a new key; its public half goes into the keyring *known*."""
    from nacl.encoding import Base64Encoder
    from nacl.signing import SigningKey

    key = SigningKey.generate()
    if known is not None:
        place = known / "ed25519" / "example.com" / "ada" / "default"
        place.parent.mkdir(parents=True)
        place.write_bytes(base64.b64encode(key.verify_key.encode()))
    secret = Base64Encoder.encode(key.encode())
    (folder / "secret").write_bytes(secret)
    signed = patatt.PatattMessage(message.as_bytes())
    signed.sign("ed25519", secret, "ada@example.com", "default")
    return b"From mboxrd@z Thu Jan  1 00:00:00 1970\n" + signed.as_bytes() + b"\n"


@pytest.mark.parametrize(
    ("case", "signature"),
    [
        ("good", "Signed: ed25519/ada@example.com"),
        ("no key", "No key: ed25519/ada@example.com"),
        ("changed", "BADSIG: ed25519/ada@example.com"),
    ],
)
def test_patatt(
    inbox: Path, series: Series, tmp_path: Path, keyring: Path, case: str, signature: str
) -> None:
    data = sign(alone(series), tmp_path, known=None if case == "no key" else keyring)
    if case == "changed":
        data = data.replace(b"int ret = 40", b"int ret = 41")
    path = tmp_path / "x.mbox"
    path.write_bytes(data)
    posted = get(inbox, path)
    assert posted.patches[0].signature.startswith(signature)


def test_what_follows_the_signed_part_is_dropped(
    inbox: Path, series: Series, tmp_path: Path, keyring: Path
) -> None:
    """A list's footer may follow what was signed, and so may another diff."""
    data = sign(alone(series), tmp_path, known=keyring).rstrip() + b"\n"
    evil = b"diff --git a/evil b/evil\nnew file mode 100644\n--- /dev/null\n+++ b/evil\n"
    path = tmp_path / "x.mbox"
    path.write_bytes(data + evil + b"@@ -0,0 +1 @@\n+evil\n")
    posted = get(inbox, path)
    assert posted.patches[0].signature == "Signed: ed25519/ada@example.com"
    assert b"evil" not in posted.mails[0].read_bytes()


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return the records that a look-up for keys of DKIM gets, and no other is made."""
    records: dict[str, bytes] = {}

    def look_up(name: bytes, timeout: int = 5) -> bytes | None:  # noqa: ARG001
        return records.get(name.decode().rstrip("."))

    monkeypatch.setattr(dkim, "verify", functools.partial(dkim.verify, dnsfunc=look_up))
    return records


def dkim_signed(message: EmailMessage, records: dict[str, bytes]) -> bytes:
    from nacl.signing import SigningKey

    key = SigningKey.generate()
    public = base64.b64encode(key.verify_key.encode())
    records["mail._domainkey.example.com"] = b"v=DKIM1; k=ed25519; p=" + public
    data = message.as_bytes(policy=email.policy.SMTP)
    header = dkim.sign(
        data,
        b"mail",
        b"example.com",
        base64.b64encode(key.encode()),
        signature_algorithm=b"ed25519-sha256",
        canonicalize=(b"relaxed", b"relaxed"),
        include_headers=[b"from", b"subject", b"date"],
    )
    whole: bytes = (header + data).replace(b"\r\n", b"\n")
    return b"From mboxrd@z Thu Jan  1 00:00:00 1970\n" + whole


@pytest.mark.parametrize(
    ("case", "signature"),
    [
        ("good", "Signed: DKIM/example.com"),
        ("changed", "BADSIG: DKIM/example.com"),
        ("no key", "BADSIG: DKIM/example.com"),
    ],
)
def test_dkim(
    inbox: Path,
    series: Series,
    tmp_path: Path,
    dns: dict[str, bytes],
    case: str,
    signature: str,
) -> None:
    data = dkim_signed(alone(series), dns)
    if case == "changed":
        data = data.replace(b"int ret = 40", b"int ret = 41")
    if case == "no key":
        dns.clear()
    path = tmp_path / "x.mbox"
    path.write_bytes(data)
    posted = get(inbox, path, offline=False)
    assert posted.patches[0].signature.startswith(signature)


def test_no_archive_is_asked_that_nobody_named(inbox: Path) -> None:
    """b4's own default is the real one."""
    with pytest.raises(UserError, match="no archive is configured") as caught:
        fetching.fetch("x@example.com", inbox)
    assert "b4.midmask" in caught.value.hint


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory for patches; b4 runs in its own process."""
    folder = tmp_path / "mails"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    return folder


def midmask(server: socket.socket) -> list[str]:
    return [f"b4.midmask=http://127.0.0.1:{server.getsockname()[1]}/list/%s"]


def test_archive_that_is_down(process: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = midmask(server)
    with pytest.raises(InfraError) as caught:
        fetching.fetch("x@example.com", process, config=config)
    assert "\n" not in str(caught.value)


def test_archive_that_is_slow(process: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the request and says nothing; b4 is ended."""
    monkeypatch.setattr(fetching, "LIMIT", 6.0)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(InfraError, match="did not answer within 6 s"),
    ):
        fetching.fetch("x@example.com", process, config=midmask(server))


def answer_once(server: socket.socket, response: bytes) -> threading.Thread:
    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(1 << 16)
                connection.sendall(response)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\nrubbish",
        b"HTTP/1.0 500 Oh\r\nContent-Length: 0\r\n\r\n",
        b"\xff\xfe rubbish",
    ],
)
def test_archive_that_has_no_answer(process: Path, response: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer_once(server, response)
        with pytest.raises((UserError, InfraError)) as caught:
            fetching.fetch("x@example.com", process, config=midmask(server))
        server.shutdown(socket.SHUT_RDWR)
    assert "Traceback" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_worker_as_a_process(process: Path, series: Series, tmp_path: Path) -> None:
    """The whole way, once: what it says on its streams is no part of the answer."""
    posted = get(process, series.write(tmp_path / "x.mbox"))
    assert changes(posted) == WANTED


def test_worker_takes_no_other_input(tmp_path: Path) -> None:
    argv: Sequence[str] = [sys.executable, "-m", "iommuq.mail.fetch_worker"]
    done = subprocess.run(argv, input=b"{}", capture_output=True, check=False, cwd=tmp_path)
    assert done.returncode != 0
    assert done.stdout == b""


@needs_archive
def test_archive(process: Path, series: Series, tmp_path: Path) -> None:
    """A real one: the thread is found by any of its messages, and by its address."""
    with serve_archive(tmp_path / "archive") as archive:
        for each in series.mails:
            archive.deliver(each.as_bytes())
        config = [f"b4.midmask={archive.midmask}"]
        posted = fetching.fetch("patch2@example.com", process, config=config)
        assert changes(posted) == WANTED
        address = archive.midmask.replace("%s", "cover@example.com/")
        assert fetching.fetch(address, process).title == "toy: Mend it"
        with pytest.raises(UserError, match="has no message nobody@"):
            fetching.fetch("nobody@example.com", process, config=config)
