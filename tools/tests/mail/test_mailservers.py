# SPDX-License-Identifier: GPL-2.0-only
"""The servers that the tests of mail run against do what those tests take for granted."""

from __future__ import annotations

import smtplib
import socket
import subprocess
import urllib.error
import urllib.request
from email.message import EmailMessage
from pathlib import Path

import pytest

from mailservers import (
    INBOX,
    LIST,
    LOOPBACK,
    needs_archive,
    serve_archive,
    serve_post,
    silent_port,
    unused_port,
)


def letter(number: int = 1) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = "Ada Toy <ada@example.com>"
    mail["To"] = LIST
    mail["Subject"] = f"letter {number}"
    mail["Date"] = "Wed, 7 Jun 2023 12:00:00 +0200"
    mail["Message-ID"] = f"<letter-{number}@example.com>"
    mail.set_content("Hello.\n")
    return mail


@needs_archive
def test_mail_to_the_list_is_in_the_archive(tmp_path: Path) -> None:
    with (
        serve_archive(tmp_path / "archive") as archive,
        serve_post(archive) as post,
        smtplib.SMTP(LOOPBACK, post.port, timeout=60) as client,
    ):
        client.send_message(letter(1), to_addrs=[LIST, "bob@example.com"])
        client.send_message(letter(2), to_addrs=["bob@example.com"])
        assert [mail["Subject"] for mail in archive.messages()] == ["letter 1"]
        # The address that b4 makes of its midmask.
        address = archive.midmask % "letter-1@example.com"
        with urllib.request.urlopen(f"{address}/raw", timeout=60) as answer:
            assert b"Subject: letter 1" in answer.read()
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(
                f"{archive.url}{INBOX}/letter-2@example.com/raw", timeout=60
            ).close()
        assert [each.recipients for each in post.taken] == [
            (LIST, "bob@example.com"),
            ("bob@example.com",),
        ]


def test_recipients_and_mails_can_be_refused() -> None:
    with serve_post() as post, smtplib.SMTP(LOOPBACK, post.port, timeout=60) as client:
        post.refuse["bob@example.com"] = "550 no such user"
        refused = client.send_message(letter(), to_addrs=[LIST, "bob@example.com"])
        assert refused == {"bob@example.com": (550, b"no such user")}
        assert post.taken[0].recipients == (LIST,)
        post.refuse_after = 1
        with pytest.raises(smtplib.SMTPDataError, match="451"):
            client.send_message(letter(2), to_addrs=[LIST])
        post.refuse_after, post.drop_after = None, 1
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.send_message(letter(3), to_addrs=[LIST])
        assert len(post.taken) == 1


def test_a_server_that_stalls_is_ended_all_the_same() -> None:
    with serve_post() as post, smtplib.SMTP(LOOPBACK, post.port, timeout=60) as client:
        post.stall = True
        client.ehlo()
        assert client.sock is not None
        client.sock.settimeout(0.2)
        with pytest.raises((TimeoutError, smtplib.SMTPServerDisconnected)):
            client.mail("ada@example.com")


def test_ports_that_do_not_answer() -> None:
    with unused_port() as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, port), timeout=60).close()
    with silent_port() as port, socket.create_connection((LOOPBACK, port), timeout=60) as client:
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)


@needs_archive
def test_the_archive_ends_with_the_block(tmp_path: Path) -> None:
    with serve_archive(tmp_path) as archive:
        archive.deliver(letter().as_bytes())
        port = int(archive.url.rstrip("/").rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, port), timeout=60).close()
    done = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, check=False)
    assert done.stdout == b""
